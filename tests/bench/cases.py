"""The list of runs: which server, synced or not, and the work that is pushed at it.

The numbers of messages make each run last about a second or two: the work is the same in kind
for everybody, and long enough that start and end do not show.
"""

from __future__ import annotations

from dataclasses import dataclass

from .generator import Work


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the results; `key` names it in the JSON file and in targets.py."""

    key: str
    peer: str
    work: Work
    synced: bool = False


CONNECTIONS = (1, 4, 16, 64, 256, 1024, 4096)
SIZES = (10, 30, 100, 300, 1000, 4000, 16000, 65536)


def _headline() -> list[Case]:
    """Every server, one connection, 100-byte texts: the table of the README."""
    million = 1_000_000
    plain = {
        "C limit": 8 * million,
        "msgd": 6 * million,
        "rsyslog imptcp": 1 * million,
        "multilog": 1 * million,
        "redis XADD": million // 2,
        "syslog-ng": million // 2,
        "nats JetStream": million // 4,
        "journal-remote": million // 5,
        "rsyslog imrelp": 150_000,
    }
    synced = {
        "C limit": 6 * million,
        "msgd": 4 * million,
        "rsyslog imptcp": million // 2,
        "redis XADD": million // 4,
        "syslog-ng": million // 4,
        "rsyslog imrelp": 3_000,
    }
    cases = [Case(f"plain/{peer}", peer, Work(count)) for peer, count in plain.items()]
    return cases + [Case(f"sync/{peer}", peer, Work(n), True) for peer, n in synced.items()]


def _many_connections() -> list[Case]:
    """The limit and msgd, also for the chart."""
    cases = []
    for count in CONNECTIONS:
        for peer in ("C limit", "msgd"):
            messages = 1_000_000 if count >= 1024 else 9_000_000 if peer == "C limit" else 3_000_000
            cases.append(Case(f"connections/{peer}/{count}", peer, Work(messages, count)))
            synced = Work(min(messages // 2, 1_500_000), count)
            cases.append(Case(f"connections sync/{peer}/{count}", peer, synced, True))
    return cases


def _sizes() -> list[Case]:
    """About the same number of bytes at every size from 100 up, and as many messages below."""
    cases = []
    for size in SIZES:
        messages = min(2_000_000, 300_000_000 // (size + 50))
        for peer in ("C limit", "msgd"):
            work = Work(messages, size=size)
            cases.append(Case(f"sizes/{peer}/{size}", peer, work))
            cases.append(Case(f"sizes sync/{peer}/{size}", peer, work, True))
    return cases


def _kinds() -> list[Case]:
    """What is not plain ASCII in one line."""
    counts = {"ascii": 4_000_000, "utf8": 3_000_000, "escape": 3_000_000, "more": 200_000}
    return [Case(f"kinds/{kind}", "msgd", Work(n, kind=kind)) for kind, n in counts.items()]


def _waits() -> list[Case]:
    """One client that waits for each echo; then the same beside fifteen that push all they can."""
    alone, crowd = Work(20_000, window=1), Work(1 << 40, 16, waiters=1, waiter_messages=1000)
    works = {
        "wait": (alone, False),
        "wait sync": (Work(5_000, window=1), True),
        "fair": (crowd, False),
        "fair sync": (crowd, True),
    }
    return [
        Case(f"{kind}/{peer}", peer, work, synced)
        for kind, (work, synced) in works.items()
        for peer in ("C limit", "msgd")
    ]


def all_cases() -> list[Case]:
    return [*_headline(), *_waits(), *_kinds(), *_many_connections(), *_sizes()]
