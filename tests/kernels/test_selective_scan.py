"""The selective scan, every implementation against a float64 loop: values and gradients."""

from contextlib import nullcontext
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import selective_scan
from kernels.selective_scan import IMPLEMENTATIONS
from tests.marks import slow_unless
from tests.oracles import golden
from tests.oracles.compare import assert_close
from tests.oracles.scan_cases import cast, cotangents, expected, random_inputs, run

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
WIDEST = {"reference": "float64", "associative": "float64"}
WIDEST |= {"pallas_triton": "float32", "pallas_mosaic": "float32"}

CASES = {
    "plain": {"positions": False, "D": False, "z": False, "bias": False, "softplus": False},
    "all": {"length": 11},
    "all_reverse": {"length": 11, "reverse": True},
    "constant": {"alignment": "constant", "batch": 1, "z": False, "softplus": False},
    "constant_reverse": {"alignment": "constant", "length": 13, "reverse": True, "D": False},
    "none_reverse": {"alignment": "none", "reverse": True, "bias": False},
    "one_token": {"length": 1, "batch": 3},
    "one_channel_one_state": {"inner": 1, "states": 1, "length": 19, "batch": 3, "reverse": True},
}


# Each case in one dtype.
QUICK = {
    ("plain", "float32"),
    ("all_reverse", "float64"),
    ("constant", "float64"),
    ("constant_reverse", "float32"),
    ("none_reverse", "float32"),
    ("one_token", "float64"),
    ("one_channel_one_state", "float32"),
}

pytestmark = pytest.mark.usefixtures("interpreted")


def precision(dtype):
    return jax.enable_x64(True) if dtype == "float64" else nullcontext()


def check(got, want, tolerance):
    assert_close(got[0], want[0], tolerance, "out")
    assert_close(got[1], want[1], tolerance, "last_state")
    assert set(got[2]) == set(want[2])
    for name in want[2]:
        assert_close(got[2][name], want[2][name], tolerance, f"gradient of {name}")


