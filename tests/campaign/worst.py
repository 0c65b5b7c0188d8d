"""The worst traffic at a given number of bytes, searched for by evolution.

A candidate is a list of small fragments of requests, which are repeated until they fill the bytes.
The protocol takes it apart as the daemon has it do, in bites, with an answer to each request that
needs one. What counts is the processor time for a byte, and for one call, which nothing interrupts.
The best candidates are changed and crossed, over and over. The finds stand in ``worst.txt``: the
search starts from them, and `tests.test_abuse` holds each to a bound.
"""

from __future__ import annotations

import random
import time
from ast import literal_eval
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from msgd.archive.records import Form
from msgd.wire.events import Open, Records, Terminate
from msgd.wire.headers import PWNO
from msgd.wire.server import ServerProtocol

BYTES = 64 << 10  # of each candidate
BITE = 4 << 10
FINDS = Path(__file__).with_name("worst.txt")
_KEPT, _CHILDREN, _LONGEST = 8, 32, 12
_FRAGMENTS = (
    b"PING\n", b"MESG ", b"MESG a\n", b"MORE ", b"MORE a\n", b"MORE \n", b"TERM ", b"TERM a\n",
    b"SESS s\n", b"SESS s 9\n", b"SESS ", b"\n", b"\r", b"\r\n", b"\x00", b"\xff", b"\xc2",
    b"\x9b", b"\xc2\x9b", b"\xe2\x80\xa8", b"\xf3\xa0\x81\x81", b"\xf4\x8f\xbf\xbf",
    b"\xf0\x9f\x98\x80", b"x", b"x" * 60, b"NOPE\n", b"ping\n", b" ", b"\t", b"\\", b"MESG\n",
    b"PING x\n",
)  # fmt: skip

Genes = tuple[bytes, ...]


class Cost(NamedTuple):
    """Of one candidate, in seconds of a processor: for a byte, and of the longest call."""

    byte: float
    call: float

    def __str__(self) -> str:
        return f"{self.byte * 1e9:.0f} ns a byte, longest call {self.call * 1e3:.2f} ms"


def traffic(genes: Genes) -> bytes:
    """What a client with these genes sends behind its handshake."""
    once = b"".join(genes)
    return (once * (BYTES // len(once) + 1))[:BYTES]


def cost(genes: Genes, bite: int = BITE) -> Cost:
    """The least of three measurements: what others do on the machine only adds to it."""
    return min(_measure(traffic(genes), bite) for _ in range(3))


def _measure(data: bytes, bite: int) -> Cost:
    calls = list(run(data, bite))
    return Cost(sum(calls) / len(data), max(calls))


def run(data: bytes, bite: int) -> list[float]:
    """Have the protocol take it, and answer it; the seconds of each call."""
    form = Form("127.0.0.1:40000")
    form.at(b"2026-11-26T00:00:00.000000+00:00")
    protocol = ServerProtocol(65536)
    protocol.receive(b"PING\n", form)
    calls, numbers = list[float](), 0
    for start in range(0, len(data), bite):
        pieces = [data[start : start + bite]]
        while pieces or protocol.paused:
            began = time.thread_time()
            events = protocol.receive(pieces.pop(), form) if pieces else protocol.resume(form, bite)
            calls.append(time.thread_time() - began)
            numbers += sum(event.messages for event in events if isinstance(event, Records))
            asked = events[-1] if events else None
            if isinstance(asked, Open):
                protocol.opened(asked.id, min(numbers, (asked.number or numbers + 1) - 1), form)
            elif isinstance(asked, Terminate):
                protocol.reply(PWNO)
    return calls


def search(seconds: float, seed: int) -> list[tuple[Cost, Genes]]:
    """The worst that was found in this time, worst first."""
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    found = {genes: cost(genes) for genes in (*known(), *((one,) for one in _FRAGMENTS))}
    while time.monotonic() < end:
        parents = [genes for _, genes in _best(found)]
        for _ in range(_CHILDREN):
            child = _child(parents, chance)
            if child not in found:
                found[child] = cost(child)
        found = dict((genes, each) for each, genes in _best(found))  # noqa: C402
    # Measured again: the worst of many is the one that something else has disturbed.
    return sorted(((cost(genes), genes) for genes in found), reverse=True)


def _best(found: dict[Genes, Cost]) -> list[tuple[Cost, Genes]]:
    """Half of them by the cost of a byte, half by the longest call."""
    pairs = [(each, genes) for genes, each in found.items()]
    worst = sorted(pairs, reverse=True)[:_KEPT]
    return worst + sorted(pairs, key=lambda pair: -pair[0].call)[:_KEPT]


def _child(parents: Sequence[Genes], chance: random.Random) -> Genes:
    mother, father = chance.choice(parents), chance.choice(parents)
    genes = [*mother[: chance.randint(0, len(mother))], *father[chance.randint(0, len(father)) :]]
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(genes))
        match chance.randrange(4):
            case 0:
                genes[at:at] = [chance.choice(_FRAGMENTS)] * chance.choice((1, 1, 2, 8))
            case 1:
                del genes[at : at + 1]
            case 2:
                genes[at : at + 1] = [chance.choice(_FRAGMENTS)]
            case 3:
                chance.shuffle(genes)
    return tuple(genes[:_LONGEST]) or (chance.choice(_FRAGMENTS),)


def known() -> list[Genes]:
    """What earlier searches have found, a list of fragments a line."""
    lines = FINDS.read_text().splitlines() if FINDS.exists() else []
    return [tuple(literal_eval(line)) for line in lines if not line.startswith("#")]


def campaign(seconds: float, seed: int) -> str:
    """Search, and print the finds, for ``worst.txt``."""
    found = search(seconds, seed)
    for each, genes in found[:_KEPT]:
        print(f"  {each}: {list(genes)!r}", flush=True)
    return f"the worst of a byte: {found[0][0]}"
