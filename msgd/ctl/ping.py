"""The verb ping: round-trip times, as ping(8) prints them."""

from __future__ import annotations

import json
from itertools import count
from math import inf, sqrt
from time import monotonic, sleep

import click

from msgd.client import Client, MsgdError, NotConnected
from msgd.ctl import exits
from msgd.ctl.options import Seconds, common, json_option, retry_option
from msgd.ctl.retry import Retry
from msgd.ctl.settings import Server, server
from msgd.ctl.streams import complain, harmless, say

# Without an interval, what is refused at once would be asked for as fast as a processor can.
_PAUSE_AFTER_LOSS = 0.2  # seconds
_ANSWER_SECONDS = 0.05


@click.command("ping", params=common())
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="Stop after N requests.")
@click.option(
    "-i", "--interval", type=Seconds(), default=1.0, show_default=True, metavar="SECONDS",
    help="Wait so long between two.",
)  # fmt: skip
@click.option(
    "-w", "--deadline", type=Seconds(above_zero=True), metavar="SECONDS",
    help="Stop after so long, whatever was answered.",
)  # fmt: skip
@retry_option
@json_option
def command(
    count: int | None, interval: float, deadline: float | None, retry: float, as_json: bool
) -> int:
    """Measure the round-trip time to the server."""
    exits.end_like_interrupts()
    deadline = deadline or inf
    trying = Retry(min(retry, deadline), until=monotonic() + deadline)
    return Pinging(server(), trying, as_json).run(count, interval, deadline)


class Pinging:
    """One run of ping; `run` returns the exit status."""

    def __init__(self, where: Server, retry: Retry, as_json: bool) -> None:
        self._server = where
        self._timeout = where.timeout
        self._retry = retry
        self._json = as_json
        self._client: Client | None = None
        self._sent = 0
        self._times: list[float] = []  # milliseconds
        self._begin = monotonic()

    def run(self, number: int | None, interval: float, deadline: float) -> int:
        self._end = self._begin + deadline
        try:
            self._client = self._retry.connected(self._connect)
            if not self._json:
                say(f"PING {self._client.address}")
            self._ping_until(number, interval)
            status = exits.OK if len(self._times) == self._sent else exits.UNAVAILABLE
        except KeyboardInterrupt as error:
            status = self._stopped(error)
        self._summary()
        return status

    def _ping_until(self, number: int | None, interval: float) -> None:
        for sequence in count(1):
            pause = interval if self._ping(sequence) else max(interval, _PAUSE_AFTER_LOSS)
            if sequence == number:
                break
            sleep(max(0.0, min(pause, self._left())))
            if self._left() <= self._usual():
                break

    def _left(self) -> float:
        return self._end - monotonic()

    def _usual(self) -> float:
        """Seconds that an answer may well take: with less no request is sent, or it seems lost."""
        return max(_ANSWER_SECONDS, 2 * max(self._times, default=0.0) / 1000)

    def _patience(self) -> float:
        """How long a connection or an answer may take."""
        return max(0.001, min(self._timeout, round(self._left(), 3)))

    def _ping(self, sequence: int) -> bool:
        """One request; whether it was answered. Without an answer the next one is on its way."""
        try:
            client = self._connected()
            self._sent += 1
            client.timeout = self._patience()
            milliseconds = client.ping() * 1000
        except MsgdError as error:
            self._sent += isinstance(error, NotConnected)
            self._client = None
            self._show_loss(sequence, error)
            return False
        self._times.append(milliseconds)
        self._show(client.address, sequence, milliseconds)
        return True

    def _connected(self) -> Client:
        """The connection; where the server closed an idle one that is no loss, but a new one."""
        if self._client is None or self._client.closed_by_server():
            self._client = self._connect()
        return self._client

    def _connect(self) -> Client:
        self._server.timeout = self._patience()
        return self._server.connect()

    def _stopped(self, error: KeyboardInterrupt) -> int:
        if isinstance(error, exits.Ended) or not self._times:
            return exits.why_ended(error)[1]
        return exits.OK if len(self._times) >= self._sent - 1 else exits.UNAVAILABLE

    def _show(self, address: str, sequence: int, milliseconds: float) -> None:
        if self._json:
            self._say_json(seq=sequence, time_ms=round(milliseconds, 3))
        else:
            say(f"PONG from {address}: seq={sequence} time={milliseconds:.3f} ms")

    def _show_loss(self, sequence: int, error: MsgdError) -> None:
        if self._json:
            self._say_json(seq=sequence, error=harmless(str(error)))
        complain(f"seq={sequence}: {error}")

    def _summary(self) -> None:
        if not self._sent:
            return
        received = len(self._times)
        lost = 100 * (self._sent - received) / self._sent
        elapsed = 1000 * (monotonic() - self._begin)
        figures = _figures(self._times)
        if self._json:
            rounded = {f"{name}_ms": round(value, 3) for name, value in figures.items()}
            self._say_json(transmitted=self._sent, received=received, **rounded)
            return
        say(
            "\n--- msgd ping statistics ---\n"
            f"{self._sent} packets transmitted, {received} received, {lost:.4g}% packet loss,"
            f" time {elapsed:.0f}ms"
        )
        if figures:
            values = "/".join(f"{value:.3f}" for value in figures.values())
            say(f"rtt {'/'.join(figures)} = {values} ms")

    def _say_json(self, **fields: object) -> None:
        say(json.dumps(fields))


def _figures(times: list[float]) -> dict[str, float]:
    if not times:
        return {}
    mean = sum(times) / len(times)
    deviation = sqrt(sum((time - mean) ** 2 for time in times) / len(times))
    return {"min": min(times), "avg": mean, "max": max(times), "mdev": deviation}
