"""The service manager's side of sd_notify(3): it hears each beat of the daemon's loop."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from tests.lab.waiting import wait_for


class Manager:
    """Listens where a daemon that is started with `env` reports.

    All the time: the kernel queues ten messages, and what comes on top of them is lost.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notify"
        self._said: list[str] = []
        self._forgotten = 0  # this many of them
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self._said.append(message.decode())

    def env(self) -> dict[str, str]:
        """A watchdog of 0.3 seconds: then a beat comes every 0.1 seconds."""
        return {"NOTIFY_SOCKET": str(self._path), "WATCHDOG_USEC": "300000"}

    def wait_beats(self, count: int) -> None:
        """Wait for so many from now on."""
        self.forget()
        wait_for(lambda: self._said[self._forgotten :].count("WATCHDOG=1") >= count, "beats")

    def forget(self) -> None:
        """What was said so far."""
        self._forgotten = len(self._said)

    def wait_for(self, *messages: str) -> None:
        """Wait until each of these was said, in whatever order."""
        wait_for(lambda: set(messages) <= {*self._said[self._forgotten :]}, " ".join(messages))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()
