"""Data of detection and segmentation: COCO, ADE20K, and batches of their images."""