def check_against_loop(implementation, case, dtype):
    arrays, options = random_inputs(3, **CASES[case])
    arrays = cast(arrays, dtype)
    dout, dlast = (x.astype(dtype) for x in cotangents(3, arrays))
    reason = pytest.raises(NotImplementedError, match="float64")
    refused = dtype == "float64" and WIDEST.get(implementation) == "float32"
    with precision(dtype), reason if refused else nullcontext():
        got = run(selective_scan, implementation, arrays, options, dout, dlast)
    if refused:
        return
    chex.assert_type([got[0], got[1], *(got[2][name] for name in arrays)], dtype)
    check(got, expected(arrays, options, dout, dlast), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", ["all", "constant_reverse"])
def test_default_implementation(case, dtype):
    check_against_loop(None, case, dtype)


# Each of them: the same tests. Interpreting Mosaic takes the longest.
@pytest.mark.parametrize(
    "implementation",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "pallas_mosaic" else ())
        for name in IMPLEMENTATIONS
    ],
)
class TestSelectiveScan:
    @pytest.mark.parametrize(
        ("case", "dtype"),
        [slow_unless((case, dtype) in QUICK, case, dtype) for case in CASES for dtype in TOLERANCE],
    )
    def test_against_loop(self, implementation, case, dtype):
        check_against_loop(implementation, case, dtype)

    @pytest.mark.parametrize(
        ("name", "dtype"),
        [
            ("scan_a", "float32"),
            slow_unless(False, "scan_b", "float32"),
            slow_unless(False, "scan_c", "float64"),
        ],
    )
    def test_golden(self, implementation, name, dtype):
        dtype = min(dtype, WIDEST[implementation])
        inputs, outputs, grads = golden.load_scan(name)
        options = {"delta_softplus": inputs.pop("delta_softplus")}
        arrays = cast(inputs, dtype)
        dout = arrays.pop("dout")
        with precision(dtype):
            got = run(
                selective_scan,
                implementation,
                arrays,
                options,
                dout,
                np.zeros_like(outputs["last_state"], dtype),
            )
        check(got, (outputs["out"], outputs["last_state"], grads), TOLERANCE[dtype])

    @pytest.mark.parametrize("case", ["all", slow_unless(False, "constant_reverse")])
    def test_bfloat16(self, implementation, case):
        arrays, options = random_inputs(4, **CASES[case])
        tokens = {name: arrays[name] for name in ("u", "delta", "B", "C", "z")}
        arrays = cast(arrays, np.float32) | cast(tokens, jnp.bfloat16)
        dout, dlast = cotangents(4, arrays)
        dout, dlast = dout.astype(jnp.bfloat16), dlast.astype(np.float32)
        out, last, grads = run(selective_scan, implementation, arrays, options, dout, dlast)
        chex.assert_type([out, last], [jnp.bfloat16, np.float32])
        chex.assert_trees_all_equal_shapes_and_dtypes(grads, arrays)
        want = expected(arrays, options, dout, dlast)
        check((out, last, grads), want, 1e-2)
        assert_close(last, want[1], 1e-5, "the state is kept in float32")

    @pytest.mark.parametrize(
        ("steps", "reverse"),
        [
            slow_unless(False, "tiny", False),
            slow_unless(False, "huge", False),
            ("mixed", False),
            ("softplus", True),
        ],
    )
    def test_extreme_steps_and_gaps(self, implementation, steps, reverse):
        softplus = steps == "softplus"
        arrays, options = random_inputs(
            5, length=11, softplus=softplus, bias=False, reverse=reverse, most_pruned=400
        )
        rng = np.random.default_rng(6)
        low, high = {"tiny": (1e-8, 1e-7), "huge": (40, 80)}.get(steps, (1e-8, 80))
        arrays["delta"] = np.exp(rng.uniform(np.log(low), np.log(high), arrays["delta"].shape))
        if softplus:
            arrays["delta"] = rng.uniform(-18, 80, arrays["delta"].shape)
        arrays = cast(arrays, np.float32)
        dout, dlast = (x.astype(np.float32) for x in cotangents(5, arrays))
        got = run(selective_scan, implementation, arrays, options, dout, dlast)
        check(got, expected(arrays, options, dout, dlast), 1e-5)

    @pytest.mark.parametrize(
        ("alignment", "reverse"),
        [("previous", True), ("constant", False), slow_unless(False, "none", True)],
    )
    def test_no_positions_is_no_gaps(self, implementation, alignment, reverse):
        arrays, options = random_inputs(
            7, batch=2, length=7, alignment=alignment, reverse=reverse, positions=False
        )
        arrays = cast(arrays, np.float32)
        arange: Any = np.tile(np.arange(7, dtype=np.int32), (2, 1))
        without = selective_scan(**arrays, **options, implementation=implementation)
        shifted = selective_scan(
            **arrays, **options, positions=arange + 5, implementation=implementation
        )
        chex.assert_trees_all_equal(without, shifted)
        assert np.ptp(without) > 0.1

    @settings(max_examples=6, deadline=None, derandomize=True)
    @given(
        batch=st.integers(1, 2),
        length=st.sampled_from([1, 6]),
        inner=st.sampled_from([1, 3]),
        states=st.just(2),
        alignment=st.sampled_from(["previous", "constant"]),
        reverse=st.booleans(),
        seed=st.integers(0, 1000),
    )
    def test_folding(self, implementation, batch, length, inner, states, alignment, reverse, seed):
        """delta' = delta + Gamma, u' = u delta / delta' make it a scan that knows of no gaps."""
        arrays, options = random_inputs(
            seed,
            batch,
            length,
            inner,
            states,
            z=False,
            bias=False,
            softplus=False,
            alignment=alignment,
            reverse=reverse,
        )
        dtype = WIDEST[implementation]
        arrays = cast(arrays, dtype)
        with precision(dtype):
            want = selective_scan(**arrays, **options, implementation=implementation)
            gap_delta = arrays.pop("gap_delta", None)
            u, delta, D = arrays["u"], arrays["delta"], arrays.pop("D")
            gaps = np.diff(options["positions"], axis=1)[:, :, None] - 1
            before = delta[:, 1:] if reverse else delta[:, :-1]
            gamma = gaps * (before if gap_delta is None else gap_delta)
            nothing = np.zeros_like(u[:, :1])
            folded = delta + np.concatenate(
                [gamma, nothing] if reverse else [nothing, gamma], axis=1
            )
            arrays |= {"delta": folded, "u": u * delta / folded}
            got = selective_scan(**arrays, reverse=reverse, implementation=implementation) + D * u
        assert_close(got, want, {"float32": 1e-5, "float64": 1e-12}[dtype])

    def test_vmap(self, implementation):
        """Over an extra leading axis of the tokens and the positions, under grad too."""
        sets = [random_inputs(seed) for seed in (8, 9, 10)]
        arrays = cast(sets[0][0], np.float32)
        stacked = {
            name: np.stack([a[name] for a, _ in sets]).astype(np.float32)
            for name in ("u", "delta", "B", "C", "z")
        }
        positions = np.stack([options["positions"] for _, options in sets])

        def loss(tokens, positions):
            y: Any = selective_scan(
                **(arrays | tokens),
                positions=positions,
                delta_softplus=True,
                implementation=implementation,
            )
            return (y**2).sum(), y

        grad = jax.jit(jax.grad(loss, has_aux=True))
        grads, y = jax.jit(jax.vmap(grad))(stacked, positions)
        for i in range(3):
            one = {name: value[i] for name, value in stacked.items()}
            want_grads, want = grad(one, positions[i])
            assert_close(y[i], want, 1e-6)
            for name in one:
                assert_close(grads[name][i], want_grads[name], 1e-5, name)

    def test_eager_equals_jit(self, implementation):
        arrays, options = random_inputs(11, **CASES["all"])
        arrays = cast(arrays, np.float32)
        dout, dlast = (x.astype(np.float32) for x in cotangents(11, arrays))
        out, last, _ = run(selective_scan, implementation, arrays, options, dout, dlast)
        eager = selective_scan(
            **arrays, **options, return_last_state=True, implementation=implementation
        )
        alone = selective_scan(**arrays, **options, implementation=implementation)
        assert_close(eager[0], out, 1e-6)
        assert_close(eager[1], last, 1e-6)
        chex.assert_trees_all_equal(alone, eager[0])


