"""The configuration: one table of options, read from YAML into a tuple with names.

The table at the end of this file is the one place that knows a key. Loading, the check for
unknown keys, ``msgd --check`` and the tests all read it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from msgd.config.values import (
    ADDRESSES,
    FILE,
    KEEP_FREE,
    NAMES,
    NETWORKS,
    PASSWORD_HASH,
    PATH,
    KeepFree,
    Network,
    choice,
    number,
    whole,
)
from msgd.config.yamlfile import ConfigError, ConfigFile, Option, as_yaml, read

DEFAULT_PATH = "/etc/msgd.yaml"
MESSAGE_BYTES = 1 << 20  # the most that limits.message_bytes may be
__all__ = ["OPTIONS", "Config", "ConfigError", "Limits", "Source", "Tls", "dump", "load"]


class Limits(NamedTuple):
    """What clients may take, each of them or all together."""

    clients: int
    clients_per_address: int
    sessions: int
    keep_free: KeepFree
    message_bytes: int
    handshake_seconds: float
    idle_seconds: float
    bare_quiet_ms: float


class Tls(NamedTuple):
    """Who is proved to whom, and by which files; without a certificate there is no TLS."""

    certificate: str | None
    key: str | None
    required: str
    client_ca: str | None
    clients: tuple[str, ...]


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
    allow: tuple[Network, ...]
    terminate_from: tuple[Network, ...]
    proxy_from: tuple[Network, ...]
    metrics_file: str | None
    tls: Tls
    limits: Limits


class Source:
    """Where the configuration comes from: a file, under what the command line says."""

    def __init__(
        self,
        path: str | None,
        *,
        port: int | None = None,
        log_directory: str | None = None,
        prove: Callable[[Config], None] | None = None,
    ) -> None:
        """Without a path: DEFAULT_PATH where that exists, else the defaults.

        ``log_directory`` is an absolute path. ``prove`` raises ConfigError for values that only
        their use shows to be wrong, which begins with ``key: ``; at a reload they are in use.
        """
        self._path, self._port, self._log_directory = path, port, log_directory
        self._prove = prove
        self._read = False

    def load(self) -> Config:
        """What holds now. Raises ConfigError.

        From the second time on, what has vanished is an error: a file that was read, or all that
        was in it.
        """
        if self._path is None and os.path.exists(DEFAULT_PATH):
            self._path = DEFAULT_PATH
        file = None
        if self._path is None:
            values = _with_credentials({}, "")
        else:
            file = ConfigFile(self._path, OPTIONS, again=self._read)
            values = _with_credentials(file.values(), self._path)
            _check_tls(file, values)
            self._read = True
        if self._port is not None:
            values["port"] = self._port
        if self._log_directory is not None:
            values["log_directory"] = self._log_directory
        config = _build(values)
        try:
            if self._prove is not None:
                self._prove(config)
        except ConfigError as error:
            raise ConfigError((file.where(str(error)) if file else "") + str(error)) from None
        self._prove = None
        return config


def load(path: str | None, *, port: int | None = None, log_directory: str | None = None) -> Config:
    """The configuration, once; see `Source`. Raises ConfigError."""
    return Source(path, port=port, log_directory=log_directory).load()


def dump(config: Config) -> str:
    """The configuration as YAML that load() reads again; of the password only that it is set."""
    return as_yaml(OPTIONS, config)


def default_log_directory() -> str:
    """Where the archive lives when nobody says so.

    systemd.exec(5) gives LogsDirectory= as a list with colons; the first is ours.
    """
    given = os.environ.get("LOGS_DIRECTORY", "").split(":")[0]
    if given:
        return os.path.abspath(given)
    own = None if os.geteuid() == 0 else state_directory("msgd")
    return own or "/var/log/msgd"


def default_listen(fixed: tuple[str, ...]) -> tuple[str, ...]:
    """The fixed addresses, and under systemd a socket for this machine's users.

    systemd.exec(5) gives RuntimeDirectory= as a list with colons; the first is ours.
    """
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return (*fixed, os.path.join(given, "msgd.sock")) if os.path.isabs(given) else fixed


def state_directory(program: str) -> str | None:
    """Where a user's program keeps its state; None for a user without a home directory.

    The XDG base directory specification has a relative $XDG_STATE_HOME ignored.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return os.path.join(state, program) if os.path.isabs(state) else None


