"""All clients: who is let in, how long they may take, how much memory, and how they leave."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from itertools import islice
from selectors import BaseSelector
from typing import TYPE_CHECKING

from msgd.process.log import Seldom
from msgd.server.admission import Admission
from msgd.server.connection import OUTPUT_BYTES, Connection, Phase
from msgd.server.fairness import BITE_FIRST, BITE_MOST, Fairness
from msgd.server.timers import Alarm, Timeouts
from msgd.server.transport import Plain
from msgd.wire.headers import BUSY, FAIL

if TYPE_CHECKING:
    from msgd.config.options import Config
    from msgd.server.addresses import Origin
    from msgd.server.figures import Figures
    from msgd.server.sessions import Writers

log = logging.getLogger("msgd")

CLOSE_SECONDS = 5.0  # for a client to take what it is owed when the server wants to close
LINGER_SECONDS = 0.02  # between two looks whether a client has acknowledged all that was sent
# Output and unfinished input of all clients together. With more than the first everybody is read
# from in small bites; with more than the second those who hold most are closed.
HELD_BYTES, HELD_MOST = 64 << 20, 256 << 20
# What the kernel keeps for a client that we do not read from, and for one that does not read.
# setsockopt(2) doubles it (socket(7)). With less of the first, one that pushes costs us more: 64,
# 128 and 256 KiB took 400, 350 and 350 ns of our time a message, no bound 325.
KERNEL_RECEIVES, KERNEL_SENDS = 128 << 10, 64 << 10
# A few of those who have pushed much that was cheap get more, each way, up to what the system
# allows (net.core.rmem_max).
WIDE_BYTES, WIDE_CLIENTS = 1 << 20, 64
# What one turn does of what may be due for all clients at once: up to 100 time-outs, and 100 who
# can take more of what they are owed. The others follow in the next turns.
_AT_ONCE = 100
_TURNED_AWAY = 64  # clients over the limit that may take their time to hear it


class Clients:
    """The connections, and what each turn of the loop does to them."""

    def __init__(
        self,
        selector: BaseSelector,
        alarm: Alarm,
        fairness: Fairness,
        writers: Writers,
        figures: Figures,
        config: Config,
    ) -> None:
        self._selector = selector
        self._alarm = alarm
        self._fairness = fairness
        self._writers = writers
        self._figures = figures
        self._admission = Admission(config)
        self._all: set[Connection] = set()
        self._turned_away: set[Connection] = set()
        self._wide: set[Connection] = set()  # their kernel buffers are large
        self._active: dict[Connection, None] = {}  # to be settled in this turn
        self._resumable: dict[Connection, None] = {}  # there is more in what was read from them
        self._stopping = False
        self._held = 0  # bytes of output and of unfinished input, of all clients
        self._handshake: Timeouts[Connection] = Timeouts(0, alarm)
        self._idle: Timeouts[Connection] = Timeouts(0, alarm)
        self._quiet: Timeouts[Connection] = Timeouts(0, alarm)
        self._closing: Timeouts[Connection] = Timeouts(CLOSE_SECONDS, alarm)
        self._lingering: Timeouts[Connection] = Timeouts(LINGER_SECONDS, alarm)
        self._timeouts = (
            self._handshake,
            self._idle,
            self._quiet,
            self._closing,
            self._lingering,  # shut, but not all of it acknowledged
        )
        self._unwatchable = Seldom(logging.ERROR, "%s: closed: it cannot be watched: %s")
        self._too_much = Seldom(logging.WARNING, "%s: closed: it held %d bytes of memory")
        self._set_limits(config)

    @property
    def certificate_expires(self) -> float:
        """The server's certificate: seconds of the epoch, infinity without one."""
        return self._admission.expires

    def configure(self, config: Config) -> None:
        """Take over limits, time-outs, networks and certificates.

        Clients that are there stay, and keep their ``message_bytes``; time-outs are new for them,
        too.
        """
        self._admission.configure(config)
        self._set_limits(config)
        if config.limits.idle_seconds:
            now = time.monotonic()
            for client in self._all:
                if client not in self._idle and (client.half_closed or client.is_talking()):
                    self._idle.start(client, now)

    def _set_limits(self, config: Config) -> None:
        self._idles = config.limits.idle_seconds > 0
        self._handshake.set(config.limits.handshake_seconds)
        self._idle.set(config.limits.idle_seconds)
        self._quiet.set(config.limits.bare_quiet_ms / 1000)

    def __len__(self) -> int:
        return len(self._all) - len(self._turned_away)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def admit(self, sock: socket.socket, origin: Origin, now: float) -> None:
        """Take a new connection, or refuse it."""
        if not self._admission.allows(origin):
            sock.close()
            self._figures.turned_away.value += 1
            return
        if origin.host:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_RECEIVES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_SENDS)
        client = Connection(
            Plain(sock), origin, self._admission.protocol(), self._admission.entry(origin)
        )
        log.debug("%s: connected", origin.text)
        has_place = self._admission.has_place(origin, len(self))
        self._figures.accepted.value += 1
        self._all.add(client)
        self._admission.enter(origin)
        self._fairness.welcome(client.share)
        self._active[client] = None
        self._handshake.start(client, now)
        if self._idles:
            self._idle.start(client, now)
        if not has_place:
            self._turn_away(client, now)

    def _turn_away(self, client: Connection, now: float) -> None:
        self._figures.turned_away.value += 1
        client.queue(client.protocol.reply(FAIL, BUSY).data)
        self.dismiss(client, now)
        if len(self._turned_away) >= _TURNED_AWAY:  # what it is told may be lost in a reset
            self._send(client)
            client.break_off()
        self._turned_away.add(client)

    def resumable(self) -> list[Connection]:
        """Those of whom there is more in what was read before."""
        return list(self._resumable)

    def most(self) -> int:
        """Bytes that may be read at once: what is read may be answered with ten times as much."""
        return BITE_MOST if self._held < HELD_BYTES else BITE_FIRST

    def heard(self, client: Connection, now: float) -> None:
        """Something was taken from this client: its time-outs begin again.

        One that an earlier group of this turn has closed has none.
        """
        if client.phase is Phase.GONE:
            return
        if client.protocol.unfinished:
            self._quiet.start(client, now)
        if self._idles and client in self._idle:
            self._idle.start(client, now)
        if client.share.bite == BITE_MOST and client not in self._wide:
            self._widen(client)
        self._active[client] = None

    def _widen(self, client: Connection) -> None:
        if len(self._wide) < WIDE_CLIENTS:
            self._wide.add(client)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                client.transport.socket.setsockopt(socket.SOL_SOCKET, option, WIDE_BYTES)

    def activate(self, client: Connection) -> None:
        """Have it settled in this turn."""
        self._active[client] = None

    def send_more(self, clients: list[Connection]) -> None:
        """These can take more of what they are owed: some of them do, in this turn.

        The selector names the others again. Chance decides, so that none is left behind.
        """
        if len(clients) > _AT_ONCE:
            from random import sample  # 1 to 2 ms of each start

            clients = sample(clients, _AT_ONCE)
        self._active.update(dict.fromkeys(clients))

    def dismiss(self, client: Connection, now: float) -> None:
        """Close a client when it has taken what it is owed.

        One that has closed its own side may take its time, unless it is idle; any other is closed
        soon.
        """
        client.leave()
        if not client.half_closed:
            self._idle.stop(client)
            self._closing.start(client, now)
            client.takes_output()  # from here on it is to take something
        self._active[client] = None

    def break_off(self, client: Connection) -> None:
        """Close a client with which nothing works any more, when the turn ends."""
        client.break_off()
        self._active[client] = None

    def stop(self) -> None:
        """The server is stopping: what arrives from now on is not taken any more."""
        self._stopping = True
        for client in self._all:
            client.transport.limit()
            self._active[client] = None

    def expire(self, now: float) -> None:
        """Close those whose time is up; note those whose bare message is complete.

        Time that we have taken ourselves is not theirs: of whom something is there to be read is
        neither idle nor quiet, however late we look.
        """
        late = [c for c in _some(self._handshake, now) if c.phase is Phase.GREETING]
        for client in [*late, *_some(self._idle, now)]:
            if self._is_busy(client):
                again = self._handshake if client.phase is Phase.GREETING else self._idle
                again.start(client, now)
            elif client.is_talking():
                log.debug("%s: closed after a time-out", client.name)
                self.dismiss(client, now)
            else:
                self.break_off(client)
        for client in _some(self._closing, now):
            if client.takes_output():  # slowly, but it does
                self._closing.start(client, now)
            else:
                self.break_off(client)
        for client in _some(self._quiet, now):
            client.quiet = True
            self._resumable[client] = None
        for client in _some(self._lingering, now):
            self._active[client] = None

    def _is_busy(self, client: Connection) -> bool:
        """Whether it waits for us, or for its quiet while, or has enough to do with our output."""
        if client.phase is Phase.WAITING or client.takes_output():
            return True
        if client.pending > OUTPUT_BYTES:  # whatever of it waits for us, it does not read
            return False
        reads = client.wants_read() and client.is_talking() and client.transport.unread() > 0
        return reads or client.protocol.paused or client.protocol.unfinished

    def next(self) -> float:
        """When `expire` is to be called, or the `resumable` to be gone on with."""
        return 0.0 if self._resumable else min(timeouts.next() for timeouts in self._timeouts)

    def settle(self) -> None:
        """Send what this turn owes to its clients; then watch each of them, or close it."""
        active, self._active = self._active, {}
        for client in active:  # each once: after that it may be closed
            if client.output_waits():
                self._send(client)
            held = client.memory()
            if held != client.held:
                self._held += held - client.held
                client.held = held
            if self._stopping and client.is_done():
                client.leave()
            if client.is_talking() or not self._let_go(client):
                self._watch(client)
        if self._held > HELD_MOST:
            self._make_room()

    def _let_go(self, client: Connection) -> bool:
        """Bring a client that is leaving as far as it goes; whether it is gone."""
        if client.phase is Phase.LEAVING and not client.output_waits():
            self._finish(client)
        elif client.phase is Phase.SHUT:
            self._look_whether_acknowledged(client)
        if client.phase is Phase.BROKEN:
            self._close(client)
        return client.phase is Phase.GONE

    def _send(self, client: Connection) -> None:
        try:
            client.send()
        except (OSError, MemoryError):  # many small pieces are joined, and text is encrypted
            client.break_off()

    def _make_room(self) -> None:
        """Close those who hold most, until the bound on memory holds with some room."""
        for client in sorted(self._all, key=lambda client: -client.held):
            if self._held <= HELD_MOST // 32 * 31:
                break
            self._too_much(client.name, client.held)
            client.break_off()
            self._close(client)

    def _finish(self, client: Connection) -> None:
        """It has all that it was owed: close our side, and wait until that has arrived."""
        try:
            client.transport.shut_down()
        except OSError:
            client.break_off()
            return
        client.become(Phase.SHUT)
        if client.half_closed:  # it need not be in a hurry before, but now all is on its way
            self._closing.start(client, time.monotonic())
        self._look_whether_acknowledged(client)

    def _look_whether_acknowledged(self, client: Connection) -> None:
        """Where nothing is unread behind the end, as may be in TLS, a close resets nothing."""
        whole = client.half_closed and not client.transport.unread()
        if whole or client.transport.unacknowledged() == 0:
            self._close(client)
        else:
            self._lingering.start(client, time.monotonic())

    def _watch(self, client: Connection) -> None:
        if client.can_resume():
            self._resumable[client] = None
            self._alarm.at(0.0)
        elif self._resumable:
            self._resumable.pop(client, None)
        wanted, watched = client.wanted(), client.interest
        if wanted == watched:
            return
        try:
            if not wanted:
                self._selector.unregister(client.transport.socket)
            elif watched:
                self._selector.modify(client.transport.socket, wanted, client)
            else:
                self._selector.register(client.transport.socket, wanted, client)
            client.interest = wanted
        except OSError as error:  # fs.epoll.max_user_watches, or no memory: see epoll_ctl(2)
            client.interest = 0
            self._unwatchable(client.name, error.strerror)
            client.break_off()
            self._close(client)

    def _close(self, client: Connection) -> None:
        """The only place where a client's descriptor is closed, once, at the end of a turn."""
        log.debug("%s: closed", client.name)
        client.become(Phase.GONE)
        self._all.discard(client)
        self._turned_away.discard(client)
        self._wide.discard(client)
        self._active.pop(client, None)
        self._resumable.pop(client, None)
        for timeouts in self._timeouts:
            timeouts.stop(client)
        if client.interest:
            self._selector.unregister(client.transport.socket)
        self._held -= client.held
        client.held = client.interest = 0
        client.share.pushes = False  # later groups of this turn ask it for nothing
        self._admission.leave(client.origin)
        self._writers.leave(client)
        client.transport.close()

    def take_output(self) -> bool:
        """Whether any of them has taken some of what it is owed since this was asked before."""
        taking = [client for client in self._all if client.takes_output()]  # each is asked
        return bool(taking)

    def left(self) -> tuple[int, int, int]:
        """How many are there; bytes of theirs that were not taken, and of ours not sent."""
        unread = sum(c.transport.remaining or 0 for c in self._all if c.is_talking())
        return len(self._all), unread, sum(c.pending + c.transport.pending for c in self._all)

    def close(self) -> None:
        """Close all of them now."""
        for client in self:
            client.break_off()
            self._close(client)


def _some(timeouts: Timeouts[Connection], now: float) -> Iterator[Connection]:
    """Those whose time has passed, as many as one turn bears."""
    return islice(timeouts.expired(now), _AT_ONCE)
