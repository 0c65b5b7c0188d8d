"""Where the server is, and how to speak to it.

What the command line does not say, the environment says; then the user's file, the system's, and
what is usual. A value that another one hides is not looked at, so it cannot be wrong; only files
are held against the table as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from msgd.client import PORT, Client, NotConnected
from msgd.client.servers import parsed
from msgd.ctl.exits import BadSetting
from msgd.ctl.options import LONGEST
from msgd.ctl.streams import complain

if TYPE_CHECKING:
    from msgd.client.tls import Tls
    from msgd.config.values import Kind

MSGD_CONFIG = "/etc/msgd.yaml"  # where the port of this machine's own msgd is looked up
MSGD_SOCKET = "/run/msgd/msgd.sock"
SYSTEM_FILE = "/etc/msgctl.yaml"

TIMEOUT = 10.0  # seconds


class Found(NamedTuple):
    """A setting, and how far down in the order it was found."""

    value: Any
    depth: int = 9


class Place(NamedTuple):
    """A host, or the path of a socket; without a port the usual one is meant."""

    host: str
    port: int | None = None

    @property
    def is_socket(self) -> bool:
        return os.path.isabs(self.host)


def places(text: str) -> tuple[Place, ...]:
    """One place, or several with commas between them. Raises ValueError with its words."""
    return tuple(Place(*parsed(part.strip())) for part in text.split(","))


class Server:
    """Where to connect to, and how."""

    def __init__(self, where: tuple[Place, ...], timeout: float, tls: Tls | None = None) -> None:
        self.timeout = timeout
        self.place = where[0]  # where the last connection was made
        self._places = where
        self._tls = tls

    @property
    def tls(self) -> Tls | None:
        """How the server proves who it is; over a socket in the file system the kernel does."""
        return None if self.place.is_socket else self._tls

    def connect(self, session: str | None = None) -> Client:
        """A new connection, to the first place that has a server; raises `MsgdError`.

        A session belongs to one server: the one that was connected last is tried first.
        """
        failures = []
        for place in self._places:
            try:
                client = self._connect(place, session)
            except NotConnected as error:
                failures.append(str(error))
                continue
            self.place = place
            self._places = (place, *(other for other in self._places if other != place))
            return client
        raise NotConnected("; ".join(failures))

    def _connect(self, place: Place, session: str | None) -> Client:
        tls = None if place.is_socket else self._tls
        return Client(place.host, place.port or PORT, self.timeout, tls=tls, session=session)


def server() -> Server:
    """The one that the common options say, and what stands behind them."""
    found = _find(click.get_current_context().obj or {})
    timeout = found.get("timeout", Found(TIMEOUT)).value
    tls = _tls(found)
    return Server(tuple(_where(found, bool(tls))), timeout, tls)


def _where(found: Mapping[str, Found], tls: bool) -> list[Place]:
    if not tls and not found.keys() & {"host", "port"} and os.path.exists(MSGD_SOCKET):
        return [Place(MSGD_SOCKET)]
    host = found.get("host", Found("127.0.0.1"))
    return [_with_port(place, host, found.get("port")) for place in _places(host.value)]


def _places(text: str) -> tuple[Place, ...]:
    try:
        return places(text)
    except ValueError as error:
        raise BadSetting(f"host: {error}") from None


def _with_port(place: Place, host: Found, port: Found | None) -> Place:
    """The port that stands with the host, or by itself: the one that was found first."""
    if place.is_socket:
        return place
    if port is not None and place.port and port.depth == host.depth and port.value != place.port:
        raise BadSetting(f"two ports for {place.host}: {place.port} and {port.value}")
    if port is not None and (not place.port or port.depth < host.depth):
        return place._replace(port=port.value)
    return place if place.port else place._replace(port=_usual_port())


def _usual_port() -> int:
    """The port of this machine's own msgd, where its configuration may be read."""
    if not os.access(MSGD_CONFIG, os.R_OK):
        return PORT
    from msgd.config.options import ConfigError, load

    try:
        return load(MSGD_CONFIG).port or PORT
    except ConfigError as error:
        complain(f"{error}; using port {PORT}")
        return PORT


