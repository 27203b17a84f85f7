"""Photos with a class each, whatever holds them: folders of photos and data sets of TFDS."""
