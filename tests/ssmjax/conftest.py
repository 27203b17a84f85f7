"""Commands run in this process, and small models with official checkpoints."""

import functools
from collections import OrderedDict

import pytest
from flax import nnx

import ssmjax
from ssmjax import command_line, registry
from ssmjax.convert.__main__ import main
from ssmjax.convert.load import official_shapes
from ssmjax.dense import registry as dense_registry
from ssmjax.dense.backbones.adapter import AdapterConfig
from ssmjax.dense.backbones.ranges import DensePruneConfig, RangesConfig
from ssmjax.dense.config import MaskRCNNConfig, RetinaNetConfig, UperNetConfig
from ssmjax.dense.mask_rcnn import MaskRCNN
from ssmjax.dense.retinanet import RetinaNet
from ssmjax.dense.upernet import UperNet
from ssmjax.models.plain_mamba import PlainMamba, PlainMambaConfig
from ssmjax.models.vim import Vim, VimConfig
from ssmjax.models.vit import ViT, ViTConfig
from ssmjax.registry import Entry
from tests.oracles.downstream import recipe_downstream

VIT_SIZES = {"depth": 2, "embed_dim": 16, "patch_size": 4, "img_size": 16}
SIZES = VIT_SIZES | {"d_state": 2}
PLAIN = PlainMambaConfig(**SIZES, conv_size=3, stem_convs=1, dwconv_blocks=(1,))
ADAPTER = AdapterConfig(PLAIN, (1, 2), heads=2, prior_width=4)
DENSE = {
    "mask": MaskRCNNConfig(ADAPTER, num_classes=5, width=8, hidden=8),
    "retina": RetinaNetConfig(ADAPTER, num_classes=5, width=8),
    "uper": UperNetConfig(RangesConfig(PLAIN, (1, 2)), num_classes=5, width=8, auxiliary_width=4),
}


@pytest.fixture(scope="module")
def small_models():
    """The only models there are: `vim_wide` and `vim_fine` differ from `vim` as said."""
    models = {
        "vim": Entry(Vim, VimConfig(**SIZES)),
        "vim_wide": Entry(Vim, VimConfig(**SIZES | {"embed_dim": 32})),
        "vim_fine": Entry(Vim, VimConfig(**SIZES, stride=2)),
        "plain": Entry(PlainMamba, PLAIN),
        "deit": Entry(ViT, ViTConfig(**VIT_SIZES, num_heads=2)),
    }
    kinds = {"mask": MaskRCNN, "retina": RetinaNet, "uper": UperNet}
    dense = {
        name: Entry(kinds[name], config, prunes=DensePruneConfig) for name, config in DENSE.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_CLASSIFIERS", models)
        patch.setattr(registry, "_ELSEWHERE", dict.fromkeys(dense, dense_registry.__name__))
        patch.setattr(dense_registry, "ENTRIES", dense)
        yield models


@pytest.fixture(scope="module")
def states(small_models):
    """{model: official state_dict of tensors, for 3 classes}, by the recipe."""
    pytest.importorskip("torch")
    return _states(*small_models, *DENSE)


@functools.cache
def _states(*names):
    import torch

    result = {}
    for name in names:
        outline = nnx.eval_shape(functools.partial(ssmjax.create_model, name, num_classes=3))
        arrays = recipe_downstream.state_dict(1, list(official_shapes(outline).items()))
        result[name] = OrderedDict((key, torch.from_numpy(a)) for key, a in arrays.items())
    result["plain"]["backbone.layers.1.dw.1.num_batches_tracked"] = torch.tensor(375_300)
    return result


@pytest.fixture
def command(capsys):
    """Run a command's main: (exit status, stdout, stderr) of the arguments."""

    def run(main, *arguments):
        status = 0
        try:
            command_line.run(lambda: main([str(argument) for argument in arguments]))
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def convert(command):
    """Run the convert command."""
    return functools.partial(command, main)


@pytest.fixture
def refused(convert):
    """Run the command, which must fail: what it says on its one line."""

    def run(*arguments):
        status, out, err = convert(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("error: ") and err.count("\n") == 1
        return err

    return run
