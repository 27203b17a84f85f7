"""Vision state-space models with token pruning, in JAX."""

from ssmjax.analysis.flops import flops
from ssmjax.convert.load import load_torch_state_dict, to_torch_state_dict
from ssmjax.models.backbone import Backbone
from ssmjax.pruning import PruneConfig
from ssmjax.registry import create_model, list_models

__all__ = [
    "Backbone",
    "PruneConfig",
    "create_model",
    "flops",
    "list_models",
    "load_torch_state_dict",
    "to_torch_state_dict",
]
