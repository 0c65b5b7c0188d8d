"""The daemon's figures for a monitoring system: their names in one place, and what they mean.

The loop counts where something happens, with one addition; nothing here is ever waited for.
"""

from __future__ import annotations

import os

from msgd import __version__
from msgd.process.metrics import Counter, Registry

WRITE_SECONDS = 10.0  # between two times that the file is written


class Figures:
    """What msgd counts. Each attribute is a counter, a gauge, or a histogram of seconds."""

    def __init__(self) -> None:
        self.registry = registry = Registry()
        registry.gauge("msgd_build_info", "Always 1.", labels={"version": __version__}).value = 1
        counter, gauge, histogram = registry.counter, registry.gauge, registry.histogram
        self.messages = counter("msgd_archived_messages", "Messages archived and echoed.")
        self.bytes = counter("msgd_archived_bytes", "Bytes of records written.", "bytes")
        self.accepted = counter("msgd_accepted_connections", "Connections taken.")
        self.turned_away = counter("msgd_turned_away_connections", "Connections closed at once.")
        self.connections = gauge("msgd_connections", "Connections that are open now.")
        self.sessions = gauge("msgd_sessions", "Sessions whose number is remembered.")
        self.tls_failures = counter("msgd_tls_failures", "TLS handshakes that failed.")
        self.wrong_passwords = counter("msgd_wrong_passwords", "TERM with a wrong password.")
        self.refusing = gauge(
            "msgd_archive_refusing", "1 while the archive cannot be written, else 0."
        )
        self.free_bytes = gauge(
            "msgd_archive_free_bytes", "Free bytes of the archive's file system.", "bytes"
        )
        self.size_bytes = gauge(
            "msgd_archive_size_bytes", "Size of the archive's file system.", "bytes"
        )
        self.certificate_expiry = gauge(
            "msgd_certificate_expiry_timestamp_seconds",
            "When the TLS certificate expires, in seconds of the epoch; 0 without TLS.",
            "seconds",
        )
        self.commit_seconds = histogram(
            "msgd_commit_seconds", "One commit: the write and its fdatasync.", "seconds"
        )
        self.sync_seconds = histogram("msgd_sync_seconds", "One fdatasync.", "seconds")
        self.turn_seconds = histogram(
            "msgd_turn_seconds", "One turn of the loop, without its wait.", "seconds"
        )
        self._refused: dict[str, Counter] = {}

    def refused(self, reason: str, messages: int = 1) -> None:
        """Count messages that got this FAIL; reasons are fixed words, so there are few of them."""
        counter = self._refused.get(reason)
        if counter is None:
            counter = self._refused[reason] = self.registry.counter(
                "msgd_refused_messages", "Requests that got FAIL.", labels={"reason": reason}
            )
        counter.value += messages

    def write(self, path: str, directory: str) -> None:
        """Write the file, with what the archive's file system has now. Never raises."""
        try:
            found = os.statvfs(directory)
        except OSError:
            pass
        else:
            self.free_bytes.value = found.f_bavail * found.f_frsize
            self.size_bytes.value = found.f_blocks * found.f_frsize
        self.registry.write(path)