def _with_credentials(values: dict[str, Any], path: str) -> dict[str, Any]:
    """With what systemd hands over (LoadCredential=) instead of the file. Raises ConfigError."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    for key, credential in (("password_hash", "password_hash"), ("tls.key", "tls_key")):
        given = os.path.join(directory, credential) if directory else ""
        if not os.path.exists(given):
            continue
        if values.get(key) is not None:
            raise ConfigError(
                f"{path}: {key}: is also given as a systemd credential; keep one of them"
            )
        values[key] = _hash_in(given) if key == "password_hash" else given
    return values


def _hash_in(path: str) -> str:
    text = read(path).strip()
    try:
        return str(PASSWORD_HASH.parse(text))
    except ValueError as error:
        raise ConfigError(f"{path}:1: password_hash: {error}") from None


def _check_tls(file: ConfigFile, values: dict[str, Any]) -> None:
    """A key that does nothing because another is missing would leave open what seems closed."""
    needs = (
        ("tls.key", "tls.certificate"),
        ("tls.required", "tls.certificate"),
        ("tls.client_ca", "tls.certificate"),
        ("tls.clients", "tls.client_ca"),
    )
    for key, other in needs:
        given = values.get(key)
        if file.has(key) and given not in (None, "no", ()) and values.get(other) is None:
            raise file.error(key, f"needs {other} too")


def _build(values: dict[str, Any]) -> Config:
    sections: dict[str, dict[str, Any]] = {"": {}, "tls": {}, "limits": {}}
    for option in OPTIONS:
        section, _, key = option.name.rpartition(".")
        sections[section][key] = values.get(option.name, option.default)
    top, tls = sections[""], sections["tls"]
    if "listen" not in values:
        top["listen"] = default_listen(top["listen"])
    top["log_directory"] = top["log_directory"] or default_log_directory()
    tls["key"] = tls["key"] or tls["certificate"]
    return Config(
        **top,
        listen_is_default="listen" not in values,
        tls=Tls(**tls),
        limits=Limits(**sections["limits"]),
    )


# The bounds are what a machine can mean: a million seconds still fits epoll_wait(2)'s 31 bits of
# milliseconds, and a hundred years of days still are a date. The longest message is one that the
# loop can bear: everybody waits while it is made safe, and the memory for it counts for each
# client.
OPTIONS = (
    Option("listen", ("127.0.0.1", "::1"), ADDRESSES),
    Option("port", 6743, whole(0, 65535)),
    Option("log_directory", None, PATH),  # None: default_log_directory()
    Option("password_hash", None, PASSWORD_HASH, empty=True, secret=True),
    Option("sync", "always", choice("always", "second", "never")),
    Option("time_zone", "local", choice("local", "utc")),
    Option("keep_days", 0, whole(0, 36500)),
    Option("compress", "none", choice("none", "gzip", no="none"), empty=True),
    Option("metrics_file", None, FILE),
    Option("allow", (), NETWORKS),
    Option("terminate_from", (), NETWORKS),
    Option("proxy_from", (), NETWORKS),
    Option("tls.certificate", None, FILE),
    Option("tls.key", None, FILE),  # None: the certificate's
    Option("tls.required", "no", choice("no", "yes", "remote", no="no", yes="yes")),
    Option("tls.client_ca", None, FILE),
    Option("tls.clients", (), NAMES),
    Option("limits.clients", 4096, whole(1, 1_000_000)),
    Option("limits.clients_per_address", 0, whole(0, 1_000_000)),
    Option("limits.message_bytes", 65536, whole(1, MESSAGE_BYTES)),
    Option("limits.handshake_seconds", 10.0, number(1_000_000, above_zero=True)),
    Option("limits.idle_seconds", 0.0, number(1_000_000)),
    Option("limits.bare_quiet_ms", 50.0, number(1_000_000, above_zero=True)),
    Option("limits.sessions", 10_000, whole(1, 1_000_000)),
    Option("limits.keep_free", KeepFree(percent=1.0), KEEP_FREE),
)
