"""The long runs: ``python -m tests.campaign [PART…] [--minutes M] [--seed N]``.

Every part takes an equal share of the minutes, and is repeated with what it has drawn by chance
when it is given the same seed. It ends at the first thing that is not as it must be.
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path

from tests.campaign import (
    abuse,
    crash,
    loop,
    outbreak,
    packing,
    power,
    relay,
    sessions,
    siege,
    sleepers,
    soak,
    stall,
    worst,
)
from tests.campaign.starting import Starter
from tests.lab import mounts, nats

Part = Callable[[Starter, Path, float, int], object]


def _crash(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    end = time.monotonic() + seconds
    return crash.campaign(start, folder, lambda _: time.monotonic() < end, seed)


def _power(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    folder.mkdir()
    logging.getLogger("msgd").setLevel(logging.ERROR)  # mended tails by the hundred are no news
    end, runs, mended, looked_for = time.monotonic() + seconds, 0, 0, 0
    while time.monotonic() < end:
        traced, senders = power.record(start, folder, messages=500)
        more, found = power.check_states(traced, senders, folder / "disk", 300, seed + runs)
        runs, mended, looked_for = runs + 1, mended + more, looked_for + found
    return f"{runs * 300} states of a disk, {mended} mended, {looked_for} echoes looked for"


def _ext4(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    if not mounts.can_mount_ext4():
        return "left out: only root can mount a loop device"
    end = time.monotonic() + seconds
    cuts, tested = loop.campaign(start, folder, lambda _: time.monotonic() < end, seed)
    return f"{cuts} power cuts, {tested} echoes looked for"


def _packing(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    folder.mkdir()
    end, found = time.monotonic() + seconds, Counter[str]()
    while time.monotonic() < end:
        found += packing.kill_while_compressing(folder, b"earlier\n" * 99, 16 << 20, 20, seed)
        (folder / "2026-03-01.log.gz").unlink()
        seed += 1
    return f"compression killed, and found: {dict(found)}"


def _siege(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    return _lay_siege(start, folder, seconds, abuse.ABUSE)


def _kinds(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    """What each kind of abuse costs by itself."""
    for number, kind in enumerate(abuse.ABUSE):
        each = folder / str(number)
        said = _lay_siege(start, each, seconds / len(abuse.ABUSE), [kind])
        print(f"  {kind} ({abuse.KINDS[kind].clients}): {said}", flush=True)
    return "see above"


def _lay_siege(start: Starter, folder: Path, seconds: float, kinds: Sequence[str]) -> siege.Siege:
    folder.mkdir(parents=True)
    end = inf

    def again(sent: int) -> bool:
        nonlocal end
        end = time.monotonic() + seconds if not sent else end
        return time.monotonic() < end

    result = siege.lay(start, folder, again, kinds)
    assert result.peak < result.bound, str(result)
    assert result.busy_after < 0.05, str(result)
    assert result.busy_stuck < 0.05, str(result)
    assert result.accepted_after < 2, str(result)
    return result


def _outbreaks(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    """Each kind by itself, with nearly as many clients as are let in."""
    folder.mkdir()
    for kind in sleepers.KINDS:
        each, end = folder / kind, inf
        each.mkdir()

        def again(sent: int) -> bool:
            nonlocal end
            end = time.monotonic() + seconds / len(sleepers.KINDS) if not sent else end
            return time.monotonic() < end

        said = outbreak.lay(start, each, kind, 4000, again)
        print(f"  {kind}: {said}", flush=True)
        assert said.peak < said.bound
    return "see above"


def _stall(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    """The minutes are for the daemon before; a day of 1 GiB is compressed behind them."""
    return stall.measure(start, folder, 1 << 30, seconds)


def _worst(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    """What costs the protocol most; its finds belong into worst.txt."""
    return worst.campaign(seconds, seed)


def _soak(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    return soak.soak(start, folder, seconds, lambda line: print(f"  {line}", flush=True))


def _sessions(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    end = time.monotonic() + seconds
    return sessions.campaign(
        start, folder, lambda _: time.monotonic() < end, seed, lines=20_000, longest=0.05
    )


def _relay(start: Starter, folder: Path, seconds: float, seed: int) -> object:
    """Half of the time with one server, half of it with three."""
    if nats.find_server() is None:
        return "left out: nats-server is not installed"
    said = []
    for servers in (1, 3):
        end = time.monotonic() + seconds / 2
        alone = folder / str(servers)
        said.append(relay.campaign(alone, lambda _, e=end: time.monotonic() < e, seed, servers))  # type: ignore[misc]
    return "; ".join(said)


# By default all but the last ones, which have something special to tell.
PARTS: dict[str, Part] = {
    "crash": _crash,
    "power": _power,
    "ext4": _ext4,
    "packing": _packing,
    "siege": _siege,
    "sessions": _sessions,
    "soak": _soak,
    "relay": _relay,
    "kinds": _kinds,
    "stall": _stall,
    "worst": _worst,
    "outbreaks": _outbreaks,
}
_SPECIAL = {"kinds", "stall", "worst", "outbreaks"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("parts", metavar="PART", nargs="*", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    given = parser.parse_args()
    parts = given.parts or [name for name in PARTS if name not in _SPECIAL]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    print(f"seed {given.seed}", flush=True)
    for name in parts:
        _run(name, given.minutes * 60 / len(parts), given.seed)


def _run(name: str, seconds: float, seed: int) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"msgd-{name}-") as folder, Starter(folder) as start:
        said = PARTS[name](start, Path(folder) / "run", seconds, seed)
    print(f"{name}: {said} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
