"""Names of the outside world are printed as they are."""

import ast
import io
import sys
from pathlib import Path

import pytest
from rich.table import Table

from ssmjax import command_line, terminal

ROOT = Path(__file__).parent.parent.parent
NAMES = ("IMG [copy].jpg", "[/]", "[/red] x", "[bold]cats", ":smile:", r"a\[b]", "{task} {0}")


@pytest.mark.parametrize("name", NAMES)
def test_consoles_bars_and_tables(name, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    console = terminal.console(stderr=True)
    console.width = 100
    console.print(name)
    table = Table(name, title=name)
    table.add_row(name)
    console.print(table)
    assert file.getvalue().count(name) == 4
    progress = terminal.bars(console, transient=False)
    with progress:
        progress.add_task(name, total=1)
    assert file.getvalue().count(name) == 5
    assert list(terminal.track([1, 2], name)) == [1, 2]
    assert file.getvalue().count(name) == 6


def test_tracked_items_are_counted_whole_and_titles_are_one_line(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for file in (Terminal(), io.StringIO()):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "150")
        monkeypatch.setattr(sys, "stderr", file)
        assert list(terminal.track([1, 2, 3], "a\nb\x1b[31m")) == [1, 2, 3]
        said = file.getvalue()
        assert r"a\nb\x1b[31m" in said and "\x1b[31ma" not in said and "a\nb" not in said
        assert not file.isatty() or ("m3/3\x1b" in said and "3.0" not in said)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("caf\udce9 [copy].jpg", r"caf\xe9 [copy].jpg"),
        ("a\nb\x1b[31m\u2028", r"a\nb\x1b[31m\u2028"),
        ("Bildschirmfoto 10.00\u202fUhr é 犬", "Bildschirmfoto 10.00\u202fUhr é 犬"),
    ],
)
def test_printable(name, shown):
    assert terminal.printable(name) == shown


def test_errors_are_one_printable_line(capsys):
    def fail():
        raise ValueError("There is no  file \udcff[/x]\x1b,\n  or so.")

    with pytest.raises(SystemExit):
        command_line.run(fail)
    assert capsys.readouterr().err == "error: There is no  file \\xff[/x]\\x1b, or so.\n"


@pytest.mark.parametrize("floor", ["ssmjax", "train"])
def test_nobody_has_rich_read_markup(floor):
    """Every console and column says that texts are texts; rich's own bars cannot be told so."""
    for path in (ROOT / floor).rglob("*.py"):
        tree = ast.parse(path.read_text())
        of_rich = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich")
            for alias in node.names
        }
        assert "track" not in of_rich, path
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            told = {k.arg for k in call.keywords if getattr(k.value, "value", None) is False}
            if name in of_rich:
                assert name != "Console" or {"markup", "emoji"} <= told, path
                assert name != "TextColumn" or "markup" in told, path
                assert name != "Progress" or call.args, path  # Else it has columns of its own.
