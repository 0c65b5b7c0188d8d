"""The table of servers under measure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import servers
from .machine import first_line
from .servers import Serve
from .tools import Tools


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    program: str
    wire: str
    serve: Serve
    version: str = ""  # the option that asks for it
    not_synced: str = "off"
    synced: str | None = None  # None: it cannot
    acknowledges: bool = True
    tls: bool = False

    def describe_version(self, tools: Tools) -> str | None:
        """What the program says of its version; None where it is not installed."""
        found = tools.find(self.program)
        if found is None:
            return None
        words = first_line([found, self.version], tools.environment()) if self.version else ""
        number = re.search(r"\d+(\.\d+)+", words)
        return number.group() if number else "installed"


def _msgd(name: str, kind: str = "", interpreter: str = "") -> Peer:
    serve = servers.msgd(kind, interpreter)
    return Peer(name, "python3", "msgd", serve, "", "never", "always", tls=kind in ("TLS", "RSA"))


def _rsyslog(title: str, name: str, *, tls: bool = False) -> Peer:
    acknowledges = name.startswith("imrelp")
    wire, serve = "relp" if acknowledges else "syslog", servers.rsyslog(name)
    return Peer(title, "rsyslogd", wire, serve, "-v", "off", "on", acknowledges, tls)


def _syslog_ng(name: str, file: str, *, tls: bool = False) -> Peer:
    serve = servers.syslog_ng(file)
    return Peer(name, "syslog-ng", "syslog", serve, "--version", "no", "yes", False, tls)


def _others() -> tuple[Peer, ...]:
    redis, nats, journal = servers.serve_redis, servers.serve_nats, servers.serve_journal
    return (
        Peer("logging receiver", "python3", "", servers.serve_receiver, acknowledges=False),
        Peer("multilog", "multilog", "pipe", servers.serve_multilog, acknowledges=False),
        Peer("redis XADD", "redis-server", "redis", redis, "--version", "everysec", "always"),
        Peer("nats JetStream", "nats-server", "nats", nats, "--version"),
        Peer("journal-remote", "systemd-journal-remote", "journal", journal, "--version"),
    )


PEERS = {
    peer.name: peer
    for peer in (
        Peer("C limit", "cc", "echo", servers.serve_limit, "", "off", "sync"),
        Peer("prototype", "python3", "msgd", servers.serve_prototype, "", "off", "sync"),
        _msgd("msgd"),
        _msgd("msgd TLS", "TLS"),
        _msgd("msgd RSA", "RSA"),
        _msgd("msgd local", "local"),
        _rsyslog("rsyslog imptcp", "imptcp"),
        _rsyslog("rsyslog imrelp", "imrelp"),
        _rsyslog("rsyslog TLS", "imtcp-gtls", tls=True),
        _rsyslog("rsyslog TLS, OpenSSL", "imtcp-ossl", tls=True),
        _rsyslog("rsyslog imrelp TLS", "imrelp-tls", tls=True),
        _syslog_ng("syslog-ng", "syslog-ng"),
        _syslog_ng("syslog-ng TLS", "syslog-ng-tls", tls=True),
        *_others(),
    )
}


def add_interpreter(name: str, path: str) -> Peer:
    """msgd as another Python runs it."""
    peer = _msgd(f"msgd on {name}", interpreter=path)
    PEERS[peer.name] = peer
    return peer
