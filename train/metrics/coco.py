"""COCO's average precision of boxes and masks."""

import contextlib
import importlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from train.data.dense.coco_file import read_annotations
from train.data.dense.files import pycocotools
from train.data.fetching.fetch import DataError
from train.metrics.gather import from_all_processes

# The twelve numbers, in the order that the evaluation gives them.
NAMES = (
    "AP",
    "AP50",
    "AP75",
    "AP_small",
    "AP_medium",
    "AP_large",
    "AR_1",
    "AR_10",
    "AR_100",
    "AR_small",
    "AR_medium",
    "AR_large",
)

Results = dict[int, list[dict[str, Any]]]  # Image id -> its detections, in COCO's form.
Kind = Literal["bbox", "segm"]
Backend = Literal["pycocotools", "faster-coco-eval"]


def detections(
    image_id: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    category_ids: Sequence[int | None],
    masks: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """The detections on one image in COCO's form, which JSON can hold.

    Args:
      image_id: as in the annotations.
      boxes: [n,4] float32, (x1, y1, x2, y2) in the original image.
      scores: [n] float32.
      labels: [n] int, numbers of `category_ids`.
      category_ids: of the classes; what is found of one that has None is left out.
      masks: [n,height,width] bool, of the original image's size.

    Raises:
      DataError: there are masks, and pycocotools is not installed.
    """
    measured = np.array([category_ids[label] is not None for label in labels], bool)
    boxes, scores, labels = boxes[measured], scores[measured], labels[measured]
    corners = np.asarray(boxes, np.float64)
    corners = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    found = [
        {"image_id": int(image_id), "category_id": category_ids[label], "bbox": box, "score": score}
        for box, score, label in zip(
            corners.tolist(), scores.tolist(), labels.tolist(), strict=True
        )
    ]
    if masks is not None:
        rle = pycocotools("mask")
        for one, mask in zip(found, masks[measured], strict=True):
            coded = rle.encode(np.asfortranarray(mask, np.uint8))
            one["segmentation"] = {"size": coded["size"], "counts": coded["counts"].decode()}
    return found


def merged(parts: Iterable[Results]) -> Results:
    """The results of several processes as one would have them: by image id.

    Raises:
      ValueError: two of them have the same image.
    """
    everything: Results = {}
    for part in parts:
        if twice := everything.keys() & part.keys():
            raise ValueError(
                f"The image {min(twice)} was evaluated twice; each process must have its own."
            )
        everything |= part
    return dict(sorted(everything.items()))


def gathered(results: Results) -> Results:
    """The results of all processes, which all must call, as `merged`."""
    content = json.dumps(list(results.items())).encode()
    return merged(dict(json.loads(part)) for part in from_all_processes(content))


def evaluate(
    annotations: Path,
    results: Results,
    kinds: Sequence[Kind],
    backend: Backend = "pycocotools",
) -> list[dict[str, float]]:
    """The twelve numbers of COCO, at most 100 detections an image; -1 where there is no object.

    Args:
      annotations: of the whole split, as published; `train.data.dense.coco.open_coco` has found
        nothing wrong in them.
      results: of each of its images, also of those where nothing was found.
      kinds: what is compared, boxes or masks, one after the other; areas are those of the same.
      backend: `faster-coco-eval` gives the same numbers sooner, where that package is installed.

    Returns:
      The numbers of each of `kinds`, by `NAMES`.

    Raises:
      DataError: an image of the split has no results, the annotations cannot be read, or the
        backend is not installed.
    """
    dataset, evaluator = _backend(backend)
    content = read_annotations(annotations)
    for number, annotation in enumerate(content["annotations"], start=1):
        annotation["id"] = number  # By which objects are told apart, 0 being none.
    # Its reports of what it is doing would go between the lines of the log.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(dataset, content)
        lacking = truth.imgs.keys() - results.keys()
        if lacking:
            raise DataError(
                f"{annotations.name} has {len(truth.imgs):,} images, of which {len(lacking):,} "
                f"were not evaluated, such as {min(lacking)}; evaluate all of its split."
            )
        every = [one for image in sorted(results) for one in results[image]]
        numbers = []
        for kind in kinds:
            found = _loaded(dataset, truth, [_compared(one, kind) for one in every])
            evaluation = evaluator(truth, found, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            numbers.append(dict(zip(NAMES, map(float, evaluation.stats), strict=False)))
    return numbers


def _backend(name: Backend) -> tuple[Any, Any]:
    """The classes of a data set and of its evaluation."""
    if name == "pycocotools":
        return pycocotools("coco").COCO, pycocotools("cocoeval").COCOeval
    try:
        module = importlib.import_module("faster_coco_eval")
    except ModuleNotFoundError as error:
        raise DataError(
            "The package faster-coco-eval is not installed: pip install faster-coco-eval, or "
            "evaluate with pycocotools."
        ) from error
    return module.COCO, module.COCOeval_faster


def _compared(detection: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """A copy without its box where masks are compared, whose own areas then count."""
    return {key: v for key, v in detection.items() if kind == "bbox" or key != "bbox"}


def _loaded(dataset: Any, truth: Any, found: list[dict[str, Any]]) -> Any:
    if found:
        return truth.loadRes(found)
    # `loadRes` looks at the first detection.
    return _indexed(dataset, {**truth.dataset, "annotations": []})


def _indexed(dataset: Any, content: dict[str, Any]) -> Any:
    made = dataset()
    made.dataset = content
    made.createIndex()
    return made
