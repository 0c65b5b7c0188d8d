"""`msgd make-tls`: a small authority of one's own, and certificates, by the program openssl.

Keys are made by openssl in the directory where they stay: none passes through an argument, a
pipe or a log. Nothing is ever overwritten: a file gets its name by link(2), which fails where
the name is taken.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import secrets
import shlex
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from msgd.config.values import show
from msgd.errors import Fatal

DAYS = 825  # the most that clients of today take
_LONGEST_NAME = 64  # characters of a common name: RFC 5280, appendix A.1
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(\*\.)?({_LABEL}\.)*{_LABEL}")
_CLIENT = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_CONFIG = """\
[req]
prompt = no
distinguished_name = name
[name]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {names}
[client]
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = {names}
"""


def make_server(directory: str, hosts: list[str]) -> str:
    """Make an authority, where there is none yet, and a certificate for these names and addresses.

    Returns what to do next, to be printed. Raises Fatal.
    """
    names = ",".join(map(_alternative, hosts))
    folder = _Folder(os.path.abspath(directory))
    folder.check_free("server.pem", "server.key")
    if not folder.has("ca.pem"):
        folder.check_free("ca.key")
    elif not folder.has("ca.key"):
        raise Fatal(f"{folder.path('ca.key')}: is not there, so nothing more can be signed")
    with folder.workshop() as workshop:
        if not folder.has("ca.pem"):
            ours = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
            workshop.make_authority(f"msgd authority of {ours}"[:_LONGEST_NAME])
        common = next((host for host in hosts if len(host) <= _LONGEST_NAME), "msgd")
        workshop.issue("server", common, names)
    return _for_server(folder, hosts)


def make_client(directory: str, name: str) -> str:
    """Make a certificate for a client, by the authority in this directory.

    Returns what to do next, to be printed. Raises Fatal.
    """
    if not _CLIENT.fullmatch(name):
        raise Fatal("the name of a client has 1 to 64 letters, digits, and . _ -")
    folder = _Folder(os.path.abspath(directory))
    if not (folder.has("ca.pem") and folder.has("ca.key")):
        raise Fatal(f"{folder.path('')}: has no authority: msgd make-tls DIR HOST makes it")
    folder.check_free(f"client-{name}.pem", f"client-{name}.key")
    with folder.workshop() as workshop:
        workshop.issue("client", name, f"DNS:{name}")
    return _for_client(folder, name)


class _Folder(NamedTuple):
    """The directory in which everything is made."""

    directory: str

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def has(self, name: str) -> bool:
        return os.path.lexists(self.path(name))

    def check_free(self, *names: str) -> None:
        for name in names:
            if self.has(name):
                raise Fatal(f"{self.path(name)}: is there already, and stays as it is")

    @contextmanager
    def workshop(self) -> Iterator[_Workshop]:
        """A place to work in, which is gone afterwards; then what was made has its names."""
        before = os.umask(0o077)
        try:
            self._ensure()
            with tempfile.TemporaryDirectory(prefix=".make-tls-", dir=self.directory) as place:
                workshop = _Workshop(self, place)
                yield workshop
                workshop.hand_over()
        except OSError as error:
            raise Fatal(f"{error.filename or self.directory}: {error.strerror}") from None
        finally:
            os.umask(before)

    def _ensure(self) -> None:
        if os.path.isdir(self.directory):
            return
        os.mkdir(self.directory)
        os.chmod(self.directory, 0o755)
        user = _service()
        if user is not None:
            os.chown(self.directory, user.pw_uid, user.pw_gid)


class _Workshop:
    """Where openssl works; what is made here is linked to its place at the end."""

    def __init__(self, folder: _Folder, place: str) -> None:
        self._folder, self._place = folder, place
        self._made: list[str] = []

    def make_authority(self, name: str) -> None:
        self._configure(name, "")
        self._openssl("req", "-x509", "-extensions", "authority", "-set_serial", _serial(),
                      "-days", str(DAYS), *_NEW_KEY, "-keyout", "ca.key",
                      "-out", "ca.pem")  # fmt: skip
        self._made += ["ca.key", "ca.pem"]

    def issue(self, kind: str, name: str, names: str) -> None:
        """A certificate of this kind, and its key; a server's with the authority's behind it."""
        authority, key = self._find("ca.pem"), self._find("ca.key")
        file = kind if kind == "server" else f"client-{name}"
        self._configure(name, names)
        self._openssl("req", *_NEW_KEY, "-keyout", f"{file}.key", "-out", "wish")
        self._openssl("x509", "-req", "-in", "wish", "-CA", authority, "-CAkey", key,
                      "-set_serial", _serial(), "-days", str(self._days(authority)), "-extfile",
                      "openssl.cnf", "-extensions", kind, "-out", f"{file}.pem")  # fmt: skip
        if kind == "server":
            with open(authority, "rb") as chain, open(self._path("server.pem"), "ab") as whole:
                whole.write(chain.read())
        self._made += [f"{file}.key", f"{file}.pem"]

    def hand_over(self) -> None:
        """Give the files their modes, the directory's owner, and their names."""
        owner = os.stat(self._folder.directory)
        for name in self._made:
            path = self._path(name)
            os.chmod(path, 0o600 if name.endswith(".key") else 0o644)
            if os.geteuid() == 0:
                os.chown(path, owner.st_uid, owner.st_gid)
            os.link(path, self._folder.path(name))

    def _path(self, name: str) -> str:
        return os.path.join(self._place, name)

    def _find(self, name: str) -> str:
        """Of the authority: made just now, or before."""
        return self._path(name) if name in self._made else self._folder.path(name)

    def _configure(self, name: str, names: str) -> None:
        with open(self._path("openssl.cnf"), "w", encoding="ascii") as file:
            file.write(_CONFIG.format(name=name, names=names or "DNS:none"))

    def _days(self, authority: str) -> int:
        """No certificate outlives the authority that vouches for it."""
        said = self._openssl("x509", "-noout", "-enddate", "-in", authority)
        end = said.partition("=")[2].strip()
        left = int((ssl.cert_time_to_seconds(end) - time.time()) // 86400)
        if left < 1:
            raise Fatal(f"{authority}: the authority has expired; make another one elsewhere")
        return min(DAYS, left)

    def _openssl(self, *arguments: str) -> str:
        environment = dict(os.environ, OPENSSL_CONF="openssl.cnf", LC_ALL="C")
        try:
            done = subprocess.run(
                ["openssl", *arguments], cwd=self._place, env=environment,
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise Fatal(
                "the program openssl is not there; it comes with the package of that name"
            ) from None
        if done.returncode:
            words = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
            raise Fatal(f"openssl {arguments[0]}: {words[-1]}")
        return done.stdout


_NEW_KEY = ("-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256")


def _service() -> pwd.struct_passwd | None:
    """The user as whom the package's daemon runs, if root asks and there is one."""
    try:
        return pwd.getpwnam("msgd") if os.geteuid() == 0 else None
    except KeyError:
        return None


def _serial() -> str:
    return f"0x{secrets.randbits(120):030x}"


def _alternative(host: str) -> str:
    """A host as subjectAltName has it; raises Fatal for what is neither a name nor an address."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return "IP:" + socket.inet_ntop(family, socket.inet_pton(family, host))
        except (OSError, ValueError):
            continue
    if re.fullmatch(r"[0-9.]*", host) or len(host) > 253 or not _HOST.fullmatch(host):
        raise Fatal(f"{host}: is neither a host's name nor an address")
    return f"DNS:{host}"


def _for_server(folder: _Folder, hosts: list[str]) -> str:
    with open(folder.path("server.pem"), encoding="ascii") as file:
        own, end, _ = file.read().partition("-----END CERTIFICATE-----")
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(own + end)).hexdigest()
    authority = shlex.quote(folder.path("ca.pem"))
    tries = "".join(
        f"msgctl -H {shlex.quote(host)} --tls --ca {authority} ping -c 1\n" for host in hosts
    )
    key = folder.path("server.key")
    user, hint = _service(), ""
    if user is not None and os.stat(key).st_uid != user.pw_uid:
        hint = "# The service, which runs as the user msgd, cannot read the key yet:\n"
        hint += f"chown msgd {shlex.quote(key)}\n\n"
    return f"""\
{hint}# For msgd.yaml; then reload msgd:
tls.certificate: {show(folder.path("server.pem"))}
tls.key: {show(key)}

# For clients, which need a copy of {folder.path("ca.pem")} (it is no secret):
{tries}
# Or without it, by the certificate's fingerprint:
msgctl -H {shlex.quote(hosts[0])} --tls --pin sha256:{pin} ping -c 1
"""


def _for_client(folder: _Folder, name: str) -> str:
    paths = [shlex.quote(folder.path(file)) for file in
             ("ca.pem", f"client-{name}.pem", f"client-{name}.key")]  # fmt: skip
    return f"""\
# For msgd.yaml, so that clients must show such a certificate; then reload msgd:
tls.client_ca: {show(folder.path("ca.pem"))}

# For {name}, which needs copies of these three files, the key for its own eyes only:
msgctl -H HOST --tls --ca {paths[0]} --cert {paths[1]} --key {paths[2]} ping -c 1
"""
