"""The relay's configuration: its table of options, read from YAML as msgd's own is.

Secrets may come from the service manager instead (systemd.exec(5), LoadCredential=): files named
``password``, ``token`` and ``credentials`` in $CREDENTIALS_DIRECTORY.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from msgd.config.options import load as load_msgd
from msgd.config.values import FILE, PATH, Kind, choice, show, whole
from msgd.config.yamlfile import ConfigError, ConfigFile, Option, as_yaml, read

DEFAULT_PATH = "/etc/msgd-relay.yaml"
__all__ = ["OPTIONS", "Config", "ConfigError", "dump", "load"]


class Tls(NamedTuple):
    """PEM files, or None."""

    ca: str | None
    certificate: str | None
    key: str | None


class Collect(NamedTuple):
    """What only `collect` uses."""

    directory: str
    replicas: int
    max_bytes: int
    max_age_days: int
    keep_days: int
    compress: str


class Config(NamedTuple):
    """The effective configuration."""

    servers: tuple[str, ...]
    credentials: str | None
    user: str | None
    password: str | None
    token: str | None
    stream: str
    node: str
    archive: str
    metrics_file: str | None
    tls: Tls
    collect: Collect
    keep_days: int  # msgd's own, for the warning about days that it will delete


def load(path: str | None) -> Config:
    """The configuration in the file at path; without one DEFAULT_PATH where that exists, else the
    defaults. Raises ConfigError.
    """
    if path is None and os.path.exists(DEFAULT_PATH):
        path = DEFAULT_PATH
    values = {} if path is None else ConfigFile(path, OPTIONS).values()
    for name in ("password", "token", "credentials"):
        if (given := _credential(name)) is not None:
            if values.get(name) is not None:
                raise ConfigError(
                    f"{path}: {name}: is also given as a systemd credential; keep one of them"
                )
            values[name] = given
    _check_together(path, values)
    return _build(values)


def _credential(name: str) -> str | None:
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = os.path.join(directory, name) if directory else ""
    if not os.path.exists(path):
        return None
    return path if name == "credentials" else read(path).removesuffix("\n")


def _check_together(path: str | None, values: dict[str, Any]) -> None:
    ways = [name for name in ("credentials", "user", "token") if values.get(name) is not None]
    if len(ways) > 1:
        raise ConfigError(
            f"{path}: {ways[1]}: {ways[0]} is given too; the server takes one of them"
        )
    if values.get("password") is not None and values.get("user") is None:
        raise ConfigError(f"{path}: password: needs user too")
    if values.get("tls.key") is not None and values.get("tls.certificate") is None:
        raise ConfigError(f"{path}: tls.key: needs tls.certificate too")


def _build(values: dict[str, Any]) -> Config:
    parts: dict[str, dict[str, Any]] = {"": {}, "tls": {}, "collect": {}}
    for option in OPTIONS:
        section, _, key = option.name.rpartition(".")
        parts[section][key] = values.get(option.name, option.default)
    top = parts[""]
    top["node"] = top["node"] or _host_name()
    archive, keep_days = _msgd()
    top["archive"] = top["archive"] or archive
    return Config(
        **top, tls=Tls(**parts["tls"]), collect=Collect(**parts["collect"]), keep_days=keep_days
    )


def _msgd() -> tuple[str, int]:
    """Where msgd's archive is, and for how long it keeps days.

    A configuration that this user may not read is none: `archive` names the directory then.
    """
    try:
        config = load_msgd(None)
    except ConfigError:
        return "/var/log/msgd", 0
    return config.log_directory, config.keep_days


def _host_name() -> str:
    """The machine's name without its domain, every character that a node cannot have as ``_``."""
    name = socket.gethostname().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "node"


def dump(config: Config) -> str:
    """The configuration as YAML that load() reads again; of secrets only that they are set."""
    return as_yaml(OPTIONS, config)


def _server(text: str) -> str:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        port = 0
    if port == 0 or url.scheme not in ("nats", "tls") or not url.hostname or url.path not in "/":
        raise ValueError(SERVERS.wrong(show(text)))
    if url.username or url.password:
        raise ValueError("must have no password in it: use user and password, or credentials")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise ValueError(NAME.wrong(show(text)))
    return text


def _text(text: str) -> str | None:
    if text == "none":
        return None
    if not text or not text.isprintable():
        raise ValueError(TEXT.wrong("one that is empty or has control characters"))
    return text


SERVERS = Kind(
    "a URL such as nats://10.0.0.1:4222 or tls://a.example:4222, or a list", _server, many=True
)
NAME = Kind("1 to 64 of A-Z a-z 0-9 _ -", _name)
NODE = Kind(
    "1 to 64 of A-Z a-z 0-9 _ -, or none", lambda text: None if text == "none" else _name(text)
)
TEXT = Kind("a text without control characters, or none", _text)

_GIB = 1 << 30
OPTIONS = (
    Option("servers", ("nats://127.0.0.1:4222",), SERVERS),
    Option("credentials", None, FILE),
    Option("user", None, TEXT),
    Option("password", None, TEXT, secret=True),
    Option("token", None, TEXT, secret=True),
    Option("stream", "MSGD", NAME),
    Option("node", None, NODE),  # None: the host's name
    Option("archive", None, FILE),  # None: msgd's log_directory
    Option("metrics_file", None, FILE),
    Option("tls.ca", None, FILE),
    Option("tls.certificate", None, FILE),
    Option("tls.key", None, FILE),
    Option("collect.directory", "/var/lib/msgd-collect", PATH),
    Option("collect.replicas", 1, whole(1, 5)),
    Option("collect.max_bytes", 10 * _GIB, whole(1 << 20, 1 << 60)),
    Option("collect.max_age_days", 30, whole(0, 36500)),
    Option("collect.keep_days", 0, whole(0, 36500)),
    Option("collect.compress", "none", choice("none", "gzip", no="none")),
)
