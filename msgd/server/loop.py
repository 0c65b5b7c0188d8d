"""The daemon's loop: the only place that knows both the clients and the archive.

One turn is the way of a message, in the lines of `Server._turn`: wait; look after signals and new
clients; take requests out of what a group of clients has sent; commit the records of all of them
together; echo; send, and close what is to be closed. Nothing to echo exists anywhere but behind a
commit.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from math import inf
from selectors import EVENT_READ, SelectorKey
from signal import SIGHUP, SIGINT, SIGTERM
from typing import TYPE_CHECKING, assert_never

from msgd.archive.archive import Archive
from msgd.archive.days import Clock
from msgd.archive.housekeeper import Housekeeper
from msgd.config.options import Config, ConfigError
from msgd.process import children, systemd
from msgd.process.limits import allow_descriptors
from msgd.process.log import Seldom
from msgd.process.signals import Signals
from msgd.server import alerts
from msgd.server.clients import Clients
from msgd.server.connection import Connection, Phase
from msgd.server.ending import Ending, say_what_is_left
from msgd.server.fairness import SYNCED, UNSYNCED, Fairness, Turn
from msgd.server.guard import Guard
from msgd.server.heartbeat import Status
from msgd.server.listeners import Listeners, bind, name_of
from msgd.server.sessions import Writers
from msgd.server.timers import Alarm
from msgd.wire.events import Answer, Close, Dropped, Event, Open, Records, Terminate
from msgd.wire.headers import FAIL, NOT_VERIFIED, NOT_WRITTEN, PWNO, PWOK, STOPPING

if TYPE_CHECKING:
    from msgd.server.addresses import Origin

log = logging.getLogger("msgd")

_PACES = {"always": SYNCED, "second": UNSYNCED, "never": UNSYNCED}


class Server:
    """Listens, archives and echoes, in one thread."""

    def __init__(self, config: Config, sockets: Sequence[socket.socket] = ()) -> None:
        """Lock the archive, listen (or take these listening sockets), and open the archive.

        Raises `Fatal`.
        """
        self._config = config
        self._alarm = Alarm()
        self._clock = Clock(config.time_zone)
        self._stamp, self._today = self._clock.stamp(), self._clock.today
        # Locked first: of a msgd that runs already this says more than that its port is taken.
        limits = config.limits
        self._archive = Archive(
            config.log_directory, config.sync, sessions=limits.sessions, keep_free=limits.keep_free
        )
        self._listeners = Listeners(list(sockets) or bind(config), self._alarm, self._admit)
        self._archive.start(self._today)
        self._guard: Guard[Connection] = Guard(config, self._alarm, _waits)
        self._housekeeper = Housekeeper(config.log_directory, self._archive.written)
        self._status = Status(self._alarm)
        self._figures = self._status.figures
        self._archive.synced = self._figures.sync_seconds.observe
        self._fairness = Fairness()
        self._pace = _PACES[config.sync]
        self._awake = False  # the last message came at once
        self._writers = Writers(self._archive.sessions)
        self._dropped = Seldom(logging.INFO, "%s: dropped an unfinished message of %d bytes")
        self._broken = Seldom(logging.WARNING, "%s: %s")
        self._too_large = Seldom(
            logging.ERROR, "%s: closed: there is no memory for what it has sent"
        )
        # One of each: those that are not verified for lack of time must not hide a wrong password.
        self._asked = {
            header: Seldom(logging.INFO, f"%s: asked to stop: {header.decode()}")
            for header in (PWOK, PWNO, FAIL)
        }
        self._owed: list[tuple[Connection, Records | Answer | Open]] = []
        self._now, self._day = time.monotonic(), ""
        self._ending = Ending(self._alarm)

    def filenos(self) -> list[int]:
        """The descriptors that becoming a daemon must not close."""
        return [*self._archive.filenos(), *self._listeners.filenos()]

    def run(self, reload: Callable[[], Config], signals: Signals) -> None:
        """Serve until asked to stop; raises `Fatal`. SIGHUP calls ``reload``."""
        self._load, self._signals = reload, signals
        self._config = _allowed(self._config)
        self._selector = selectors.DefaultSelector()
        self._clients = Clients(
            self._selector,
            self._alarm,
            self._fairness,
            self._writers,
            self._figures,
            self._config,
        )
        self._start()
        try:
            while self._clients or not self._ending.begun:
                self._turn()
                if self._ending.is_due(self._now, self._clients.take_output):
                    say_what_is_left(*self._clients.left())
                    break
        finally:
            self._guard.stop()
            self._clients.close()
            self._housekeeper.stop()
            self._selector.close()
        self._archive.close()
        self._status.write(self._config.metrics_file, self._config.log_directory, inf)
        log.info("stopped; %s", self._status)

    def _start(self) -> None:
        # A freed block of this size raises malloc's thresholds (mallopt(3)): buffers are then
        # taken from memory that is already there, without a page fault for every 4 KiB.
        block = bytearray(8 << 20)
        del block
        self._archive.lock.name_holder()
        self._selector.register(self._signals, EVENT_READ, self._take_signals)
        self._listeners.watch(self._selector)
        log.info("listening on %s", ", ".join(map(name_of, self._listeners.sockets)))
        systemd.notify("READY=1")

    def _turn(self) -> None:
        ready = self._wait()
        if self._now >= self._alarm.due:
            self._keep_time()
        clients = self._look_after(ready)
        turn = Turn(self._fairness, clients, self._pace, self._now)
        while turn.goes_on:
            self._take_group(turn)
            kept = self._commit()
            self._echo(kept)
            self._clients.settle()
        if self._config.metrics_file:
            self._figures.turn_seconds.observe(time.monotonic() - self._now)

    def _wait(self) -> list[tuple[SelectorKey, int]]:
        """Who is ready; nobody, when it is time for something else."""
        began, patience = time.monotonic(), self._pace.awake_seconds
        ready = self._look_awake(began) if self._awake else []
        ready = ready or self._selector.select(max(0.0, self._alarm.due - time.monotonic()))
        self._now, self._stamp = time.monotonic(), self._clock.stamp()
        self._awake = self._now - began < patience
        self._today = self._clock.today  # the day of all records of this turn
        if self._today < self._housekeeper.day:  # set back: it may be at this day's file
            self._housekeeper.stop()
            self._day = ""
        return ready

    def _look_awake(self, began: float) -> list[tuple[SelectorKey, int]]:
        """Who is ready soon: as long as one message follows the other, sleep does not pay."""
        until = min(began + self._pace.awake_seconds, self._alarm.due)
        while not (ready := self._selector.select(0)) and time.monotonic() < until:
            os.sched_yield()  # whoever is to come may need this very core
        return ready

    def _look_after(self, ready: list[tuple[SelectorKey, int]]) -> list[Connection]:
        """Signals and new clients at once; the clients that something is to be taken from."""
        clients = self._clients.resumable()
        writable: list[Connection] = []
        for key, events in ready:
            client = key.data
            if not isinstance(client, Connection):
                client()
            elif events & EVENT_READ:
                clients.append(client)
            else:
                writable.append(client)
        if writable:
            self._clients.send_more(writable)
        return clients

    def _take_group(self, turn: Turn) -> None:
        """Take what these clients have sent; each is charged for the work it causes."""
        most = self._clients.most()
        for client in turn.group():
            turn.made = self._take(client, most)

    def _take(self, client: Connection, most: int) -> int:
        """Up to this number of bytes; how many bytes of records and replies came of them."""
        try:
            made = self._note(client, client.take(most, self._stamp))
        except OSError as error:
            self._break_off(client, error)
            return 0
        except MemoryError:
            self._too_large(client.name)
            self._clients.break_off(client)
            return 0
        self._clients.heard(client, self._now)
        return made

    def _break_off(self, client: Connection, error: OSError) -> None:
        """The connection is broken; a line of the log says why, unless it was a mere reset."""
        if why := alerts.words(error):
            self._broken(client.name, why)
            self._figures.tls_failures.value += why.startswith("TLS")
        self._clients.break_off(client)

    def _note(self, client: Connection, events: list[Event]) -> int:
        """Note in order what the client is owed for what."""
        made = 0
        for event in events:
            match event:
                case Records():
                    self._owed.append((client, event))
                    made += sum(map(len, event.archive)) + sum(map(len, event.echoes))
                case Answer():
                    self._owed.append((client, event))
                    made += len(event.data)
                    if event.data.startswith(FAIL):
                        self._status.refuse(event.data)
                case Open():
                    client.opening = True
                    self._owed.append((client, event))
                case Terminate():
                    self._ask(client, event.password)
                case Dropped():
                    self._dropped(client.name, event.size)
                case Close():
                    if client.phase is not Phase.WAITING:  # else behind the verdict
                        self._clients.dismiss(client, self._now)
                case _:
                    assert_never(event)
        return made

    def _commit(self) -> int:
        """Write the records that echoes are owed for; how many events keep theirs, in order."""
        batch = [event.archive for _, event in self._owed if isinstance(event, Records)]
        began = time.monotonic()
        kept = self._archive.commit(batch, self._today)
        if batch and self._config.metrics_file:
            self._figures.commit_seconds.observe(time.monotonic() - began)
        return kept

    def _echo(self, kept: int) -> None:
        """Queue what is owed: echoes of what is kept, and FAIL for what is not.

        Sessions are opened behind all that was read before: their numbers are true then.
        """
        owed, self._owed = self._owed, []
        opening: list[tuple[Connection, Open]] = []
        messages = size = 0
        for client, event in owed:
            match event:
                case Records() if kept:
                    kept -= 1
                    messages += event.messages
                    size += sum(map(len, event.archive))
                    if event.last:
                        self._writers.note(client, event.last)
                    client.queue(*event.echoes)
                case Records():
                    self._status.refused += event.messages
                    self._figures.refused(NOT_WRITTEN, event.messages)
                    client.queue(client.protocol.refused(event.messages).data)
                case Answer():
                    client.queue(client.protocol.told(event).data)
                case Open():
                    opening.append((client, event))
        for client, event in opening:
            client.queue(self._writers.open(client, event).data)
        if owed:
            self._status.kept(messages, size)
            self._status.soon(self._now)
            if self._ending.begun:  # however slow the disk is, what had arrived is answered
                self._ending.give_time()

    def _keep_time(self) -> None:
        """What is due because time has passed."""
        self._clients.expire(self._now)
        for client, header in self._guard.step(self._now):
            self._answer(client, header)
        self._listeners.step(self._now)
        if self._now >= self._status.next():
            self._keep_house()
        self._alarm.due = min(
            self._clients.next(),
            self._guard.next(self._now),
            self._listeners.next(),
            self._status.next(),
            self._ending.at,
        )

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
        self._status.expires = self._clients.certificate_expires
        self._status.report(len(self._clients), self._archive.refusing, self._now)
        if self._housekeeper.running:  # what it says is read once a second
            self._status.soon(self._now)
        self._figures.connections.value = len(self._clients)
        self._figures.sessions.value = len(self._archive.sessions)
        self._figures.refusing.value = int(bool(self._archive.refusing))
        self._status.write(self._config.metrics_file, self._config.log_directory, self._now)

    def _admit(self, sock: socket.socket, origin: Origin) -> None:
        self._clients.admit(sock, origin, self._now)

    def _ask(self, client: Connection, password: bytes) -> None:
        """Have a password verified; nothing more is taken from the client before the verdict."""
        client.become(Phase.WAITING)
        if self._ending.begun:
            self._answer(client, FAIL)
        else:
            self._guard.ask(client.origin, client, password, self._now)

    def _answer(self, client: Connection, header: bytes) -> None:
        """Answer a TERM, unless the client is gone; what came behind it is taken up then.

        Where there is no password the answer is known, also to those that nobody verifies.
        """
        if client.phase is not Phase.WAITING:
            return
        if header == FAIL and self._guard.stored is None:
            header = PWNO
        reason = "" if header != FAIL else STOPPING if self._ending.begun else NOT_VERIFIED
        self._owed.append((client, client.protocol.reply(header, reason)))
        self._clients.activate(client)
        self._asked[header](client.name)
        self._figures.wrong_passwords.value += header == PWNO
        client.become(Phase.TALKING)
        if client.half_closed:
            self._clients.dismiss(client, self._now)
        if header == PWOK:
            self._stop(f"password accepted from {client.name}")

    def _take_signals(self) -> None:
        for number in self._signals.take():
            if number in (SIGTERM, SIGINT) and self._ending.begun:
                log.warning("stopping at once")
                self._ending.hurry()
            elif number in (SIGTERM, SIGINT):
                self._stop("SIGINT" if number == SIGINT else "SIGTERM")
            elif number == SIGHUP:
                if not self._ending.begun:  # it would tell systemd READY=1 behind STOPPING=1
                    self._reload()
            else:  # SIGCHLD: whichever child it was, its owner looks for itself
                children.reap_orphans()
                self._housekeeper.step(self._config.keep_days, self._config.compress)
                self._alarm.due = self._now

    def _stop(self, why: str) -> None:
        """Take what has arrived by now, answer it, and end."""
        if self._ending.begun:
            return
        log.info("stopping: %s", why)
        systemd.notify("STOPPING=1")
        self._ending.begin(self._now)
        self._listeners.close()
        self._clients.stop()
        self._clients.take_output()  # from here on
        for client in self._guard.stop():
            self._answer(client, FAIL)

    def _reload(self) -> None:
        """Read the configuration again; whatever goes wrong, the old one stays."""
        systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._configure(self._load())
        except ConfigError as error:
            log.error("%s; going on with the old configuration", error)
        except Exception as error:
            log.error(
                "the configuration cannot be read again: %s: %s; going on with the old one",
                type(error).__name__,
                error,
            )
        self._archive.reopen(self._today)
        systemd.notify("READY=1")

    def _configure(self, config: Config) -> None:
        for key in ("listen", "port", "log_directory"):
            if getattr(config, key) != getattr(self._config, key):
                log.warning("%s: a change needs a restart", key)
                config = config._replace(**{key: getattr(self._config, key)})
        clock = Clock(config.time_zone)
        config = _allowed(config)
        self._clients.configure(config)
        self._config, self._clock = config, clock
        self._guard.configure(config)
        self._archive.sync, self._pace = config.sync, _PACES[config.sync]
        self._archive.sessions.most = config.limits.sessions
        self._archive.room.keep_free = config.limits.keep_free
        self._housekeeper.wish(self._today)
        self._housekeeper.step(config.keep_days, config.compress)
        log.info("configuration read again")


def _allowed(config: Config) -> Config:
    """No more clients than descriptors: else those over TCP take the places kept for the socket."""
    clients = allow_descriptors(config.limits.clients)
    return config._replace(limits=config.limits._replace(clients=clients))


def _waits(client: Connection) -> bool:
    """Whether somebody is still there who waits for a verdict."""
    return client.phase is Phase.WAITING and not client.transport.is_gone()
