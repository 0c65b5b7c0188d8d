"""`msgctl send --session`, run again until it succeeds: each line is archived once, and in order.

Meanwhile msgd is killed, and msgctl, and the connection between them is cut at any byte, in
either direction. What breaks, and when, is drawn by chance.
"""

from __future__ import annotations

import random
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgd.archive.reader import read_days
from msgd.wire.text import escape
from tests.ctl import command, environment
from tests.lab.daemon import Daemon
from tests.lab.waiting import SECONDS

_STATUSES = {0, 69, -9}  # all is there; no connection, or lost; killed
Begin = Callable[..., Daemon]


class Outcome:
    """What a campaign has seen; every input was checked, or it would have ended."""

    def __init__(self) -> None:
        self.inputs = self.lines = self.runs = self.daemons = self.clients = self.cuts = 0

    @property
    def breaks(self) -> int:
        return self.daemons + self.clients + self.cuts

    def __str__(self) -> str:
        return (
            f"{self.inputs} inputs, {self.lines} lines archived once and in order, in {self.runs}"
            f" runs; killed: msgd {self.daemons} times, msgctl {self.clients};"
            f" {self.cuts} connections cut"
        )


def campaign(
    begin: Begin,
    folder: Path,
    again: Callable[[Outcome], bool],
    seed: int,
    lines: int,
    longest: float = 0.15,
) -> Outcome:
    """One input after the other, of up to so many lines, as long as ``again`` says.

    A run is broken within ``longest`` seconds of its first progress, mostly.
    """
    chance, outcome = random.Random(seed), Outcome()
    folder.mkdir(exist_ok=True)
    while again(outcome):
        _Input(begin, folder, chance, outcome, lines, longest).archive()
        outcome.inputs += 1
    return outcome


class _Input:
    """A file, and all that it takes until msgctl says that it is archived."""

    def __init__(
        self,
        begin: Begin,
        folder: Path,
        chance: random.Random,
        outcome: Outcome,
        lines: int,
        longest: float,
    ) -> None:
        self._longest = longest
        self._begin, self._folder, self._chance, self._outcome = begin, folder, chance, outcome
        self._name = f"input-{outcome.inputs}"
        self._file = folder / self._name
        count = chance.randint(lines // 2, lines)
        self._lines = [_line(self._name, number, chance) for number in range(count)]
        self._file.write_bytes(b"".join(line + b"\n" for line in self._lines))
        self._sync = chance.choice(["always", "never"])

    def archive(self) -> None:
        msgd = self._start()
        with _Cutter(self._folder / "cut.sock", self._folder / "msgd.sock") as cutter:
            while True:
                process = self._run(cutter)
                what = self._break(msgd, process)
                if what == "msgd":
                    msgd.kill()
                    msgd = self._start()
                errors = process.communicate(timeout=SECONDS * 5)[1]
                status = process.returncode
                assert status in _STATUSES, errors
                assert b"Traceback" not in errors, errors
                if status == 0:
                    break
            self._outcome.cuts += cutter.cuts
        msgd.stop()
        self._check(msgd)

    def _start(self) -> Daemon:
        config = f"listen: [127.0.0.1, {self._folder}/msgd.sock]\nsync: {self._sync}\n"
        return self._begin(config, folder=self._folder)

    def _run(self, cutter: _Cutter) -> subprocess.Popen[bytes]:
        cutter.budget = self._chance.choice([None, None, self._chance.randint(1, 1 << 20)])
        retry = self._chance.choice([[], ["--retry", "60"]])
        words = ["send", "--session", self._name, *retry, "-f", self._file, "-H", cutter.path]
        self._outcome.runs += 1
        return subprocess.Popen(
            command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()
        )

    def _break(self, msgd: Daemon, process: subprocess.Popen[bytes]) -> str:
        """Wait until something is archived, mostly, and a moment; then break something."""
        size = len(msgd.archive())
        patience = time.monotonic() + self._chance.choice([0.2, SECONDS, SECONDS])
        while process.poll() is None and time.monotonic() < patience:
            if _size(msgd) != size:
                break
            time.sleep(0.001)
        time.sleep(self._chance.uniform(0, self._longest))  # the moment is what is random here
        what = self._chance.choice(["msgd", "msgd", "msgctl", "msgctl", "neither"])
        if process.poll() is not None:
            return "neither"
        self._outcome.daemons += what == "msgd"
        self._outcome.clients += what == "msgctl"
        if what == "msgctl":
            process.kill()
        return what

    def _check(self, msgd: Daemon) -> None:
        found = [
            (record.number, record.text)
            for record in read_days(msgd.log_directory)
            if record.session == self._name.encode()
        ]
        numbers = [number for number, _ in found]
        assert numbers == list(range(1, len(self._lines) + 1)), _odd(numbers)
        assert [text for _, text in found] == [escape(line) for line in self._lines]
        self._outcome.lines += len(found)
        self._file.unlink()


def _line(name: str, number: int, chance: random.Random) -> bytes:
    kind = chance.random()
    text = b"%s %d " % (name.encode(), number)
    if kind < 0.05:
        return text + b"\x1b[1m \xff \xc2\x9b"
    return text + b"x" * (chance.randint(1, 3000) if kind < 0.1 else 40)


def _size(msgd: Daemon) -> int:
    return sum(path.stat().st_size for path in msgd.files())


def _odd(numbers: list[int]) -> str:
    for expected, number in enumerate(numbers, 1):
        if number != expected:
            return f"number {number} stands where {expected} should"
    return f"it ends with {numbers[-1:]}"


class _Cutter:
    """A proxy on a socket in the file system; it cuts a connection after `budget` bytes."""

    def __init__(self, path: Path, behind: Path) -> None:
        self.path = path
        self.budget: int | None = None  # counted in one direction, that of the first byte in turn
        self.cuts = 0
        self._behind = behind
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> _Cutter:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                client = self._listener.accept()[0]
                with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
                    server.connect(str(self._behind))  # one of the two may be dead
                    self._join(client, server)

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        """Each direction has a thread: else the two ends could wait for each other's reading."""
        budget, self.budget = self.budget, None
        first, second = random.Random(budget).sample([client, server], 2)
        other = threading.Thread(target=self._pump, args=(second, first, None))
        other.start()
        self._pump(first, second, budget)
        other.join()

    def _pump(self, source: socket.socket, sink: socket.socket, budget: int | None) -> None:
        try:
            while data := source.recv(1 << 16):
                if budget is not None:
                    if len(data) >= budget:
                        sink.sendall(data[:budget])
                        self.cuts += 1
                        break
                    budget -= len(data)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
