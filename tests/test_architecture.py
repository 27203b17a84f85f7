"""The house: imports go down only, inside each folder too, and files and folders stay small."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import kernels

ROOT = Path(__file__).parent.parent
FLOORS = ("kernels", "ssmjax", "train")  # From the ground up.
SOURCES = sorted(p for floor in FLOORS for p in (ROOT / floor).rglob("*.py"))
FOLDERS = sorted({p.parent for p in SOURCES})
MOST = {"train": 17, "train/data": 16, "ssmjax/dense": 13}  # Entries that a folder may show.


def named(path: Path) -> str:
    """A folder or a file from the root."""
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> tuple[str, ...]:
    """Parts of the name by which a file is imported."""
    return path.relative_to(ROOT).with_suffix("").parts


MODULES = {module_of(path) for path in SOURCES}


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


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_imports_go_down_only(path):
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    assert not imported(path) & set(FLOORS[floor + 1 :])


def modules_imported(path: Path) -> set[tuple[str, ...]]:
    """The files of this project that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            origin = tuple((node.module or "").split("."))
            members = {(*origin, alias.name) for alias in node.names}
            files = {name for name in members if name in MODULES or (*name, "__init__") in MODULES}
            found |= files
            if files != members:
                found.add(origin)
    return {(*name, "__init__") if (*name, "__init__") in MODULES else name for name in found}


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_no_circle_inside_a_folder(folder):
    """What lies in a folder, files and folders, can be put in an order in which imports go down.

    A folder's `__init__` is its face, above all that lies in it: nothing in it climbs there.
    """
    inside = folder.relative_to(ROOT).parts
    depth = len(inside)
    below: dict[str, set[str]] = {}
    for path in folder.rglob("*.py"):
        entry = module_of(path)[depth]
        others = {m[depth] for m in modules_imported(path) if m[:depth] == inside}
        below.setdefault(entry, set()).update(others - {entry})
    assert not any("__init__" in others for others in below.values())
    graphlib.TopologicalSorter(below).prepare()  # Raises CycleError, which names the circle.


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_each_folder_says_its_job(folder):
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


@pytest.mark.parametrize(("folder", "most"), MOST.items())
def test_folders_stay_small(folder, most):
    entries = {p.name for p in (ROOT / folder).iterdir()} - {"__pycache__"}
    assert len(entries) <= most


@pytest.mark.parametrize("path", SOURCES, ids=named)
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
