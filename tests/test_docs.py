"""Documents name what is there: files, links, and code that runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if path.relative_to(ROOT).parts[0] in {"README.md", "docs", "kernels", "ssmjax", "train"}
]
NAMED = re.compile(r"`((?:kernels|ssmjax|train|configs|tests)/[\w/]+(?:\.py|/))`")
LINKED = re.compile(r"\]\(([^)#:]+)\)")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_documents_name_are_there(path):
    text = path.read_text()
    wrong = [name for name in NAMED.findall(text) if not (ROOT / name).exists()]
    wrong += [link for link in LINKED.findall(text) if not (path.parent / link).exists()]
    assert wrong == []


def test_the_tour_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tour.md").read_text(), re.DOTALL)
    exec(code, {})
