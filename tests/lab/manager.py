"""The service manager's side of sd_notify(3): it hears each beat of the daemon's loop."""

from __future__ import annotations

import socket
from pathlib import Path

SECONDS = 60.0


class Manager:
    """Listens where a daemon that is started with `env` reports."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._socket.settimeout(SECONDS)

    def env(self) -> dict[str, str]:
        """A watchdog of 0.3 seconds: then a beat comes every 0.1 seconds."""
        return {"NOTIFY_SOCKET": str(self._path), "WATCHDOG_USEC": "300000"}

    def wait_beats(self, count: int) -> None:
        """Wait for so many from now on."""
        self.forget()
        while count:
            count -= self._socket.recv(4096) == b"WATCHDOG=1"

    def forget(self) -> None:
        """Read what was said so far: a full queue takes no more, and nobody waits for it."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(4096):
                pass
        except BlockingIOError:
            self._socket.settimeout(SECONDS)

    def wait_for(self, *messages: str) -> None:
        """Wait until each of these was said, in whatever order."""
        missing = {message.encode() for message in messages}
        while missing:
            missing.discard(self._socket.recv(4096))

    def close(self) -> None:
        self._socket.close()
