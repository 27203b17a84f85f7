"""Methods, ratios and seeds side by side on one data set: `python -m train.compare`."""
