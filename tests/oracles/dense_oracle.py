"""Operations on boxes and masks, one box after another, in float64 unless said otherwise."""

import math

import numpy as np


def iou(a, b):
    """Of two boxes; in the precision they come in, since equal overlaps count."""
    zero = type(a[0])(0)
    width = max(min(a[2], b[2]) - max(a[0], b[0]), zero)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), zero)
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / max(areas - width * height, type(a[0])(1e-6))


def nms(boxes, scores, valid, threshold, groups):
    """Indices kept, best first."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        rivals = [j for j in kept if groups[j] == groups[i]]
        if valid[i] and not any(iou(boxes[i], boxes[j]) > threshold for j in rivals):
            kept.append(int(i))
    return kept


def assign(boxes, gts, pos, neg, min_pos):
    """-1 ignored, 0 background, k + 1 object k."""
    if not len(gts):
        return [0] * len(boxes)
    result = []
    for box in boxes:
        overlaps = [iou(gt, box) for gt in gts]
        largest = max(overlaps)
        result.append(-1 if largest >= neg else 0)
        if largest >= pos:
            result[-1] = overlaps.index(largest) + 1
    for k, gt in enumerate(gts):
        overlaps = [iou(gt, box) for box in boxes]
        largest = max(overlaps, default=-1)
        for a, overlap in enumerate(overlaps):
            if largest >= min_pos and overlap == largest:
                result[a] = k + 1
    return result


def bilinear(grid, y, x):
    """grid [H,W,...] at a point whose integers are the cells' centres; 0 outside."""
    total, y0, x0 = 0.0, math.floor(y), math.floor(x)
    for i in (y0, y0 + 1):
        for j in (x0, x0 + 1):
            if 0 <= i < grid.shape[0] and 0 <= j < grid.shape[1]:
                total = total + (1 - abs(y - i)) * (1 - abs(x - j)) * grid[i, j]
    return total


def roi_align(grid, box, bins, samples=None):
    """grid [H,W,C], box in cells: [bins,bins,C]. `samples` per axis, or as many as cells."""
    x1, y1, x2, y2 = np.asarray(box, np.float64)
    H, W, C = grid.shape
    g_y, g_x = (samples or math.ceil(length / bins) for length in (y2 - y1, x2 - x1))
    out = np.zeros((bins, bins, C))
    for p, q in np.ndindex(bins, bins):
        for i, j in np.ndindex(max(g_y, 0), max(g_x, 0)):
            y = y1 - 0.5 + (p + (i + 0.5) / g_y) * (y2 - y1) / bins
            x = x1 - 0.5 + (q + (j + 0.5) / g_x) * (x2 - x1) / bins
            if -1 <= y <= H and -1 <= x <= W:
                point = bilinear(grid, np.clip(y, 0, H - 1), np.clip(x, 0, W - 1))
                out[p, q] += point / (g_y * g_x)
    return out


def paste(mask, box, shape):
    """[h,w] into an image of `shape`."""
    x1, y1, x2, y2 = np.asarray(box, np.float64)
    out = np.zeros(shape)
    for i, j in np.ndindex(*shape):
        y = (i + 0.5 - y1) / (y2 - y1) * mask.shape[0] - 0.5
        x = (j + 0.5 - x1) / (x2 - x1) * mask.shape[1] - 0.5
        out[i, j] = bilinear(mask, y, x)
    return out
