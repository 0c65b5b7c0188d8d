"""Power cuts: what a disk could hold when the power goes, rebuilt from the system calls.

Only what was synced is certain. Of each page that was written later and not synced there may be
the new bytes, NULs, or nothing (where the file's size was not brought up to date); a file whose
directory was not synced may be missing. With ``sync: always`` every echo must survive all of that.

Half of the clients write sessions. The number that a start tells is never higher than that of the
last whole record on the disk, and never lower than what was echoed; whichever state file is there.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from msgd.archive.archive import Archive
from msgd.archive.reader import records
from msgd.archive.records import MARK
from msgd.archive.state import NAME as STATE
from tests.lab.check import is_whole, read
from tests.lab.daemon import Daemon
from tests.lab.fake import FakeClock
from tests.lab.load import Sender
from tests.lab.tracing import Call, calls, wrapper

Begin = Callable[..., Daemon]

PAGE = 4096
NEW = b"2026-03-05T00:00:00.000000+00:00 127.0.0.1:1 after the power cut\n"


class Disk:
    """The files of one directory: what is certain, and what was written since."""

    def __init__(self) -> None:
        self.certain: dict[str, bytes] = {}  # synced, and its name too
        self.nameless: dict[str, bytes] = {}  # synced, but its name is not
        self.later: dict[str, bytes] = {}  # written, not synced
        self.states: list[bytes | None] = [None]  # which state files there may be; None: none
        self._state, self._synced = b"", False  # that is being written

    def apply(self, call: Call) -> None:
        if call.result < 0:
            return
        name = Path(call.path).name
        if name == f"{STATE}.new" or call.name == "rename":
            self._apply_to_state(call)
            return
        if call.name == "openat" and "O_CREAT" in call.arguments:
            name = Path(call.strings[-1].decode()).name
            if is_day(name) and name not in self.certain:
                self.nameless.setdefault(name, b"")
        elif not is_day(name):
            if call.name == "fsync":  # of the directory
                self.certain |= self.nameless
                self.nameless.clear()
                self.states = self.states[-1:]
        elif call.name in ("write", "writev"):
            self.later[name] = self.later.get(name, b"") + call.data
        elif call.name == "fdatasync":
            place = self.nameless if name in self.nameless else self.certain
            place[name] = place.get(name, b"") + self.later.pop(name, b"")

    def _apply_to_state(self, call: Call) -> None:
        """A new one that was not synced before its rename would be found empty."""
        if call.name == "write":
            self._state += call.data
            self._synced = False
        elif call.name == "fsync":
            self._synced = True
        elif call.name == "rename" and call.strings[-1].endswith(STATE.encode()):
            self.states.append(self._state if self._synced else b"")
            self._state = b""

    def after_cut(self, chance: random.Random) -> dict[str, bytes]:
        """One of the states in which a disk could be found."""
        files = dict(self.certain)
        files |= {name: data for name, data in self.nameless.items() if chance.random() < 0.5}
        for name, later in self.later.items():
            if name in files:
                files[name] += _some_of(later, len(files[name]), chance)
        state = chance.choice(self.states)
        return files if state is None else {**files, STATE: state}


def _some_of(later: bytes, start: int, chance: random.Random) -> bytes:
    """Some of the pages that these bytes went to, up to some size."""
    size = chance.randint(0, len(later))
    data = bytearray(later[:size])
    for page in range(start // PAGE * PAGE, start + size, PAGE):
        if chance.random() < 0.5:
            begin, end = max(page - start, 0), min(page + PAGE - start, size)
            data[begin:end] = bytes(end - begin)
    return bytes(data)


def is_day(name: str) -> bool:
    return name.endswith(".log") and name[:2] == "20"


def echoes(call: Call) -> bytes:
    """What a call sent to clients."""
    return call.data if call.name in ("sendmsg", "sendto") and call.path.startswith("TCP") else b""


def record(start: Begin, folder: Path, messages: int) -> tuple[list[Call], list[Sender]]:
    """The calls of a daemon that is written to over a midnight, and who wrote."""
    trace = folder / "trace"
    clock = FakeClock(folder, "2026-03-01 12:00:00")
    config = "listen: 127.0.0.1\n"
    traced = wrapper(trace, "--follow-forks")
    msgd = start(config, folder=folder / "traced", wrapper=traced, env=clock.env())
    senders = [
        Sender(f"power-{n}", msgd.port, 20, messages, session=f"s{n}" if n % 2 else "")
        for n in range(4)
    ]
    for pair in senders[:2], senders[2:]:
        for sender in pair:
            sender.start()
        for sender in pair:
            sender.join()
        clock.set("2026-03-02 00:00:01")
    assert msgd.stop() == 0
    return calls(trace), senders


def check_states(
    traced: list[Call], senders: Iterable[Sender], folder: Path, count: int, seed: int
) -> tuple[int, int]:
    """Cut the power at ``count`` random calls; returns how often what was found had to be mended.

    The second number is how many echoed messages were looked for, over all states.
    """
    chance = random.Random(seed)
    texts = {message.echo: message.text for sender in senders for message in sender.sent}
    numbers = {
        message.text: (sender.session, number)
        for sender in senders
        if sender.session
        for number, message in enumerate(sender.sent, 1)
    }
    moments = sorted(chance.choices(range(len(traced)), k=count))
    disk, sent, mended, looked_for = Disk(), b"", 0, 0
    echoed: set[bytes] = set()
    for number, call in enumerate(traced):
        disk.apply(call)
        sent += echoes(call)
        if moments and moments[0] == number:
            echoed |= _taken(sent, texts)
            sent = b""
        while moments and moments[0] == number:
            moments.pop(0)
            files = disk.after_cut(chance)
            told = _recover(disk, files, echoed, folder)
            mended += told.mended
            _check_numbers(told.numbers, files, [numbers[t] for t in echoed if t in numbers])
            looked_for += len(echoed)
    return mended, looked_for


def _taken(sent: bytes, texts: dict[bytes, bytes]) -> set[bytes]:
    """The messages whose whole echo is in this; a Sender's echoes are told apart by their names."""
    return {text for echo, text in texts.items() if echo in sent}


