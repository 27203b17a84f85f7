"""Boxes of objects, and their masks."""
