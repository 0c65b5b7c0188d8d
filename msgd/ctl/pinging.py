"""The verb ping: round-trip times, as ping(8) prints them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from math import sqrt
from time import monotonic, sleep

import click

from msgd.client.client import Client, MsgdError
from msgd.ctl.manners import INTERRUPTED, OK, UNAVAILABLE, complain
from msgd.ctl.retry import Retry


class Pinging:
    """One run of ping; `run` returns the exit status."""

    def __init__(self, connect: Callable[[], Client], retry: Retry, as_json: bool) -> None:
        self._connect = connect
        self._retry = retry
        self._json = as_json
        self._client: Client | None = None
        self._sent = 0
        self._times: list[float] = []  # milliseconds
        self._begin = monotonic()

    def run(self, number: int | None, interval: float) -> int:
        status = OK
        try:
            for sequence in count(1):
                self._ping(sequence)
                if sequence == number:
                    break
                sleep(interval)
        except MsgdError as error:
            complain(str(error))
            status = UNAVAILABLE
        except KeyboardInterrupt:
            status = OK if self._times else INTERRUPTED
        self._summary()
        return status

    def _ping(self, sequence: int) -> None:
        """One answer, over as many connections as that takes."""
        while True:
            try:
                client = self._connected()
                self._sent += 1
                milliseconds = client.ping() * 1000
                break
            except MsgdError as error:
                self._client = None
                self._retry.wait(error)
        self._retry.progress()
        self._times.append(milliseconds)
        self._show(client.address, sequence, milliseconds)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self._connect()
            if not self._sent and not self._json:
                click.echo(f"PING {self._client.address}")
        return self._client

    def _show(self, address: str, sequence: int, milliseconds: float) -> None:
        if self._json:
            self._print_json(seq=sequence, time_ms=round(milliseconds, 3))
        else:
            click.echo(f"PONG from {address}: seq={sequence} time={milliseconds:.3f} ms")

    def _summary(self) -> None:
        if not self._sent:
            return
        received = len(self._times)
        lost = 100 * (self._sent - received) / self._sent
        elapsed = 1000 * (monotonic() - self._begin)
        figures = _figures(self._times)
        if self._json:
            rounded = {f"{name}_ms": round(value, 3) for name, value in figures.items()}
            self._print_json(transmitted=self._sent, received=received, **rounded)
            return
        click.echo("\n--- msgd ping statistics ---")
        click.echo(
            f"{self._sent} packets transmitted, {received} received, {lost:.4g}% packet loss,"
            f" time {elapsed:.0f}ms"
        )
        if figures:
            values = "/".join(f"{value:.3f}" for value in figures.values())
            click.echo(f"rtt {'/'.join(figures)} = {values} ms")

    def _print_json(self, **fields: float) -> None:
        import json

        click.echo(json.dumps(fields))


def _figures(times: list[float]) -> dict[str, float]:
    if not times:
        return {}
    mean = sum(times) / len(times)
    deviation = sqrt(sum((time - mean) ** 2 for time in times) / len(times))
    return {"min": min(times), "avg": mean, "max": max(times), "mdev": deviation}
