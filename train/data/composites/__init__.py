"""Composites: photos of CIFAR-10, cut to shapes, on other photos; their masks are exact."""
