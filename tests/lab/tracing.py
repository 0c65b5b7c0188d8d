"""The daemon's system calls, as strace(1) sees them: what it wrote, synced and sent, in order."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SECONDS = 60.0
CALLS = "openat,write,writev,pwrite64,fdatasync,fsync,ftruncate,rename,symlink,sendmsg,sendto"

_LINE = re.compile(r"(\w+)\((.*)\) += (-?\d+)(.*)")
_BEGUN = re.compile(r"(\d+) +(.*) <unfinished \.\.\.>")  # another thread's call comes between
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_THREAD = re.compile(r"\d+ +")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_PATH = re.compile(r"^\d+<([^>]*)>")


class Call(NamedTuple):
    """One system call that has returned."""

    name: str
    path: str  # what the descriptor leads to: a file, a directory, "TCP:[from->to]"
    strings: tuple[bytes, ...]  # every string among its arguments
    arguments: str
    result: int  # -1 for an error

    @property
    def data(self) -> bytes:
        """What was written or sent: a call may take less than it was given."""
        return b"".join(self.strings)[: max(self.result, 0)]


def is_installed() -> bool:
    return shutil.which("strace") is not None


def wrapper(output: Path, *options: str) -> tuple[str, ...]:
    """Start a program so that its calls are noted. Its process id is its own (strace -D).

    The lines stand in the order in which the calls returned. Children and threads are not
    followed, unless ``options`` say ``--follow-forks``.
    """
    return (
        *("strace", "-D", "-yy", "-xx", "--signal=none", "--string-limit=4194304"),
        *(f"--trace={CALLS}", *options, f"--output={output}", "--"),
    )


def calls(output: Path) -> list[Call]:
    """All calls of a traced program that has ended."""
    end = time.monotonic() + SECONDS
    while not output.read_text()[-200:].endswith("+++\n"):
        assert time.monotonic() < end, "strace has not seen the end of the program"
        time.sleep(0.01)
    return [*_parse(output.read_text())]


def _parse(text: str) -> Iterator[Call]:
    for line in _joined(text.splitlines()):
        if found := _LINE.fullmatch(line):
            name, arguments, result, _ = found.groups()
            strings = tuple(map(_bytes, _STRING.findall(arguments)))
            path = _PATH.match(arguments)
            place = _bytes(path[1]).decode() if path else ""
            yield Call(name, place, strings, arguments, int(result))


def _joined(lines: list[str]) -> Iterator[str]:
    """Each call in one line, where it returned, and without its thread's number."""
    begun: dict[str, str] = {}
    for line in lines:
        if found := _BEGUN.fullmatch(line):
            begun[found[1]] = found[2]
        elif found := _RESUMED.fullmatch(line):
            yield begun.pop(found[1]) + found[2]
        else:
            yield _THREAD.sub("", line, count=1) if _THREAD.match(line) else line


def _bytes(text: str) -> bytes:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text).encode("latin-1")
