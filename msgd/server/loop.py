"""The daemon's loop: the only place that knows both the clients and the archive.

One turn is the way of a message: wait; read what is ready; take the requests out of the bytes;
commit the records of all clients together; queue the echoes; send; close what is to be closed.
Nothing to echo exists anywhere but behind a commit.
"""

from __future__ import annotations

import logging
import resource
import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from math import inf
from selectors import EVENT_READ
from signal import SIGHUP, SIGINT, SIGTERM

from msgd.archive.archive import Archive
from msgd.archive.days import DAY_BYTES, Clock
from msgd.archive.housekeeper import Housekeeper
from msgd.config.options import Config, ConfigError
from msgd.process import children, systemd
from msgd.process.log import Seldom
from msgd.process.signals import Signals
from msgd.server.addresses import Origin
from msgd.server.clients import Peers
from msgd.server.connection import BITE_LEAST, BITE_SECONDS, Connection
from msgd.server.fairness import SYNCED, UNSYNCED, Ready, Wait, order, rounds
from msgd.server.guard import Guard
from msgd.server.heartbeat import Status
from msgd.server.listeners import Listeners, bind, name_of
from msgd.server.timers import Alarm
from msgd.wire.events import Answer, Dropped, Event, Open, Records, Terminate
from msgd.wire.headers import FAIL, NOT_VERIFIED, PWNO, PWOK, STOPPING, UNKNOWN

log = logging.getLogger("msgd")

STOP_SECONDS = 5.0  # for all clients to take what they are owed when the server stops
# Beside the clients: files, listeners, children's pipes; and clients over the limit, until told so.
_SPARE_DESCRIPTORS = 256


