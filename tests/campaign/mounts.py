"""Small file systems to fill and to break; only root may mount them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IS_ROOT = os.geteuid() == 0


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    """A file system in memory, of so many bytes ("256k"), over this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0750", "msgd-test", str(folder))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(folder))


def resize(folder: Path, size: str) -> None:
    """Make the file system larger or smaller while it is in use."""
    _run("mount", "-o", f"remount,size={size}", str(folder))


def make_read_only(folder: Path) -> None:
    _run("mount", "-o", "remount,ro", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
