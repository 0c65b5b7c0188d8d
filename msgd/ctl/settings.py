"""Where the server is, and how to speak to it: from the command line, or what stands behind it."""

from __future__ import annotations

import os

import click

from msgd.client import PORT, Client
from msgd.ctl.streams import complain

CONFIG = "/etc/msgd.yaml"  # where the port of this machine's own msgd is looked up


class Server:
    """Where to connect to, and how."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._host, self._port, self.timeout = host, port, timeout

    def connect(self) -> Client:
        """A new connection; raises `MsgdError`."""
        return Client(self._host, self._port, self.timeout)


def server() -> Server:
    """The one that the common options say."""
    settings = click.get_current_context().obj
    port = settings.get("port") or os.environ.get("MSGCTL_PORT")
    host = settings.get("host") or os.environ.get("MSGCTL_HOST") or "127.0.0.1"
    return Server(host, int(port) if port else _usual_port(), settings.get("timeout") or 10.0)


def _usual_port() -> int:
    """The port of this machine's own msgd, where its configuration may be read."""
    if not os.access(CONFIG, os.R_OK):
        return PORT
    from msgd.config.options import ConfigError, load

    try:
        return load(CONFIG).port or PORT
    except ConfigError as error:
        complain(f"{error}; using port {PORT}")
        return PORT
