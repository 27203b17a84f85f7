"""Parts of detectors between maps and objects, and what they learn from."""
