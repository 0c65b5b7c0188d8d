"""The configuration: one table of options, read from YAML into a tuple with names.

The table at the end of this file is the one place that knows a key. Loading, the check for
unknown keys, ``msgd --check`` and the tests all read it.
"""

from __future__ import annotations

import os
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from msgd.config.values import (
    ADDRESSES,
    DIRECTORY,
    NETWORKS,
    PASSWORD_HASH,
    choice,
    number,
    show,
    whole,
)
from msgd.config.yamlfile import ConfigError, ConfigFile, Option, read

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

DEFAULT_PATH = "/etc/msgd.yaml"
__all__ = ["OPTIONS", "Config", "ConfigError", "Limits", "dump", "load"]


class Limits(NamedTuple):
    """What one client may take; ``clients`` is for all together."""

    clients: int
    message_bytes: int
    handshake_seconds: float
    idle_seconds: float
    bare_quiet_ms: float


class Config(NamedTuple):
    """The effective configuration: file, command line and defaults together."""

    listen: tuple[str, ...]
    listen_is_default: bool
    port: int
    log_directory: str
    password_hash: str | None
    sync: str
    time_zone: str
    keep_days: int
    compress: str
    allow: tuple[IPv4Network | IPv6Network, ...]
    limits: Limits


def load(path: str | None, *, port: int | None = None, log_directory: str | None = None) -> Config:
    """The configuration in the file at path, under what the command line says.

    Without a path: DEFAULT_PATH where that exists, else the defaults. ``log_directory`` is an
    absolute path. Raises ConfigError.
    """
    if path is None and os.path.exists(DEFAULT_PATH):
        path = DEFAULT_PATH
    values = {} if path is None else ConfigFile(path, OPTIONS).values()
    credential = _credential()
    if credential is not None:
        if values.get("password_hash") is not None:
            raise ConfigError(
                f"{path}: password_hash: is also given as a systemd credential; keep one of them"
            )
        values["password_hash"] = credential
    if port is not None:
        values["port"] = port
    if log_directory is not None:
        values["log_directory"] = log_directory
    return _build(values)


def dump(config: Config) -> str:
    """The configuration as YAML that load() reads again; of the password only that it is set."""
    lines = []
    section = ""
    for option in OPTIONS:
        above, _, key = option.name.rpartition(".")
        if above != section:
            section = above
            lines.append(f"{section}:")
        indent = "  " if above else ""
        value = attrgetter(option.name)(config)
        if option.secret and value is not None:
            lines.append(f"{indent}# {key} is set, and not shown")
        else:
            lines.append(f"{indent}{key}: {show(value)}")
    return "\n".join(lines) + "\n"


def default_log_directory() -> str:
    """Where the archive lives when nobody says so.

    systemd.exec(5) gives LogsDirectory= as a list with colons; the first is ours.
    """
    given = os.environ.get("LOGS_DIRECTORY", "").split(":")[0]
    if given:
        return os.path.abspath(given)
    own = None if os.geteuid() == 0 else state_directory("msgd")
    return own or "/var/log/msgd"


def state_directory(program: str) -> str | None:
    """Where a user's program keeps its state; None for a user without a home directory.

    The XDG base directory specification has a relative $XDG_STATE_HOME ignored.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return os.path.join(state, program) if os.path.isabs(state) else None


def _credential() -> str | None:
    """The password_hash that systemd hands over with LoadCredential=, where it does."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = os.path.join(directory, "password_hash") if directory else ""
    if not os.path.exists(path):
        return None
    text = read(path).strip()
    try:
        return str(PASSWORD_HASH.parse(text))
    except ValueError as error:
        raise ConfigError(f"{path}:1: password_hash: {error}") from None


def _build(values: dict[str, Any]) -> Config:
    top: dict[str, Any] = {"listen_is_default": "listen" not in values}
    limits: dict[str, Any] = {}
    for option in OPTIONS:
        section, _, key = option.name.rpartition(".")
        (limits if section else top)[key] = values.get(option.name, option.default)
    top["log_directory"] = top["log_directory"] or default_log_directory()
    return Config(**top, limits=Limits(**limits))


# The bounds are what a machine can mean: a million seconds still fits epoll_wait(2)'s 31 bits of
# milliseconds, and a hundred years of days still are a date.
OPTIONS = (
    Option("listen", ("127.0.0.1", "::1"), ADDRESSES),
    Option("port", 6743, whole(0, 65535)),
    Option("log_directory", None, DIRECTORY),  # None: default_log_directory()
    Option("password_hash", None, PASSWORD_HASH, empty=True, secret=True),
    Option("sync", "always", choice("always", "second", "never")),
    Option("time_zone", "local", choice("local", "utc")),
    Option("keep_days", 0, whole(0, 36500)),
    Option("compress", "none", choice("none", "gzip", none=True), empty=True),
    Option("allow", (), NETWORKS),
    Option("limits.clients", 4096, whole(1, 1_000_000)),
    Option("limits.message_bytes", 65536, whole(1, 1_073_741_824)),
    Option("limits.handshake_seconds", 10.0, number(1_000_000, above_zero=True)),
    Option("limits.idle_seconds", 0.0, number(1_000_000)),
    Option("limits.bare_quiet_ms", 50.0, number(1_000_000, above_zero=True)),
)