class Told(NamedTuple):
    """What a start made of what it found."""

    mended: bool
    numbers: dict[str, int]


def _check_numbers(
    told: dict[str, int], files: dict[str, bytes], echoed: list[tuple[str, int]]
) -> None:
    whole: dict[str, int] = {}
    for name in sorted(filter(is_day, files)):
        for found in records([files[name]]):
            if found.session:
                whole[found.session.decode()] = found.number
    assert told == whole, f"told {told}, but on the disk are {whole}"
    for session, number in echoed:
        assert told[session] >= number, "told less than what was echoed"


def _recover(disk: Disk, files: dict[str, bytes], echoed: set[bytes], folder: Path) -> Told:
    """Put the files there, open the archive as a start does, and check it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    day = max(filter(is_day, files), default="2026-03-01.log").removesuffix(".log")
    archive = Archive(str(folder), "always")
    archive.start(day)
    numbers = {session: number for (_, session), number in archive.sessions.all()}
    assert archive.commit([[NEW]], day) == 1
    archive.close()
    found = [
        text for name in filter(is_day, files) for text in read(disk.certain.get(name, b"")).texts
    ]
    kept = set(found)
    assert len(kept) == len(found), "archived twice"
    assert echoed <= kept, f"echoed and lost: {[*(echoed - kept)][:3]}"
    mended = False
    for name, before in files.items():
        if not is_day(name):
            continue
        after = (folder / name).read_bytes()
        assert after.startswith(before), "what was there has been changed"
        added = after[len(before) :].removesuffix(NEW)
        torn = b"\0" in before or not is_whole(before)
        assert added == (MARK if torn else b""), added
        mended |= bool(added)
    assert (folder / f"{day}.log").read_bytes().endswith(NEW)
    return Told(mended, numbers)
