r"""The classes of composites' pixels by a small UperNet, dense against pruned, aligned and not.

Data:     python -m train.data.composites --path data/composites
Command:  python -m train.compare --config configs/compare_composites_segments.py \
              --workdir runs/compare_composites_segments
Hardware: two CPU cores.
Result:   results/compare_composites_segments.md
"""

from train.small_recipes import compared, upernet

comparison = compared("UperNet", upernet)