WRONG_SHAPES = {
    "u": (2, 7),
    "delta": (2, 6, 3),
    "A": (4, 3),
    "B": (2, 7, 5),
    "C": (2, 6, 4),
    "D": (4,),
    "z": (2, 7, 2),
    "delta_bias": (2, 3),
    "gap_delta": (1,),
}
ROW = np.arange(7)
INVALID = {
    **{
        f"shape of {name}": (name, {name: np.ones(shape, np.float32)})
        for name, shape in WRONG_SHAPES.items()
    },
    "shape of positions": ("positions", {"positions": np.stack([ROW[:6], ROW[:6]])}),
    "one row of positions": ("positions", {"positions": ROW}),
    "integer u": ("u", {"u": np.ones((2, 7, 3), np.int32)}),
    "integer A": ("A", {"A": -np.ones((3, 4), np.int32)}),
    "float positions": ("positions", {"positions": np.stack([ROW, ROW]).astype(np.float32)}),
    "repeated positions": ("positions", {"positions": np.stack([ROW, ROW // 2])}),
    "unsorted positions": ("positions", {"positions": np.stack([ROW, ROW[::-1]])}),
    "unsigned unsorted positions": (
        "positions",
        {"positions": np.stack([ROW, ROW[::-1]]).astype(np.uint8)},
    ),
    "positions beyond int32": ("positions", {"positions": np.stack([ROW, ROW + 2**40])}),
    "negative positions": ("positions", {"positions": np.stack([ROW, ROW - 1])}),
    "unknown alignment": ("alignment.*previous", {"alignment": "nearest", "gap_delta": None}),
    "no gap_delta": ("gap_delta", {"gap_delta": None}),
    "gap_delta in vain": ("gap_delta", {"alignment": "previous"}),
    "unknown implementation": ("implementation.*associative", {"implementation": "fastest"}),
}


def test_the_valid_input_of_the_next_test_is_accepted():
    arrays, options = random_inputs(12, alignment="constant")
    chex.assert_shape(selective_scan(**cast(arrays, np.float32), **options), (2, 7, 3))


@pytest.mark.parametrize("what", INVALID)
def test_invalid_input_is_named(what):
    name, wrong = INVALID[what]
    arrays, options = random_inputs(12, alignment="constant")
    valid = cast(arrays, np.float32) | options
    with pytest.raises(ValueError, match=rf"(?s)\b{name}\b"):
        selective_scan(**(valid | wrong))
