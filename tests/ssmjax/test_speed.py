"""The speed command: what it times, what it makes of the times, and what it prints."""

import dataclasses

import chex
import jax
import pytest

import ssmjax
from ssmjax import command_line, registry
from ssmjax.analysis import speed

SECONDS = {"dense": 1.2, "pruned": 1.0, "pruned, no alignment": 0.8, "selection": 0.03}
PRUNE = ssmjax.PruneConfig(after_blocks=(1,), keep_ratio=0.5)


@pytest.fixture(autouse=True)
def schedules(monkeypatch, small_models):
    scheduled = dataclasses.replace(small_models["vim"], schedule=PRUNE)
    monkeypatch.setattr(registry, "_CLASSIFIERS", small_models | {"vim": scheduled})


@pytest.fixture
def timed(monkeypatch):
    """What would be timed, by name; the times are `SECONDS`."""
    given = {}

    def medians(runs, rounds):
        assert rounds == 7
        given.update(runs)
        return {name: SECONDS[name] for name in runs}

    monkeypatch.setattr(speed, "medians", medians)
    return given


def random_images(model):
    return jax.random.normal(jax.random.key(0), (2, *model.config.image_shape))


def test_rows(timed):
    dense = ssmjax.create_model("vim")
    rows = speed.measure(dense, PRUNE, 2, rounds=7)
    assert [row.what for row in rows] == ["dense", "pruned", "pruned, no alignment"]
    ratio = ssmjax.flops(dense).published / ssmjax.flops(dense.with_prune(PRUNE)).published
    assert 1.2 < ratio < 2
    plain, pruned, unaligned = rows
    assert (plain.images_per_second, plain.speedup, plain.flops_ratio) == (2 / 1.2, 1, 1)
    assert (plain.eta, plain.alignment, plain.selection) == (None, None, None)
    assert pruned.eta == pytest.approx(0.2 / (ratio - 1))
    assert unaligned.eta == pytest.approx(0.5 / (ratio - 1))
    assert pruned.alignment == pytest.approx(0.25) and pruned.selection == pytest.approx(0.03)
    assert (unaligned.alignment, unaligned.selection) == (None, None)
    numbers = f"2.0 | 1.20x | {ratio:.3f} | {pruned.eta:.2f} | 25.0 | 3.0"
    assert str(pruned) == f"| 2 | pruned | {numbers} |"


def test_what_is_timed(timed):
    dense = ssmjax.create_model("vim")
    speed.measure(dense, PRUNE, 2, rounds=7)
    images, key = random_images(dense), jax.random.key(0)
    unaligned = dataclasses.replace(PRUNE, alignment="none")
    for what, prune in ("dense", None), ("pruned", PRUNE), ("pruned, no alignment", unaligned):
        chex.assert_trees_all_equal(timed[what](), dense.with_prune(prune)(images, key=key))
        assert timed[what].func.config.prune == prune
    ((stream, positions, _),) = timed["selection"]()
    assert [part.shape for part in jax.tree.leaves(stream)] == [
        (2, 9, 16)
    ] * 2 and positions.shape == (2, 9)


@pytest.mark.slow
def test_training_step(timed):
    dense = ssmjax.create_model("vim")
    rows = speed.measure(dense, PRUNE, 2, rounds=7, train=True)
    assert [row.selection for row in rows] == [None] * 3 and "selection" not in timed
    model = dense.with_prune(PRUNE)
    logits = model(random_images(model), key=jax.random.key(0))
    loss, params = timed["pruned"]()
    assert loss == pytest.approx(float(-jax.nn.log_softmax(logits)[:, 0].mean()), rel=1e-5)
    # The bias of the head moves against its gradient, the mean of softmax minus label.
    gradient = jax.nn.softmax(logits).mean(axis=0).at[0].add(-1)
    moved = params["head"]["bias"][...] - model.head.bias[...]
    chex.assert_trees_all_close(moved, -speed.LEARNING_RATE * gradient, rtol=1e-3)


def test_the_command_prints_a_table(capsys, monkeypatch):
    arguments = ["speed", "--model", "vim", "--batch-sizes", "2", "2", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", arguments)
    speed.main()
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == list(speed.HEADINGS) and {len(row) for row in cells} == {8}
    assert [row[0] for row in cells[2:]] == ["2"] * 6
    for _, what, rate, speedup, _, eta, alignment, selection in cells[2:]:
        assert float(rate.replace(",", "")) > 0 and speedup.endswith("x")
        assert (eta == "") == (what == "dense")
        assert (alignment != "") == (selection != "") == (what == "pruned")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "vin"], "no model 'vin'"),
        (["--model", "vim_wide"], "no schedule for vim_wide"),
        (["--model", "vim", "--batch-sizes", "0"], "batch size is 0"),
        (["--model", "vim", "--rounds", "0"], "rounds is 0"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments, said, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["speed", *arguments])
    with pytest.raises(SystemExit) as stop:
        command_line.run(speed.main)
    captured = capsys.readouterr()
    assert stop.value.code == 2 and captured.out == ""
    assert captured.err.count("\n") == 1 and said in captured.err
