"""Imports go down only: the table of CONTRIBUTING.md, proved from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "msgd"

# Who may import whom; a folder may import itself, and everybody the leaves.
ROOMS = {
    "daemon": {"server", "archive", "config", "process", "wire"},
    "server": {"archive", "config", "process", "wire"},
    "ctl": {"client", "config", "wire.text"},
    "client": {"wire"},
    "handler": {"client"},
    "archive": {"process"},
    "config": {"password"},
    "process": {"wire.text"},
    "relay": {"archive", "config", "process"},
    "wire": set(),
    "password": set(),
    "prompt": set(),
    "errors": set(),
}
LEAVES = {"password", "prompt", "errors"}
FOLDERS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(dotted: str) -> str:
    """``msgd.server.loop`` is in server; the package itself has only its version."""
    return dotted.partition(".")[2].partition(".")[0]


def imported(path: Path) -> Iterator[str]:
    """The modules of msgd that a file imports, under TYPE_CHECKING and in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "msgd")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            if node.module == "msgd":
                yield from (f"msgd.{name.name}" for name in node.names)
            elif node.module and node.module.startswith("msgd."):
                yield from (f"{node.module}.{name.name}" for name in node.names)


def may(own: str, other: str) -> bool:
    allowed = ROOMS[own] | LEAVES | {own}
    inside = other.removeprefix("msgd.")
    return room(other) in {"", "__version__"} or any(
        inside == one or inside.startswith(f"{one}.") for one in allowed
    )


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_lies_below_it(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own != "__init__":
        assert [other for other in imported(path) if not may(own, other)] == []
    else:
        assert [*imported(path)] == []


@pytest.mark.parametrize("source", ["msgd.server.loop", "msgd.wire.headers.LINE", "msgd.ctl"])
def test_what_leads_upward_is_seen(source: str) -> None:
    assert not may("archive", source)


def test_the_fragments_that_are_allowed_are_no_more_than_that() -> None:
    assert may("process", "msgd.wire.text.escape")
    assert not may("process", "msgd.wire.textual.escape")
    assert not may("process", "msgd.wire.headers.HEADERS")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_each_folder_says_what_lives_there(folder: Path) -> None:
    """In two or three sentences, and so that a message can be followed."""
    said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
    assert said is not None
    assert said.count(". ") + said.count(".\n") + said.endswith(".") >= 2, said


def test_every_room_stands_in_the_table_for_readers() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text()
    there = {path.relative_to(PACKAGE).parts[0] for path in modules()}
    names = {name.removesuffix(".py") for name in there} - {"__init__", "handler"}
    for name in names:
        assert f"`msgd/{name}/`" in table or f"`msgd/{name}.py`" in table, name
    assert names | {"handler"} <= ROOMS.keys()


def test_the_table_for_readers_says_what_this_test_proves() -> None:
    rows = [
        line.strip("| ").split(" | ")
        for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines()
        if line.startswith("| `msgd/")
    ]
    for folders, _, may_import in rows:
        allowed = set() if may_import == "nothing" else set(may_import.split(", "))
        for folder in folders.replace("`", "").split(", "):
            own = folder.removeprefix("msgd/").strip("/").removesuffix(".py")
            if own != "daemon":
                assert ROOMS[own] == allowed, own


def test_every_folder_is_in_the_packages() -> None:
    """Else it is missing where msgd is installed."""
    text = (ROOT / "pyproject.toml").read_text()
    for folder in FOLDERS:
        assert f'"msgd.{folder.name}"' in text, folder.name
