"""msgd-relay beside raw publishing by the same library, to the same nats-server."""

from __future__ import annotations

from dataclasses import dataclass

from .pairs import Figures
from .stand import Stand
from .tools import NotInstalledError

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Shipped:
    """Megabytes a second into a new stream, in blocks of one size, each behind the last one's
    acknowledgement."""

    raw: bool
    size: int = 128 * MIB

    def __call__(self, stand: Stand) -> Figures:
        """Raises NotInstalledError without nats-py or nats-server."""
        try:
            import nats  # noqa: F401

            from tests.campaign import relay_speed
            from tests.lab.nats import NatsServer, find_server, free_ports
        except ImportError as error:
            raise NotInstalledError(str(error)) from None
        if find_server() is None:
            raise NotInstalledError("nats-server is not installed")
        with stand.fresh() as directory:
            data = relay_speed.grow(directory / "archive", stand.scaled(self.size, 4 * MIB))
            server = NatsServer(directory / "nats", free_ports(1)[0])
            server.start()
            try:
                relay_speed.new_stream(server.url)
                if self.raw:
                    rate = relay_speed.publish_raw(server.url, data)
                else:
                    rate = relay_speed.ship_all(directory, server.url, len(data))
            finally:
                server.kill()
        return {"MB/s": rate}
