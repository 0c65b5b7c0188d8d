"""What /proc tells about a process: its processor time, its memory, its descriptors."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Resident memory, in bytes."""
    return _status(pid, "VmRSS") * 1024


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had so far, in bytes."""
    return _status(pid, "VmHWM") * 1024


def takes_signal(pid: int, number: int) -> bool:
    """Whether a process has a handler for it: else the signal would end it, or do nothing."""
    found = re.search(r"^SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> number - 1 & 1)


def _status(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def descriptors(pid: int, kind: str = "") -> int:
    """How many descriptors are open; of one kind, by the beginning of what they lead to."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while we look
            count += os.readlink(link).startswith(kind)
    return count
