"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path


def describe(directory: Path, python: str) -> dict[str, str]:
    """Date, processor, cores, memory, kernel, Python, and the file system of `directory`."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _field("/proc/cpuinfo", "model name"),
        "cores": str(os.cpu_count()),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python of msgd": f"{python}, {first_line([python, '--version'])}",
        "file system": first_line(["stat", "--file-system", "--format=%T", str(directory)]),
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def first_line(command: list[str], environment: dict[str, str] | None = None) -> str:
    """The first line that a command prints; "unknown" where it does not run or prints nothing."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0].strip() if lines else "unknown"


class Others:
    """How much of the processor others take while we measure, kernel and host included."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._busy = _busy_seconds()
        self._own = _own_seconds()

    def share(self) -> float:
        """In cores, since the beginning. Our children count as ours when they have ended."""
        busy, own = _busy_seconds() - self._busy, _own_seconds() - self._own
        return max(busy - own, 0.0) / (time.monotonic() - self._begin)


def _busy_seconds() -> float:
    """All but idle and iowait of the first line of /proc/stat (proc(5)); steal is in it."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
