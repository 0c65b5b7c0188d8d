"""Power cuts on a real ext4, in an image on a loop device."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.campaign.crash import last_numbers
from tests.lab import mounts
from tests.lab.daemon import Daemon
from tests.lab.load import Sender
from tests.lab.waiting import wait_for

CONFIG = "listen: 127.0.0.1\n"
Begin = Callable[..., Daemon]


def campaign(
    begin: Begin, folder: Path, again: Callable[[int], bool], seed: int
) -> tuple[int, int]:
    """Cut, mount and start again as long as ``again`` says; the cuts and the echoes looked for."""
    chance = random.Random(seed)
    archive, image = folder / "archive", folder / "image"
    cuts = tested = 0
    while again(cuts):
        folder.mkdir(exist_ok=True)
        with mounts.ext4(image, archive):
            echoed: set[bytes] = set()
            lasts: dict[str, int] = {}
            for _ in range(5):  # on one file system, so that later cuts meet mended tails
                if again(cuts):
                    name = f"ext4-{seed}-{cuts}"
                    msgd = begin(CONFIG, folder=folder)
                    echoed |= _cut(msgd, name, chance, lasts)
                    cuts += 1
                    mounts.mount_again(image, archive)
                    msgd = begin(CONFIG, folder=folder)
                    check(msgd.archive(), echoed)
                    _check_numbers(msgd, lasts)
                    assert msgd.stop() == 0
                    tested += len(echoed)
    return cuts, tested


def _cut(msgd: Daemon, name: str, chance: random.Random, lasts: dict[str, int]) -> set[bytes]:
    """The texts that were echoed before the power went; and for each session the last number."""
    senders = [
        Sender(f"{name}-{n}", msgd.port, 100, session=f"s{n}" if n % 2 else "") for n in range(4)
    ]
    for sender in senders:
        sender.start()
    wait_for(lambda: any(sender.echoed for sender in senders), "the first echo")
    time.sleep(chance.uniform(0, 0.2))  # the moment is what is random
    # A real cut takes the daemon with it. This one would leave it alive for a moment, in which
    # ext4 may let an fdatasync that is under way return 0 (seen on Linux 6.18, by strace).
    msgd.signal(signal.SIGSTOP)
    wait_for(lambda: _is_stopped(msgd.pid), "the daemon stands still")
    mounts.cut_power(msgd.log_directory)
    msgd.kill()
    for sender in senders:
        sender.join()
        assert not sender.problem
        if sender.told is not None:
            assert sender.told >= lasts.get(sender.session, 0)
            lasts[sender.session] = sender.told + sender.echoed
    return {text for sender in senders for text, echoed in sender.receipts() if echoed}


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


def _check_numbers(msgd: Daemon, lasts: dict[str, int]) -> None:
    """Not below what was echoed, and not above what is there."""
    there = last_numbers(msgd.archive())
    for session, last in lasts.items():
        with msgd.line_client() as client:
            reply = client.ask(f"SESS {session}\n".encode())
        told = int(reply.removeprefix(b"SESS "))
        assert last <= told == there.get(session.encode(), 0)


def check(archive: bytes, echoed: set[bytes]) -> None:
    """Every one of these stands there once and whole; between them may be what a cut has left."""
    records = archive.replace(b"\n\t", b"\x00").split(b"\n")
    texts = [record.split(b" ", 2)[-1].replace(b"\x00", b"\n") for record in records]
    counts = Counter(texts)
    wrong = [text for text in echoed if counts[text] != 1]
    assert not wrong, f"{len(wrong)} echoed, and not there once: {wrong[:3]}"
