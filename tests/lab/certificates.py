"""Certificates for tests, made by the real openssl: good ones, and each kind of bad one.

    authority = Authority(tmp_path)
    server = authority.issue("localhost", "127.0.0.1")  # .certificate, .key: PEM files
    expired = authority.issue("localhost", days=-1)
    client = authority.issue("web-1", client=True)
    below = authority.below("Branch").issue("localhost")  # .certificate has the chain in it

A certificate of a foreign authority is one of a second `Authority`.
"""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import NamedTuple

_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
_DATE = "%Y%m%d%H%M%SZ"
_numbers = count()


class Certificate(NamedTuple):
    """PEM files: the certificate, with its chain where it has one, and its private key."""

    certificate: Path
    key: Path

    @property
    def pin(self) -> str:
        """``sha256:HEX`` of the certificate."""
        said = openssl("x509", "-noout", "-fingerprint", "-sha256", "-in", str(self.certificate))
        return "sha256:" + said.partition("=")[2].strip().replace(":", "").lower()


class Authority:
    """An authority that issues certificates; `certificate` is what clients are to trust."""

    def __init__(self, folder: Path, name: str = "Test Authority") -> None:
        self._folder = folder
        self.certificate, self.key = _files(folder)
        self._chain = b""  # what its certificates carry behind themselves
        openssl(
            "req", "-x509", *_CURVE, "-keyout", str(self.key), "-out", str(self.certificate),
            "-subj", f"/CN={name}", "-days", "30", "-addext", "basicConstraints=critical,CA:TRUE",
        )  # fmt: skip

    def issue(
        self, name: str, *more: str, days: int = 30, client: bool = False, use: str = ""
    ) -> Certificate:
        """A certificate for these names and addresses; expired where `days` is negative.

        `use` is the extended key usage: else that of a server, or of a client.
        """
        hosts = ",".join(f"{_kind(host)}:{host}" for host in (name, *more))
        use = use or ("clientAuth" if client else "serverAuth")
        return self._sign(name, f"subjectAltName={hosts}\nextendedKeyUsage={use}\n", days)

    def nameless(self) -> Certificate:
        """Of a client, without a name of any kind."""
        return self._sign("", "extendedKeyUsage=clientAuth\n", 30)

    def below(self, name: str) -> Authority:
        """An authority that this one vouches for."""
        below = object.__new__(Authority)
        below._folder = self._folder
        extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"
        below.certificate, below.key = self._sign(name, extensions, 30)
        below._chain = below.certificate.read_bytes()
        return below

    def _sign(self, name: str, extensions: str, days: int) -> Certificate:
        certificate, key = _files(self._folder)
        wish, wanted = certificate.with_suffix(".csr"), certificate.with_suffix(".ext")
        wanted.write_text(extensions)
        openssl("req", "-new", *_CURVE, "-keyout", str(key), "-out", str(wish), "-subj",
                f"/CN={name}")  # fmt: skip
        openssl(
            "x509", "-req", "-in", str(wish), "-CA", str(self.certificate), "-CAkey",
            str(self.key), "-CAcreateserial", *validity(days), "-extfile", str(wanted),
            "-out", str(certificate),
        )  # fmt: skip
        certificate.write_bytes(certificate.read_bytes() + self._chain)
        return Certificate(certificate, key)


def validity(days: int) -> tuple[str, ...]:
    """Since OpenSSL 3.4 a number of days cannot be negative, and two dates can be given."""
    if days >= 0 or "-not_before" not in openssl("x509", "-help"):
        return ("-days", str(days))
    ends = datetime.now(UTC) + timedelta(days)
    return ("-not_before", f"{ends - timedelta(30):{_DATE}}", "-not_after", f"{ends:{_DATE}}")


def self_signed(folder: Path, name: str, *more: str) -> Certificate:
    """A certificate that nobody vouches for."""
    certificate, key = _files(folder)
    hosts = ",".join(f"{_kind(host)}:{host}" for host in (name, *more))
    openssl(
        "req", "-x509", *_CURVE, "-keyout", str(key), "-out", str(certificate), "-subj",
        f"/CN={name}", "-days", "30", "-addext", f"subjectAltName={hosts}",
    )  # fmt: skip
    return Certificate(certificate, key)


def openssl(*arguments: str) -> str:
    """Run openssl; its output. Fails with what it says."""
    done = subprocess.run(
        ["openssl", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + (done.stderr if "-help" in arguments else "")


def _kind(host: str) -> str:
    try:
        ip_address(host)
    except ValueError:
        return "DNS"
    return "IP"


def _files(folder: Path) -> tuple[Path, Path]:
    number = next(_numbers)
    return folder / f"{number}.pem", folder / f"{number}.key"
