"""Compression that is killed, and a loop that compression may not stall."""

from __future__ import annotations

import gzip
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgd

PROGRAM = str(Path(msgd.__file__).with_name("archive") / "retention.py")
TODAY = "2026-03-10"


def kill_while_compressing(
    folder: Path, earlier: bytes, size: int, times: int, seed: int
) -> Counter[str]:
    """Kill the program at random moments; the plain file or the gzip must be whole each time.

    ``earlier`` is what a gzip of that day holds already. Returns how often the kill found it
    at which step, and leaves a finished run behind.
    """
    chance = random.Random(seed)
    data = chance.randbytes(size)
    day, packed = folder / "2026-03-01.log", folder / "2026-03-01.log.gz"
    command = [sys.executable, "-I", PROGRAM, str(folder), TODAY, "0", "gzip"]
    outcomes: Counter[str] = Counter()
    longest = 0.0
    for number in range(times + 1):
        if not day.exists():
            day.write_bytes(data)
            packed.unlink(missing_ok=True)
            if earlier:
                packed.write_bytes(gzip.compress(earlier))
        began = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            if number:  # the first run shows how long it takes
                time.sleep(chance.uniform(0.1, 1) * longest)  # the moment is what is random
                process.kill()
        longest = longest or time.monotonic() - began
        outcomes["first" if not number else _state(folder, day, packed, earlier, data)] += 1
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    assert [path.name for path in folder.iterdir()] == [packed.name]
    assert gzip.decompress(packed.read_bytes()) == earlier + data
    del outcomes["first"]
    return outcomes


def _state(folder: Path, day: Path, packed: Path, earlier: bytes, data: bytes) -> str:
    plain = day.exists()
    assert not plain or day.read_bytes() == data
    whole = packed.exists() and gzip.decompress(packed.read_bytes()) == earlier + data
    assert plain or whole, "neither is whole"
    if not plain:
        return "done"
    if whole:
        return "both whole"
    return "half-written" if (folder / f".{packed.name}.new").exists() else "not begun"
