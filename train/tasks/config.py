"""Settings of a task: which model learns which data, and how it is measured."""

import dataclasses

from ssmjax import PruneConfig
from train.data.config import DataConfig
from train.data.dense.config import DetectionData, SegmentationData
from train.engine.config import OptimConfig
from train.hosts.fields import AT_LEAST_1, check, expand, path_field


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which model. A field that is None stays as registered, or as the weights say.

    Attributes:
      name: one of `ssmjax.list_models()`, or for dense tasks of
        `ssmjax.dense.registry.list_models()`; None takes the one the weights name.
      weights: a safetensors file to start from; None starts from scratch.
      new_head: a fresh head for the data set's classes, in place of the weights' own.
      classifier: of a dense model without weights, those of a classifier that its backbone starts
        from; None starts from scratch.
      img_size: pixels of an image, one side or height and width; of a dense model, of the images
        that its position embeddings are for.
      in_channels: of an image; photos have 3.
      ends: last block of each range of a dense model's backbone.
      heads: of the attention between a detector's backbone and its side branch.
      width: channels of a dense model's head.
      auxiliary_width: of an UperNet's auxiliary head.
      hidden: outputs of the first linear layer of a Mask R-CNN's box head.
      prior_width: channels of the first convolutions of a detector's side branch.
      proposals: regions of an image that a Mask R-CNN's first stage proposes.
      samples: those that its second stage learns from.
    """

    name: str | None = None
    weights: str | None = path_field(None)
    new_head: bool = False
    classifier: str | None = path_field(None)
    depth: int | None = None
    embed_dim: int | None = None
    d_state: int | None = None
    expand: int | None = None
    num_heads: int | None = None
    patch_size: int | None = None
    stride: int | None = None
    img_size: int | tuple[int, ...] | None = None
    in_channels: int | None = None
    drop_path_rate: float | None = None
    dtype: str | None = None
    ends: tuple[int, ...] | None = None
    heads: int | None = None
    width: int | None = None
    auxiliary_width: int | None = None
    hidden: int | None = None
    prior_width: int | None = None
    proposals: int | None = None
    samples: int | None = None

    def __post_init__(self) -> None:
        expand(self)
        if isinstance(self.img_size, list):  # As JSON has it.
            object.__setattr__(self, "img_size", tuple(self.img_size))

    def overrides(self) -> dict:
        """The fields of the model's own config that are set here."""
        others = ("name", "weights", "new_head", "classifier")
        return {k: v for k, v in vars(self).items() if v is not None and k not in others}


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """What a run learns. The data tell its task: classification, detection or segmentation.

    Attributes:
      model: which model and weights.
      data: which photos.
      optim: how to train.
      prune: what to prune; None trains the dense model.
      seed: of initialisation, order of the photos, augmentation and drop path.
      eval_batch_size: photos a step in evaluation.
      pictures: photos in the picture of kept tokens.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig | DetectionData | SegmentationData = DataConfig()
    optim: OptimConfig = OptimConfig()
    prune: PruneConfig | None = None
    seed: int = 0
    eval_batch_size: int = 200
    pictures: int = 12

    def __post_init__(self) -> None:
        check(self, "", AT_LEAST_1, "eval_batch_size", "pictures")
        if self.optim.distill and self.model.weights is None:
            raise ValueError(
                f"optim.distill is {self.optim.distill} without a model to follow; give "
                "model.weights."
            )
        if self.model.classifier is not None and self.model.weights is not None:
            raise ValueError(
                "model.classifier fills the backbone where there are no weights; give only one of "
                "model.classifier and model.weights."
            )
        if self.model.new_head and self.model.weights is None:
            raise ValueError("model.new_head is for weights; without them every head is new.")
