"""Hidden attention against the scan itself, and maps against products of whole matrices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ssmjax
from kernels.selective_scan import IMPLEMENTATIONS, Scan
from ssmjax.analysis.attention_maps import attention_maps, cosine_similarity
from ssmjax.analysis.hidden_attention import hidden_attention, mean_attention
from tests.golden import recipe
from tests.oracles import golden, scan_cases, scan_oracle
from tests.oracles.compare import assert_close
from tests.ssmjax.blank import blank_model

SIZES = {"embed_dim": 8, "d_state": 2, "depth": 3, "patch_size": 8}
ALIGNMENTS = ("previous", "constant", "none")


def build(family, prune, depth=3, **options):
    """A small model of 3 x 4 patches in float64, for use with x64."""
    sizes = {**SIZES, "depth": depth}
    if family == "vim":
        name, state = "vim_tiny_patch16_224", golden.vim_state(31, **sizes, tokens=13, classes=5)
    else:
        sizes |= {"conv_size": 3, "dwconv_blocks": (0,)}
        name, state = "plainmamba_l1", golden.plain_mamba_state(31, **sizes, tokens=12, classes=5)
    shape = {"img_size": (24, 32), "num_classes": 5, "dtype": "float64"}
    model = blank_model(name, **sizes, **shape, prune=prune, **options)
    ssmjax.load_torch_state_dict(model, state)
    return model


def images(batch=2):
    return recipe.images(31, (batch, 24, 32, 3)).astype(np.float64)


def blocks(model, stages, traced):
    """(mixer, what it scans, its gate, layout, alignment, positions) of every block."""
    prune, length = model.config.prune, model.config.length
    graphdef, stacked = nnx.split(model.blocks)
    batch = len(traced["features"])
    present = jnp.tile(jnp.arange(length), (batch, 1))
    for number in range(model.config.depth):
        if prune and number in prune.after_blocks:
            present = stages[prune.after_blocks.index(number)]
        block = nnx.merge(graphdef, jax.tree.map(lambda a: a[number], stacked))  # noqa: B023
        layout = model.layout(batch, None if present.shape[1] == length else present)
        x, z = jnp.split(block.mixer.in_proj(block.norm(traced["residual"][number])), 2, -1)
        alignment = prune.alignment if prune else "none"
        yield block.mixer, x, jax.nn.silu(z), layout, alignment, present


def apply(inputs):
    """What a scan gives, by its hidden attention."""
    y = jnp.einsum("beij,bje->bie", hidden_attention(inputs), inputs.u)
    return y + inputs.D * inputs.u


def run(function, arrays, options, *others):
    return jax.jit(function)(scan_cases.as_scan(arrays, options), *others)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_alpha_applied_to_the_input_is_the_scan(alignment, reverse):
    for seed, positions in ((1, True), (2, False)):
        arrays, options = scan_cases.random_inputs(
            seed, length=9, z=False, alignment=alignment, reverse=reverse, positions=positions
        )
        want = scan_oracle.selective_scan(**arrays, **options)
        with jax.enable_x64(True):
            assert_close(run(apply, arrays, options), want, 1e-10)


def test_alpha_along_a_path():
    """Step k of the scan is at row order[k] of u."""
    arrays, options = scan_cases.random_inputs(4, length=9, z=False)
    order = np.stack([np.random.default_rng(row).permutation(9) for row in range(2)])
    along = arrays | {"u": np.take_along_axis(arrays["u"], order[:, :, None], 1)}
    want = np.empty_like(arrays["u"])
    np.put_along_axis(want, order[:, :, None], scan_oracle.selective_scan(**along, **options), 1)
    with jax.enable_x64(True):
        assert_close(run(apply, arrays, options | {"order": order}), want, 1e-10)


def test_long_steps_do_not_overflow():
    """exp(-A S_j) alone would be exp(16 * 1200)."""
    arrays, options = scan_cases.random_inputs(5, length=40, z=False, bias=False, softplus=False)
    arrays["delta"][:], arrays["A"][:] = 30, [-16, -1, -1e-2, -1e-3]
    got = run(apply, scan_cases.cast(arrays, np.float32), options)
    assert_close(got, scan_oracle.selective_scan(**arrays, **options), 1e-5)


@pytest.mark.parametrize("alignment", ["previous", "constant"])
def test_mean_over_channels(alignment):
    arrays, options = scan_cases.random_inputs(6, z=False, alignment=alignment, reverse=True)
    gradient = np.random.default_rng(6).normal(size=arrays["u"].shape)
    with jax.enable_x64(True):
        alpha = np.asarray(run(hidden_attention, arrays, options))
        assert_close(run(mean_attention, arrays, options), np.abs(alpha).mean(axis=1), 1e-12)
        shares = np.einsum("beij,bie,bje->beij", alpha, gradient, arrays["u"])
        got = run(mean_attention, arrays, options, gradient)
        assert_close(got, np.maximum(shares, 0).mean(axis=1), 1e-12)
    # Ahead of a reverse scan.
    chex.assert_trees_all_equal(alpha[:, :, np.tri(7, k=-1, dtype=bool)], 0)


def test_no_matrix_of_every_channel_is_held():
    K, E, N = 48, 64, 4
    tokens, states = (jax.ShapeDtypeStruct((1, K, a), np.float32) for a in (E, N))
    A = jax.ShapeDtypeStruct((E, N), np.float32)
    compiled = jax.jit(mean_attention).lower(Scan(tokens, tokens, A, states, states)).compile()
    memory = compiled.memory_analysis()
    assert memory is not None and memory.temp_size_in_bytes < E * K * K * 4 / 4


@pytest.mark.parametrize(
    ("family", "options", "prune"),
    [
        pytest.param("vim", {}, {}, marks=pytest.mark.slow),
        ("vim", {}, {"alignment": "zero_token", "conv": "aligned"}),
        pytest.param("vim", {}, {"alignment": "none"}, marks=pytest.mark.slow),
        ("plain", {}, {}),
        pytest.param(
            "plain", {"paired_paths": True}, {"alignment": "zero_token"}, marks=pytest.mark.slow
        ),
    ],
)
def test_alpha_in_place_of_the_scan_gives_the_mixers_output(family, options, prune):
    with jax.enable_x64(True):
        model = build(family, ssmjax.PruneConfig((1,), 0.7, **prune), depth=2, **options)

        @jax.jit
        def outputs(x):
            _, *found = model(x, return_positions=True, return_intermediates=True)
            return found[1]["hidden"], [
                mixer.out_proj(mixer.over_scans(apply, x, layout, alignment) * gate)
                for mixer, x, gate, layout, alignment, _ in blocks(model, *found)
            ]

        for want, got in zip(*outputs(images()), strict=True):
            assert_close(got, want, 1e-10)


def derivatives(model, x):
    """[depth,2,B,E,L,L]: of the best classes' logits by every alpha, by scans that are made of it.

    The second axis tells Vim's directions; PlainMamba's four paths get the same, at index 0.
    """
    config, mixer = model.config, model.blocks.mixer
    shape = (config.depth, 2, len(x), config.channels, config.length, config.length)

    def logits(change):
        def scan(inputs):
            u, D, z = inputs.u, inputs.D, inputs.z
            number, K = D[0].astype(int) - 1, u.shape[1]
            change_here = change[number, int(inputs.reverse), :, :, :K, :K]
            y = jnp.einsum("beij,bje->bie", hidden_attention(inputs) + change_here, u) + D * u
            return y if z is None else y * jax.nn.silu(z), None

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(IMPLEMENTATIONS, "alpha", scan)
            return model(x, implementation="alpha").max(axis=1).sum()

    found = jax.grad(logits)(jnp.zeros(shape))
    return found if hasattr(mixer, "forward") else found / 4


@functools.cache
def whole_model(family):
    """(model, per block: A of `raw`, A of `attribution`, positions) for `images()`."""
    after_blocks = (1, 2) if family == "vim" else (1,)  # 12 patches, 9, 7.
    prune = ssmjax.PruneConfig(after_blocks, 0.7)
    model, x = build(family, prune, depth=len(after_blocks) + 1), images()
    mixer = model.blocks.mixer
    scans = (mixer.forward, mixer.backward) if family == "vim" else (mixer,)
    numbers = jnp.arange(1.0, model.config.depth + 1)[:, None]
    for scan in scans:  # By D, the scans of `derivatives` know their block.
        scan.D[...] = jnp.broadcast_to(numbers, scan.D[...].shape)

    def attention(x):
        changes = derivatives(model, x)
        _, *found = model(x, return_positions=True, return_intermediates=True)
        result = []
        for number, (mixer, inner, _, layout, alignment, present) in enumerate(
            blocks(model, *found)
        ):
            K = present.shape[1]

            def look(inputs, number=number, K=K):
                alpha = hidden_attention(inputs)
                weighted = jax.nn.relu(alpha * changes[number, int(inputs.reverse), :, :, :K, :K])
                return jnp.stack([jnp.abs(alpha).mean(axis=1), weighted.mean(axis=1)])

            raw, weighted = mixer.over_scans(look, inner, layout, alignment)
            if family == "vim":
                weighted = 2 * weighted  # Over both directions, of which changes know the mean.
            result.append((raw, weighted, present))
        return result

    return model, jax.tree.map(np.asarray, jax.jit(attention)(x))


def product(attention, length):
    """(I + A) ... (I + A) - I of whole matrices, from [(A [K,K], positions [K])], first to last."""
    passed = np.eye(length)
    for A, present in attention:
        matrix = np.eye(length)
        matrix[np.ix_(present, present)] += A
        passed = matrix @ passed
    return passed - np.eye(length)


@pytest.mark.parametrize(
    ("family", "variant", "layer"),
    [
        ("vim", "raw", 2),
        pytest.param("vim", "rollout", None, marks=pytest.mark.slow),
        pytest.param("vim", "attribution", None, marks=pytest.mark.slow),
        pytest.param("plain", "attribution", None, marks=pytest.mark.slow),
    ],
)
def test_maps(family, variant, layer):
    with jax.enable_x64(True):
        model, attention = whole_model(family)
        look = functools.partial(attention_maps, model, variant=variant, layer=layer)
        maps, present = jax.jit(look)(images())
    attention = attention[1:2] if layer else attention
    chex.assert_trees_all_equal(present, attention[-1][2])
    for row, got in enumerate(maps):
        of_image = []
        for raw, weighted, positions in attention:
            A = weighted[row] if variant == "attribution" else raw[row]
            A = A / A.sum(axis=1, keepdims=True) if variant == "rollout" else A
            of_image.append((A, positions[row]))
        passed = product(of_image, model.config.length)
        # The class token is 6 of 13; without one, the tokens left are averaged.
        want = np.delete(passed[6], 6) if family == "vim" else passed[present[row]].mean(axis=0)
        assert_close(got, want.reshape(3, 4), 1e-10)
        if variant == "raw":
            assert (want > 0).sum() == 9


def test_cosine_similarity_over_kept_cells():
    maps = np.array([[[3.0, 0], [9, 4]], [[1, 0], [0, 0]], [[0, 0], [0, 5]]])
    others = np.array([[[4.0, 0], [0, 3]], [[0, 1], [0, 0]], [[1, 1], [1, 1]]])
    cells = np.array([[[True, True], [False, True]]] * 2 + [[[True, True], [True, False]]])
    chex.assert_trees_all_close(
        cosine_similarity(maps, others, cells), np.array([24 / 25, 0, 0]), rtol=1e-7
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "flow"}, "variant is 'flow'; choose one of raw, rollout, attribution"),
        ({"variant": "rollout", "layer": 1}, "layer is 1, but rollout looks at all blocks"),
        ({"layer": 4}, "layer is 4; the model has the blocks 1 to 3"),
        ({"layer": 0}, "layer is 0"),
    ],
)
def test_errors(options, message):
    model = blank_model("vim_tiny_patch16_224", **SIZES, img_size=24)
    with pytest.raises(ValueError, match=message):
        attention_maps(model, images(), **options)


@pytest.mark.parametrize(
    ("family", "prune", "message"),
    [
        ("deit_tiny_patch16_224", None, "this model has none"),
        ("vim_tiny_patch16_224", {"reduction": "merge"}, "reduction is 'merge'"),
    ],
)
def test_models_without_maps(family, prune, message):
    prune = ssmjax.PruneConfig((1,), 0.5, **prune) if prune else None
    sizes = {"depth": 1, "embed_dim": 12, "patch_size": 8, "img_size": 24}
    with pytest.raises(ValueError, match=message):
        attention_maps(blank_model(family, prune=prune, **sizes), images())
