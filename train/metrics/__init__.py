"""What evaluation of detection and segmentation measures, on any number of processes."""
