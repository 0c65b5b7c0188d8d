"""The command behind `make bench-guard`: has the cost of a message grown?

No clock and no absolute figure: the daemon's instructions for one more message, in terms of one
more round of a fixed yardstick in the same interpreter, both counted by callgrind. guard.json holds
what it was when it was last accepted.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from . import generator
from .counting import fresh_directory
from .generator import Work, push, target
from .process import BenchError, read_announced_port, running
from .tools import Tools, configure, python

ACCEPTED = Path(__file__).parent / "guard.json"
TOLERANCE = 0.05  # batches depend on timing; repeated runs differ by less than 0.01

# Never to be changed: the figures in guard.json are in terms of it.
YARDSTICK = """
import sys
block = b"".join(b"MESG %07d the quick brown fox jumps over a lazy dog\\n" % n for n in range(200))
for _ in range(int(sys.argv[1])):
    lines = [line[5:] for line in block.splitlines(keepends=True)]
    (b"2026-11-23T02:51:07.123456+00:00 " + b"".join(lines)).isascii()
"""
YARDSTICK_ROUNDS = 1_000

# Callgrind is slow, and how much the daemon reads at once depends on its speed. It is to work as
# if it were not slow. And it is to sleep: how often it would look for the next message instead
# depends on what else the machine does.
UNHURRIED = """
import sys
from math import inf
from msgd.server import fairness
fairness.BITE_SECONDS = inf
fairness.UNSYNCED = fairness.UNSYNCED._replace(awake_seconds=0.0)
from msgd import daemon
sys.exit(daemon.main())
"""

# The smaller of two runs; the larger has three times as many messages.
WORKS = {
    "plain": Work(20_000),
    "non-ASCII": Work(20_000, kind="utf8"),
    "an escape in a hundred": Work(20_000, kind="escape"),
    "ten lines": Work(1_000, kind="more"),
    "one at a time": Work(300, window=1),
    "a session": Work(20_000, session=True),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.guard", description="Has a message grown dearer?")
    parser.add_argument("--accept", action="store_true", help="write the new figures down")
    parser.add_argument("--directory", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="guard-", dir=options.directory) as name:
        try:
            costs = measure(Path(name).resolve())
        except (BenchError, OSError) as error:
            print(f"bench-guard: {error}", file=sys.stderr)
            return 2
    if options.accept:
        ACCEPTED.write_text(json.dumps(costs, indent=1) + "\n")
    return compare(costs, json.loads(ACCEPTED.read_text()))


def compare(costs: dict[str, float], accepted: dict[str, float]) -> int:
    """Prints each figure beside the accepted one; 1 when one has grown, or is not accepted."""
    status = 0
    for name, cost in costs.items():
        known = accepted.get(name)
        if known is None:
            verdict = "NEW"
        else:
            grown = cost / known - 1
            growth = "GROWN" if grown > TOLERANCE else "ok"
            verdict = f"accepted {known:9.5f} ({grown:+.1%}) {growth}"
        status = max(status, int(not verdict.endswith("ok")))
        print(f"{name:24} {cost:9.5f}, {verdict}")
    return status


def measure(directory: Path) -> dict[str, float]:
    """For each work, the instructions of a message in rounds of the yardstick."""
    generator.build(directory)
    rounds = YARDSTICK_ROUNDS
    few, many = (_yardstick(directory, count) for count in (rounds, 3 * rounds))
    unit = (many - few) / (2 * rounds)
    return {name: round(_message(directory, work) / unit, 6) for name, work in WORKS.items()}


def _message(directory: Path, work: Work) -> float:
    """The instructions of one more message: what two runs have in common falls out."""
    few, many = (_daemon(directory, work, count) for count in (work.messages, 3 * work.messages))
    return (many - few) / (2 * work.messages)


def _daemon(directory: Path, work: Work, messages: int) -> int:
    tools = Tools(directory, None)
    with fresh_directory(directory) as place:
        configuration = configure(
            "msgd.yaml", place, 0, "never", tools, listen="127.0.0.1", certificate="none"
        )
        command = [python(), "-c", UNHURRIED, "--config", str(configuration)]
        command += ["--log-directory", str(place / "archive")]
        with running(_counted(place, command), stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            port = read_announced_port(process.stderr)
            load, larger = directory / "load", replace(work, messages=messages)
            push(load, target("msgd", port), larger, seconds=300)
        return _instructions(place)


def _yardstick(directory: Path, rounds: int) -> int:
    with fresh_directory(directory) as place:
        command = [python(), "-c", YARDSTICK, str(rounds)]
        subprocess.run(_counted(place, command), check=True, timeout=300)
        return _instructions(place)


def _counted(place: Path, command: list[str]) -> list[str]:
    out = place / "callgrind.out"
    return ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", *command]


def _instructions(place: Path) -> int:
    text = (place / "callgrind.out").read_text()
    found = re.search(r"^(?:totals|summary): (\d+)", text, re.MULTILINE)
    if found is None:
        raise BenchError("callgrind wrote no total")
    return int(found.group(1))


if __name__ == "__main__":
    sys.exit(main())
