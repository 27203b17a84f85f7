"""The class of a photo."""