def _tls(found: Mapping[str, Found]) -> Tls | None:
    """What the library takes for it; None without TLS.

    Whoever names a certificate where the connection is asked for wants TLS: a plain connection
    would be a surprise. In a file these are only defaults.
    """
    named = [found[name] for name in ("ca", "cert", "key", "pin") if name in found]
    wanted = found.get("tls", Found(False))
    implied = any(one.depth <= min(1, wanted.depth - 1) for one in named)
    if not (wanted.value or implied):
        return None
    ca, pin = found.get("ca"), found.get("pin")
    if ca and pin and ca.depth != pin.depth:  # the one hides the other
        ca, pin = (ca, None) if ca.depth < pin.depth else (None, pin)
    if "key" in found and "cert" not in found:
        raise BadSetting("a key needs its certificate: cert")
    from msgd.client.tls import Tls

    try:
        return Tls(
            ca=ca and ca.value,
            certificate=found["cert"].value if "cert" in found else None,
            key=found["key"].value if "key" in found else None,
            pin=pin and pin.value,
        )
    except ValueError as error:
        raise BadSetting(str(error)) from None


def _find(given: Mapping[str, object]) -> dict[str, Found]:
    """Each setting as it was found first."""
    found = {name: Found(value, 0) for name, value in given.items()}
    for name, variable in _VARIABLES.items():
        if name not in found and (text := os.environ.get(variable)):
            found[name] = Found(_parsed(name, text, variable), 1)
    for depth, path in enumerate((_user_file(), SYSTEM_FILE), 2):
        for name, value in _in_file(path).items():
            found.setdefault(name, Found(value, depth))
    return found


_VARIABLES = {
    "host": "MSGCTL_HOST",
    "port": "MSGCTL_PORT",
    "tls": "MSGCTL_TLS",
    "ca": "MSGCTL_CA",
    "cert": "MSGCTL_CERT",
    "key": "MSGCTL_KEY",
    "pin": "MSGCTL_PIN",
}


def _parsed(name: str, text: str, variable: str) -> object:
    if name in ("ca", "cert", "key", "pin", "host"):
        return text
    try:
        return _kinds()[name].parse(text)
    except ValueError as error:
        raise BadSetting(f"{variable}: {error}") from None


def _user_file() -> str:
    """The XDG base directory specification has a relative $XDG_CONFIG_HOME ignored."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(config if os.path.isabs(config) else _home(".config"), "msgctl.yaml")


def _home(path: str) -> str:
    return os.path.expanduser(f"~/{path}")


def _in_file(path: str) -> dict[str, Any]:
    if not (os.path.isabs(path) and os.path.exists(path)):
        return {}
    from msgd.config.yamlfile import ConfigError, ConfigFile, Option

    table = [Option(name, None, kind) for name, kind in _kinds().items()]
    try:
        return ConfigFile(path, table).values()
    except ConfigError as error:
        raise BadSetting(str(error)) from None


def _kinds() -> dict[str, Kind]:
    """The kind of each setting, in files and in the environment."""
    from msgd.config.values import Kind, choice, number, whole

    answer = choice("yes", "no", no="no", yes="yes")

    def yes_or_no(text: str) -> bool:
        return answer.parse({"1": "yes", "0": "no"}.get(text, text)) == "yes"

    def host(text: str) -> str:
        places(text)
        return text

    def path(text: str) -> str:
        path = os.path.expanduser(text)
        if not os.path.isabs(path):
            raise ValueError(f"must be an absolute path, not {text!r}")
        return path

    def kind(allowed: str, parse: Callable[[str], object]) -> Kind:
        return Kind(allowed, parse)

    file = kind("an absolute path", path)
    return {
        "host": kind("a text", host),
        "port": whole(1, 65535),
        "timeout": number(int(LONGEST), above_zero=True),
        "tls": kind("yes or no", yes_or_no),
        "ca": file,
        "cert": file,
        "key": file,
        "pin": kind("a text such as sha256:12ab…", str),
    }
