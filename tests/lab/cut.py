"""A network that can be cut: a forwarder on loopback, between a client and a server."""

from __future__ import annotations

import random
import selectors
import socket
import threading
from contextlib import suppress

_HELD = 1 << 20  # bytes on the way to somebody who does not take them


class Network(threading.Thread):
    """Forwards connections to a port. While it is cut nothing passes, and nothing is closed."""

    def __init__(self, target: int, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._target, self._chance = target, chance
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._over = threading.Event()
        self._drop = threading.Event()
        self._peers: dict[socket.socket, socket.socket] = {}
        self.start()

    def cut(self) -> None:
        """From now on packets get lost."""
        self._whole.clear()

    def heal(self) -> None:
        """They pass again; the connections that there were are reset, or are not."""
        if self._chance.random() < 0.5:
            self._drop.set()
        self._whole.set()

    def stop(self) -> None:
        self._over.set()
        self._whole.set()
        self.join()

    def run(self) -> None:
        with selectors.DefaultSelector() as selector, self._listener:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._over.is_set():
                events = selector.select(0.05)
                self._whole.wait()
                if self._drop.is_set():
                    self._drop.clear()
                    for end in [*self._peers]:
                        self._close(selector, end)
                    continue
                for key, _ in events:
                    self._pass(selector, key.fileobj)  # type: ignore[arg-type]
            for end in [*self._peers]:
                self._close(selector, end)

    def _pass(self, selector: selectors.BaseSelector, end: socket.socket) -> None:
        if end is self._listener:
            self._accept(selector)
        elif end in self._peers:
            try:
                data = end.recv(_HELD)
                self._peers[end].sendall(data)
            except OSError:
                data = b""
            if not data:
                self._close(selector, end)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            one.settimeout(5)
            self._peers[one] = other
            selector.register(one, selectors.EVENT_READ)

    def _close(self, selector: selectors.BaseSelector, end: socket.socket) -> None:
        for one in (end, self._peers.get(end)):
            if one is not None and self._peers.pop(one, None) is not None:
                with suppress(KeyError, ValueError):
                    selector.unregister(one)
                one.close()
