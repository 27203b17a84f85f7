"""Maps of images: PlainMamba and Vim run by ranges of blocks, and what stands beside them."""