class Server:
    """Listens, archives and echoes, in one thread."""

    def __init__(self, config: Config, sockets: Sequence[socket.socket] = ()) -> None:
        """Lock the archive, listen (or take these listening sockets), and open the archive.

        Raises `Fatal`.
        """
        self._config = config
        self._alarm = Alarm()
        self._clock = Clock(config.time_zone)
        # Locked first: of a msgd that runs already this says more than that its port is taken.
        self._archive = Archive(config.log_directory, config.sync)
        self._listeners = Listeners(list(sockets) or bind(config), self._alarm, self._admit)
        self.addresses = [name_of(sock) for sock in self._listeners.sockets]
        self._stamp = self._clock.stamp()
        self._archive.start(self._today)
        self._guard: Guard[Connection] = Guard(config.password_hash, self._alarm)
        self._housekeeper = Housekeeper(config.log_directory)
        self._status = Status(self._alarm)
        self._dropped = Seldom(logging.INFO, "%s: dropped an unfinished message of %d bytes")
        # One of each: those that are not verified for lack of time must not hide a wrong password.
        self._asked = {
            header: Seldom(logging.INFO, f"%s: asked to stop: {header.decode()}")
            for header in (PWOK, PWNO, FAIL)
        }
        self._owed: list[tuple[Connection, Records | Answer]] = []
        self._now, self._day = 0.0, ""
        self._stop_at = inf
        self._stopping = False

    def filenos(self) -> list[int]:
        """The descriptors that becoming a daemon must not close."""
        return [*self._archive.filenos(), *self._listeners.filenos()]

    def run(self, reload: Callable[[], Config], signals: Signals) -> None:
        """Serve until asked to stop; raises `Fatal`. SIGHUP calls ``reload``."""
        self._load, self._signals = reload, signals
        self._selector = selectors.DefaultSelector()
        self._wait = Wait(self._selector)
        self._peers = Peers(self._selector, self._alarm, self._config, self._give_up)
        self._start()
        try:
            while self._now < self._stop_at and (self._peers or not self._stopping):
                self._turn()
        finally:
            self._guard.stop()
            self._peers.close()
            self._housekeeper.stop()
            self._signals.close()
            self._selector.close()
        self._archive.close()
        log.info("stopped; %s", self._status)

    def _start(self) -> None:
        _raise_descriptor_limit(self._config.limits.clients)
        # A freed block of this size raises malloc's thresholds (mallopt(3)): buffers are then
        # taken from memory that is already there, without a page fault for every 4 KiB.
        block = bytearray(8 << 20)
        del block
        self._archive.lock.name_holder()
        self._selector.register(self._signals, EVENT_READ, self._take_signals)
        self._listeners.watch(self._selector)
        log.info("listening on %s", ", ".join(self.addresses))
        systemd.notify("READY=1")

    @property
    def _today(self) -> str:
        """The day of all records of this turn."""
        return self._stamp[:DAY_BYTES].decode()

    def _turn(self) -> None:
        ready = self._wait.until(self._alarm.due)
        self._now, self._stamp = time.monotonic(), self._clock.stamp()
        if self._today < self._housekeeper.day:  # set back: it may be at this day's file
            self._housekeeper.stop()
            self._day = ""
        pace = SYNCED if self._archive.sync == "always" else UNSYNCED
        light, heavy = order(self._readable(ready))
        self._serve(light, pace.commit_bytes, inf)
        if heavy:
            self._serve(rounds(heavy), pace.commit_bytes, pace.until(self._now, len(ready)))
        if self._now >= self._alarm.due:
            self._expire()
            self._commit()

    def _readable(self, ready: Ready) -> list[Connection]:
        """The clients to read from; the others that are ready are seen to."""
        readable = []
        for key, events in ready:
            peer = key.data
            if not isinstance(peer, Connection):
                peer()
            elif events & EVENT_READ:
                readable.append(peer)
            else:
                self._peers.activate(peer)
        return readable

    def _serve(self, peers: Iterable[Connection], commit_bytes: int, until: float) -> None:
        """Read once from each client, as long as there is time; commit in groups."""
        size = 0
        for peer in peers:
            self._take(peer, self._peers.receive(peer, self._stamp, self._now))
            size += peer.bite
            late = time.monotonic() >= until
            if late or size >= commit_bytes:
                self._commit()
                size = 0
            if late:
                return
        self._commit()

    def _take(self, peer: Connection, events: list[Event]) -> None:
        """Put the records into the batch, and note in order what the client is owed for what."""
        for event in events:
            if isinstance(event, Records):
                self._archive.append(event.archive)
                self._owed.append((peer, event))
            elif isinstance(event, Answer):
                self._owed.append((peer, event))
            elif isinstance(event, Terminate):
                self._ask(peer, event.password)
            elif isinstance(event, Open):  # the archive knows no sessions yet
                peer.holding = True
                self._owed.append((peer, peer.protocol.refuse_open(UNKNOWN)))
            elif isinstance(event, Dropped):
                self._dropped(peer.name, event.size)
            else:
                self._peers.dismiss(peer, self._now)

    def _expire(self) -> None:
        """What is due because time has passed, as of the moment at which this turn began.

        A client that was ready to be read then was not quiet, however long the turn took.
        """
        for peer in self._peers.expire(self._now):
            peer.form.at(self._stamp)
            self._take(peer, peer.protocol.quiet(peer.form))
        self._resume()
        self._step_guard()
        self._listeners.step(self._now)
        if self._now >= self._status.next():
            self._keep_house()
        self._alarm.due = min(
            self._peers.next(),
            self._guard.next(self._now),
            self._listeners.next(),
            self._status.next(),
            self._stop_at,
        )

    def _commit(self) -> None:
        """Write the batch; only then are the echoes owed, and FAIL for what is not in it."""
        owed, self._owed = self._owed, []
        kept = self._archive.commit(self._today)
        for peer, event in owed:
            if isinstance(event, Answer):
                peer.queue(event.data)
            elif kept:
                kept -= 1
                peer.queue(event.echo)
                self._status.archived += event.messages
            else:
                peer.queue(peer.protocol.refused(event.messages).data)
                self._status.refused += event.messages
            self._peers.activate(peer)
        self._peers.settle()
        if owed:
            self._status.soon(self._now)

    def _keep_house(self) -> None:
        """Once a second while something happens, and now and then while nothing does."""
        self._archive.roll(self._today)
        self._archive.settle()
        if self._archive.sync == "second":
            self._archive.flush()
        if self._day != self._today:
            self._day = self._today
            self._status.new_day()
            self._housekeeper.wish(self._day)
        self._housekeeper.step(self._config.keep_days, self._config.compress)
        self._status.report(len(self._peers), self._archive.refusing, self._now)

    def _admit(self, sock: socket.socket, origin: Origin) -> None:
        self._peers.admit(sock, origin, self._now)

    def _ask(self, peer: Connection, password: bytes) -> None:
        """Have it verified; or say at once that it is not."""
        peer.holding = True
        if self._stopping or peer.given_up:
            self._answer_password(peer, FAIL)
        else:
            peer.waiting = True
            self._guard.ask(peer.address, peer, password, self._now)

    def _resume(self) -> None:
        """Go on behind passwords, for as long as one bite may take: who comes too late is first
        in the next turn.

        There may be thousands of lines behind one, and of passwords that are not verified.
        """
        end = time.monotonic() + BITE_SECONDS
        while time.monotonic() < end and (peer := self._peers.resumable()) is not None:
            while peer.holding and not peer.waiting and time.monotonic() < end:
                peer.form.at(self._stamp)
                events = peer.protocol.resume(peer.form, BITE_LEAST)
                peer.holding = peer.protocol.paused
                self._take(peer, events)
            self._peers.activate(peer)

    def _give_up(self, peer: Connection) -> None:
        """It is gone, or may be: no password of its takes the place of another's any more."""
        peer.given_up = True
        if self._guard.leave(peer.address, peer):
            self._answer_password(peer, FAIL)

    def _step_guard(self) -> None:
        for peer, header in self._guard.step(self._now):
            self._answer_password(peer, header)

    def _answer_password(self, peer: Connection, header: bytes) -> None:
        """Answer a TERM; what came behind it is taken up in the next turn.

        Where there is no password the answer is known, also to those that nobody verifies.
        """
        if header == FAIL and self._guard.stored is None:
            header = PWNO
        reason = "" if header != FAIL else STOPPING if self._stopping else NOT_VERIFIED
        self._owed.append((peer, peer.protocol.reply(header, reason)))
        self._asked[header](peer.name)
        peer.waiting = False
        if header == PWOK:
            self._stop(f"password accepted from {peer.name}")
        self._alarm.at(self._now)

    def _take_signals(self) -> None:
        for number in self._signals.take():
            if number in (SIGTERM, SIGINT) and self._stopping:
                log.warning("stopping at once")
                self._stop_at = self._alarm.due = self._now
            elif number in (SIGTERM, SIGINT):
                self._stop("SIGINT" if number == SIGINT else "SIGTERM")
            elif number == SIGHUP:
                self._reload()
            else:  # SIGCHLD: whichever child it was, its owner looks for itself
                children.reap_orphans()
                self._housekeeper.step(self._config.keep_days, self._config.compress)
                self._alarm.due = self._now

    def _stop(self, why: str) -> None:
        """Take what has arrived by now, answer it, and end."""
        if self._stopping:
            return
        log.info("stopping: %s", why)
        systemd.notify("STOPPING=1")
        self._stopping = True
        self._stop_at = self._now + STOP_SECONDS
        self._alarm.at(self._stop_at)
        self._listeners.close()
        for peer in self._peers:
            self._peers.limit_input(peer)
        for peer in self._guard.stop():
            self._answer_password(peer, FAIL)

    def _reload(self) -> None:
        """Read the configuration again; a broken one changes nothing."""
        systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._configure(self._load())
        except ConfigError as error:
            log.error("%s; going on with the old configuration", error)
        self._archive.reopen(self._today)
        systemd.notify("READY=1")

    def _configure(self, config: Config) -> None:
        for key in ("listen", "port", "log_directory"):
            if getattr(config, key) != getattr(self._config, key):
                log.warning("%s: a change needs a restart", key)
                config = config._replace(**{key: getattr(self._config, key)})
        self._config = config
        self._clock = Clock(config.time_zone)
        self._guard.stored = config.password_hash
        self._archive.sync = config.sync
        self._peers.configure(config)
        _raise_descriptor_limit(config.limits.clients)
        self._housekeeper.wish(self._today)
        self._housekeeper.step(config.keep_days, config.compress)
        log.info("configuration read again")


def _raise_descriptor_limit(clients: int) -> None:
    """Each client takes a descriptor; the soft limit is low for the sake of select(2) only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = clients + _SPARE_DESCRIPTORS
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    if hard < needed:
        log.warning(
            "limits.clients: %d need %d descriptors, but the limit (ulimit -Hn) is %d",
            clients,
            needed,
            hard,
        )
