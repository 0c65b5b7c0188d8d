"""All clients: who is let in, how long they may take, and how they leave."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from selectors import BaseSelector
from typing import TYPE_CHECKING

from msgd.process.log import Seldom
from msgd.server.addresses import Networks, Origin
from msgd.server.connection import BITE_FIRST, BITE_MOST, OUTPUT_BYTES, Connection
from msgd.server.hangups import HangUps
from msgd.server.timers import Alarm, Timeouts
from msgd.wire.events import Event
from msgd.wire.headers import BUSY, FAIL

if TYPE_CHECKING:
    from msgd.config.options import Config

log = logging.getLogger("msgd")

CLOSE_SECONDS = 5.0  # for a client to take what it is owed when the server wants to close
# For the verdict on the password of a client that has closed its side. It may be there still, and
# is answered then; or it is gone, which cannot be told apart, and must not keep its place for long.
HALF_CLOSED_SECONDS = 3.0
LINGER_SECONDS = 0.02  # between two looks whether a client has acknowledged all that was sent
# Output, and lines behind passwords, of all clients together. With more than this everybody is read
# from in small bites: what is read may be answered with twenty times as much.
HELD_BYTES = 64 << 20
_TURNED_AWAY = 64  # clients over the limit that may take their time to hear it


class Peers:
    """The connections, and what each turn of the loop does to them."""

    def __init__(
        self,
        selector: BaseSelector,
        alarm: Alarm,
        config: Config,
        give_up: Callable[[Connection], None],
    ) -> None:
        """``give_up`` is told of clients for whom no password need be verified any more."""
        self._selector = selector
        self._hang_ups = HangUps(selector, self._hung_up)
        self._give_up = give_up
        self._all: set[Connection] = set()
        self._turned_away: set[Connection] = set()
        self._active: dict[Connection, None] = {}  # to be settled in this turn
        self._resumable: dict[Connection, None] = {}  # to go on behind a password in the next turn
        self._lingering: dict[Connection, None] = {}  # shut, but not all of it acknowledged
        self._held = 0  # bytes of output, and of lines behind passwords, of all clients
        self.handshake: Timeouts[Connection] = Timeouts(0, alarm)
        self.idle: Timeouts[Connection] = Timeouts(0, alarm)
        self.quiet: Timeouts[Connection] = Timeouts(0, alarm)
        self.closing: Timeouts[Connection] = Timeouts(CLOSE_SECONDS, alarm)
        self.half_closed: Timeouts[Connection] = Timeouts(HALF_CLOSED_SECONDS, alarm)
        self._timeouts = (self.handshake, self.idle, self.quiet, self.closing, self.half_closed)
        self._alarm = alarm
        self.configure(config)
        self._refused = Seldom(logging.WARNING, "%s may not connect (allow)")
        self._unwatchable = Seldom(logging.ERROR, "%s: closed: it cannot be watched: %s")
        self._busy = Seldom(logging.WARNING, "limits.clients (%d) reached: turned %s away")

    def configure(self, config: Config) -> None:
        """Take over limits, time-outs and networks.

        Clients that are there stay, and keep their ``message_bytes``; time-outs are new for them,
        too.
        """
        self._limits, self._allow = config.limits, Networks(config.allow)
        self.handshake.set(config.limits.handshake_seconds)
        self.idle.set(config.limits.idle_seconds)
        self.quiet.set(config.limits.bare_quiet_ms / 1000)
        if config.limits.idle_seconds:
            now = time.monotonic()
            for peer in self._all:
                if peer not in self.idle and (peer.ended or not peer.closing):
                    self.idle.start(peer, now)

    def __len__(self) -> int:
        return len(self._all) - len(self._turned_away)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def admit(self, sock: socket.socket, origin: Origin, now: float) -> None:
        """Take a new connection, or refuse it."""
        if origin.host and self._allow and origin.host not in self._allow:
            self._refused(origin.text)
            sock.close()
            return
        if origin.host:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer = Connection(sock, origin.network, origin.text, self._limits.message_bytes)
        log.debug("%s: connected", origin.text)
        full = len(self) >= self._limits.clients
        self._all.add(peer)
        self._active[peer] = None
        if full:
            self._turn_away(peer, origin.text, now)
        self.handshake.start(peer, now)
        if self._limits.idle_seconds:
            self.idle.start(peer, now)

    def _turn_away(self, peer: Connection, origin: str, now: float) -> None:
        self._busy(self._limits.clients, origin)
        peer.queue(peer.protocol.reply(FAIL, BUSY).data)
        self.dismiss(peer, now)
        if len(self._turned_away) >= _TURNED_AWAY:  # what it is told may be lost in a reset
            peer.send()
            peer.broken = True
        self._turned_away.add(peer)

    def receive(self, peer: Connection, stamp: bytes, now: float) -> list[Event]:
        """Read once from a client; what came of it."""
        most = BITE_MOST if self._held < HELD_BYTES else BITE_FIRST
        events = peer.receive(most, stamp)
        peer.read_at = now
        if peer in self.handshake and peer.protocol.greeted:
            self.handshake.stop(peer)
        if peer.protocol.unfinished:
            self.quiet.start(peer, now)
        if peer in self.idle:
            self.idle.start(peer, now)
        self._active[peer] = None
        return events

    def activate(self, peer: Connection) -> None:
        """Have it settled in this turn."""
        self._active[peer] = None

    def dismiss(self, peer: Connection, now: float) -> None:
        """Close a client when it has taken what it is owed.

        One that has closed its own side may take its time, unless it is idle; any other is closed
        soon.
        """
        peer.closing = True
        if not peer.ended:
            self.idle.stop(peer)
            self.closing.start(peer, now)
        self._active[peer] = None

    def limit_input(self, peer: Connection) -> None:
        """The server is stopping: what arrives from now on is not taken any more."""
        peer.limit_input()
        self._active[peer] = None

    def expire(self, now: float) -> Iterator[Connection]:
        """Close those whose time is up; yields those whose bare message is complete."""
        for peer in [*self.handshake.expired(now), *self.idle.expired(now)]:
            if self._is_busy(peer):
                self.idle.start(peer, now)
                continue
            log.debug("%s: closed after a time-out", peer.name)
            if peer.closing:
                peer.broken = True
            self.dismiss(peer, now)
        for peer in self.half_closed.expired(now):
            self._give_up(peer)
        for peer in self.closing.expired(now):
            peer.broken = True
            self._active[peer] = None
        for peer in self.quiet.expired(now):
            self._active[peer] = None
            yield peer

    def _is_busy(self, peer: Connection) -> bool:
        """Whether it waits for us, or for its quiet while, or has enough to do with our output."""
        waits = peer.waiting or peer in self._resumable or peer.protocol.unfinished
        return waits or peer.takes_output()

    def resumable(self) -> Connection | None:
        """Who waits longest of those whose password is answered, and who take what they are owed.

        It is `activate`d again where it is to come again.
        """
        peer = next(iter(self._resumable), None)
        if peer is not None:
            del self._resumable[peer]
        return peer

    def next(self) -> float:
        """When `expire` and `resumable` are to be called."""
        return 0.0 if self._resumable else min(timeouts.next() for timeouts in self._timeouts)

    def settle(self) -> None:
        """Send what this turn owes to its clients; then watch each of them, or close it."""
        active, self._active = self._active, {}
        for peer in active | self._lingering:  # each once: after that it may be closed
            if peer.pending and not peer.broken:
                peer.send()
            if peer.broken:
                peer.discard()
            held = peer.pending
            if peer.holding:
                held += peer.bite  # behind its password there may be almost all of it
                if not peer.waiting and peer.pending <= OUTPUT_BYTES:
                    self._resumable[peer] = None
                    self._alarm.at(0)
            if held != peer.held:
                self._hold(peer, held)
            if peer.broken:
                self._close(peer)
            elif (peer.closing or peer.remaining is not None) and peer.is_done():
                self._finish(peer)
            if peer in self._all and (wanted := peer.wanted()) != peer.interest:
                self._watch(peer, wanted)

    def _hold(self, peer: Connection, size: int) -> None:
        """Account for what a client leaves in memory."""
        self._held += size - peer.held
        peer.held = size

    def _finish(self, peer: Connection) -> None:
        if not (peer.ended or peer.shut or peer.broken):
            peer.shut_down()
            self._lingering[peer] = None
        if peer.broken or peer.ended or peer.is_acknowledged():
            self._close(peer)
        else:
            self._alarm.at(time.monotonic() + LINGER_SECONDS)

    def _watch(self, peer: Connection, wanted: int) -> None:
        watched, peer.interest = peer.interest, 0
        try:
            if not wanted:
                self._selector.unregister(peer.socket)
                self._hang_ups.watch(peer)
            elif watched:
                self._selector.modify(peer.socket, wanted, peer)
            else:
                self._hang_ups.forget(peer)
                self._selector.register(peer.socket, wanted, peer)
            peer.interest = wanted
        except OSError as error:  # fs.epoll.max_user_watches, or no memory: see epoll_ctl(2)
            self._unwatchable(peer.name, error.strerror)
            peer.broken = True
            self._close(peer)

    def _hung_up(self, peer: Connection, gone: bool) -> None:
        if gone:
            peer.broken = True
            self._active[peer] = None
        else:
            self.half_closed.start(peer, time.monotonic())

    def _close(self, peer: Connection) -> None:
        """The only place where a client's descriptor is closed, once, at the end of a turn."""
        if peer not in self._all:
            return
        log.debug("%s: closed", peer.name)
        self._all.discard(peer)
        self._turned_away.discard(peer)
        self._lingering.pop(peer, None)
        self._resumable.pop(peer, None)
        for timeouts in self._timeouts:
            timeouts.stop(peer)
        self._hang_ups.forget(peer)
        if peer.interest:
            self._selector.unregister(peer.socket)
        peer.interest = 0
        self._hold(peer, 0)
        peer.socket.close()
        if peer.waiting:
            self._give_up(peer)

    def close(self) -> None:
        """Close all of them now."""
        for peer in self:
            self._close(peer)
        self._hang_ups.close()
