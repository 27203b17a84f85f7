"""The house: imports go down only, and files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kernels

ROOT = Path(__file__).parent.parent
FLOORS = ("kernels", "ssmjax", "train")  # From the ground up.
SOURCES = sorted(p for floor in FLOORS for p in (ROOT / floor).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of the packages that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively, line {node.lineno}"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    assert not imported(path) & set(FLOORS[floor + 1 :])


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 300


def test_kernels_is_this_project_and_not_the_published_package():
    assert Path(kernels.__file__).parent == ROOT / "kernels"


def test_importing_the_library_loads_neither_training_nor_torch_nor_tensorflow():
    code = "import sys, ssmjax; print(sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "'ssmjax'" in loaded
    for package in ("train", "torch", "tensorflow", "tensorflow_datasets", "cv2"):
        assert f"'{package}'" not in loaded


def test_classification_loads_nothing_of_the_dense_tasks():
    modules = "ssmjax, ssmjax.convert.__main__, ssmjax.predict.__main__"
    modules += ", train.finetune, train.evaluate"
    code = f"""
import sys, {modules}
from train.cli import load_config
from train.tasks.task import open_task
places = "ssmjax.dense", "ssmjax.convert.dense", "train.tasks.dense"
open_task(load_config("configs/imagenet_vim_tiny_dense.py", train.config.Config))
print([m for m in sys.modules if m.startswith(places)])
"""
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert loaded == "[]\n"
