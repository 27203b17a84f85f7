"""Boxes, masks and grids of points: arithmetic without parameters."""
