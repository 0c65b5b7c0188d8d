"""How much an archive holds, and how the folder of a run comes and goes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def count_lines(path: Path) -> int:
    """Line feeds in a file."""
    return sum(block.count(b"\n") for block in _blocks(path))


def count_records(directory: Path) -> int:
    """Records in msgd's day files: the lines that do not begin with a TAB."""
    total = 0
    for path in directory.glob("????-??-??.log"):
        last = b"\n"
        for block in _blocks(path):
            total += block.count(b"\n") - (last + block).count(b"\n\t")
            last = block[-1:]
    return total


def _blocks(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


@contextmanager
def fresh_directory(parent: Path) -> Iterator[Path]:
    """Gone at the end, so that no run leaves its archive to the next one's disk."""
    path = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def use_pages(directory: Path, size: int) -> None:
    """Fill so many bytes of page cache, and free them again.

    A page that a virtual machine has never used costs several times as much on its first use: what
    runs first would pay for all.
    """
    path = directory / "pages"
    block = bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        for _ in range(size // len(block)):
            file.write(block)
    path.unlink()
