"""Which task a config asks for, and what is known of it before it is opened."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kernels import capability
from ssmjax.weights import read_metadata
from train.data.dense.config import DetectionData, SegmentationData
from train.engine.task import Task
from train.hosts.runtime import Runtime
from train.tasks.config import ModelConfig, TaskConfig

CHANNELS = 3  # Of photos.


def open_task(config: TaskConfig) -> Task:
    """The task of a config, by the kind of its data.

    Raises:
      ValueError: what the task does not have is asked for, or a model of other images than photos.
    """
    _check_channels(config.model)
    # Imported where they are needed, so that no task loads the others.
    if isinstance(config.data, DetectionData):
        from train.tasks.detection.task import Detect

        return Detect(config, config.data)
    if isinstance(config.data, SegmentationData):
        from train.tasks.segmentation.task import Segment

        return Segment(config, config.data)
    from train.tasks.classification.task import Classify

    return Classify(config, config.data)


def _check_channels(model: ModelConfig) -> None:
    """Refuse a model of other images than photos, as the config or its weights say."""
    what, channels = "model.in_channels", model.in_channels
    if channels is None and model.weights is not None and Path(model.weights).is_file():
        what = f"in_channels of {model.weights}"
        channels = read_metadata(model.weights).config.get("in_channels")
    if channels not in (None, CHANNELS):
        raise ValueError(
            f"{what} is {channels}; photos have {CHANNELS} channels, red, green and blue."
        )


def known_classes(model: ModelConfig) -> tuple[str, ...]:
    """The class names that a run's weights know, none where its head is new.

    Raises:
      ValueError: no such weights.
    """
    if model.weights is None or model.new_head:
        return ()
    return read_metadata(model.weights).class_names


def tell(task: Task, splits: Iterable[Any], runtime: Runtime) -> None:
    """Say what GPUs lack and splits leave out, a line each."""
    remarks = [remark for split in splits for remark in task.remarks(split)]
    for remark in filter(None, (capability.shortcoming(), *remarks)):
        runtime.say(remark)
