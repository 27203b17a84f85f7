"""Detection data in COCO's format: a JSON file of annotations and a folder of images."""

import collections
import dataclasses
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from train.data.dense import turned
from train.data.dense.coco_file import check_inside, check_outline, read_annotations
from train.data.dense.files import identity_of, pycocotools
from train.data.fetching.fetch import DataError
from train.data.sources.classes import check_known, listed, matched
from train.data.sources.walk import present


class Photo(NamedTuple):
    """An image and its objects.

    Attributes:
      path: of the file.
      image_id: what annotations and results call it.
      height, width: in pixels, as the annotations say.
      boxes: [G,4] float32, (x1, y1, x2, y2).
      labels: [G] int32, from 0.
      outlines: polygons or RLE of each object, pickled, which takes less memory than lists; none
        where no masks are to be learnt.
    """

    path: Path
    image_id: int
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    outlines: tuple[bytes, ...]


@dataclasses.dataclass(frozen=True)
class CocoSplit:
    """One split.

    Attributes:
      photos: in the order of the file.
      class_names: in the order of the labels.
      category_ids: of the classes, in the same order; None for one that the file lacks.
      title: what messages call it.
      remarks: sentences for people, on what was left out and on images turned.
      masks: whether photos have outlines.
    """

    photos: tuple[Photo, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[int | None, ...]
    title: str
    remarks: tuple[str, ...]
    masks: bool

    @property
    def identity(self) -> str:
        """See `train.engine.task.Split`."""
        objects = [
            (p.image_id, p.boxes.tolist(), p.labels.tolist(), p.outlines) for p in self.photos
        ]
        return identity_of((p.path for p in self.photos), objects, self.class_names)


def open_coco(
    annotations: Path,
    images: Path,
    *,
    masks: bool = False,
    keep_empty: bool = True,
    learn: bool = True,
    classes: Sequence[str] = (),
) -> CocoSplit:
    """Read annotations, and check that their images are there.

    Left out of the objects: crowds, those marked `ignore`, those without area, narrower or lower
    than a pixel, or outside their image. Where an area is missing, that of the box is taken.

    Labels are numbers of the categories in the order of their ids, so COCO's ids, 1 to 90, become 0
    to 79. What is measured may have them in another order and lack some: its categories are known
    by their names, and have the labels of `classes`.

    Args:
      annotations: a file such as instances_train2017.json.
      images: the folder that its file names are in.
      masks: whether outlines are needed: to learn from, those of what is learnt, kept for
        `bitmaps`; to measure on, all.
      keep_empty: whether images without any annotation stay; those whose objects are all left out
        do in either case.
      learn: whether the split is to learn from or to measure on, which the remarks tell of; what is
        left out is measured as COCO does.
      classes: names that the weights at hand know, in order; empty where they know none.

    Raises:
      DataError: the file is missing, damaged or contradicts itself, an image file is missing, an
        outline is broken, no image has an object, the classes differ, or pycocotools is not
        installed, which masks and measuring need.
    """
    if masks or not learn:
        pycocotools("mask")
    title = annotations.name
    content = read_annotations(annotations)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    names = tuple(category["name"] for category in categories)
    ids: tuple[int | None, ...] = tuple(category["id"] for category in categories)
    if classes and not learn:
        ids = tuple(None if at is None else ids[at] for at in matched(names, classes, title))
        names = tuple(classes)
    check_known(names, classes, title)
    records = content["images"]
    known = {record["id"] for record in records}
    annotated: dict[int, list[dict[str, Any]]] = collections.defaultdict(list)
    for annotation in content["annotations"]:
        if annotation["image_id"] not in known:
            raise DataError(
                f"{title} has an annotation, id {annotation['id']}, of the image "
                f"{annotation['image_id']}, which is not among its images."
            )
        annotated[annotation["image_id"]].append(annotation)
    empty = sum(record["id"] not in annotated for record in records)
    if not keep_empty:
        records = [record for record in records if record["id"] in annotated]
    labels = {category: label for label, category in enumerate(ids) if category is not None}
    reader = _Reader(title, images, labels, masks, learn)
    photos = tuple(reader.photo(record, annotated[record["id"]]) for record in records)
    paths = present([photo.path for photo in photos], title)
    photos = tuple(photo._replace(path=path) for photo, path in zip(photos, paths, strict=True))
    if learn:
        objects = collections.Counter(int(label) for photo in photos for label in photo.labels)
    else:  # pycocotools leaves out these alone.
        objects = collections.Counter(
            labels[one["category_id"]]
            for one in content["annotations"]
            if not one["iscrowd"] and one["area"] >= 0
        )
    if not objects:
        raise DataError(
            f"{title} has no object to {'learn' if learn else 'measure'} in any of its "
            f"{len(known):,} images{reader.why_none()}."
        )
    remarks = [
        *reader.remarks(empty, len(known), keep_empty),
        *_on_categories(title, names, ids, objects, learn),
        *turned.remarks(paths, title, "boxes"),
    ]
    if content["without_area"]:
        remarks.append(
            f"{title}: {content['without_area']:,} objects do not tell their area; that of their "
            "box is taken."
        )
    return CocoSplit(photos, names, ids, title, tuple(remarks), masks and learn)


def bitmaps(photo: Photo) -> np.ndarray:
    """The objects' masks at the image's own size, [G,height,width] uint8, 0 or 1.

    Raises:
      DataError: pycocotools is not installed.
    """
    rle = pycocotools("mask")
    masks = np.zeros((len(photo.outlines), photo.height, photo.width), np.uint8)
    for mask, outline in zip(masks, photo.outlines, strict=True):
        outline = pickle.loads(outline)
        if isinstance(outline, list):
            outline = rle.merge(rle.frPyObjects(outline, photo.height, photo.width))
        elif isinstance(outline["counts"], list):
            outline = rle.frPyObjects(outline, photo.height, photo.width)
        mask[:] = rle.decode(outline)
    return masks


@dataclasses.dataclass
class _Reader:
    """Makes images of their records, and says what it leaves out.

    Attributes:
      title: what messages call the file.
      folder: of the images.
      labels: by the ids of the categories.
      masks, learn: as of `open_coco`.
      left_out: how many objects so far, by reason.
    """

    title: str
    folder: Path
    labels: dict[int, int]
    masks: bool
    learn: bool
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def photo(self, record: dict[str, Any], annotations: list[dict[str, Any]]) -> Photo:
        """An image with those of its annotations that can be learnt."""
        height, width = record["height"], record["width"]
        boxes, numbers, outlines = [], [], []
        for annotation in annotations:
            where = f"{self.title}, annotation {annotation['id']} of {record['file_name']},"
            if annotation["category_id"] not in self.labels:
                raise DataError(
                    f"{where} has the category {annotation['category_id']}, which is not among the "
                    "categories."
                )
            x, y, w, h = annotation["bbox"]
            why, outline = _why_left_out(annotation, height, width), annotation.get("segmentation")
            if self.masks and not (self.learn and why):
                check_outline(outline, height, width, where)
            if why:
                self.left_out[why] += 1
                continue
            boxes.append((x, y, x + w, y + h))
            numbers.append(self.labels[annotation["category_id"]])
            if self.masks and self.learn:
                check_inside(outline, height, width, where)
                outlines.append(pickle.dumps(outline))
        return Photo(
            self.folder / record["file_name"],
            record["id"],
            height,
            width,
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(numbers, np.int32),
            tuple(outlines),
        )

    def remarks(self, empty: int, images: int, keep_empty: bool) -> Iterator[str]:
        """On images without annotations, of so many, and on objects that are not learnt."""
        if empty:
            kept = "they teach background" if self.learn else "what is found on them is wrong"
            fate = kept if keep_empty else "they are left out"
            yield f"{self.title}: {empty:,} of {images:,} images have no objects; {fate}."
        if self.left_out:
            fate = "left out" if self.learn else "measured as COCO does"
            count = self.left_out.total()
            yield f"{self.title}: {count:,} objects are {fate}: {self._reasons()}."

    def why_none(self) -> str:
        """The end of a sentence on annotations without an object, empty where none is left out."""
        if not self.left_out:
            return ""
        end = f"; left out are {self._reasons()}"
        if self.left_out["without area"]:
            end += ': where boxes are right, write width times height as "area", or leave it out'
        return end

    def _reasons(self) -> str:
        return ", ".join(f"{count:,} {why}" for why, count in sorted(self.left_out.items()))


def _why_left_out(annotation: dict[str, Any], height: int, width: int) -> str | None:
    """Why an object is not learnt; None if it is."""
    x, y, w, h = annotation["bbox"]
    if annotation.get("ignore"):
        return "marked to be ignored"
    if annotation["area"] <= 0:
        return "without area"
    if w < 1 or h < 1:
        return "below a pixel"
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        return "outside their image"
    return "crowds" if annotation["iscrowd"] else None


def _on_categories(
    title: str,
    names: tuple[str, ...],
    ids: tuple[int | None, ...],
    objects: collections.Counter[int],
    learn: bool,
) -> Iterator[str]:
    """On categories that the file lacks, and those without an object."""
    lacking = [name for name, of in zip(names, ids, strict=True) if of is None]
    if lacking:
        yield (
            f"{title} lacks {len(lacking):,} of the {len(names):,} categories, which are not "
            f"measured: {listed(lacking)}."
        )
    empty = [name for n, name in enumerate(names) if ids[n] is not None and not objects[n]]
    if empty:
        what = "to learn" if learn else "to measure, so averages leave them out"
        yield (
            f"{title}: {len(empty):,} of {len(names):,} categories have no object {what}: "
            f"{listed(empty)}."
        )
