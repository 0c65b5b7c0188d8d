"""Where programs are, which interpreter runs msgd, and how a configuration is filled in.

The configurations stand in the folder `peers/`, with @PORT@, @DIRECTORY@, @SYNC@ and @TLS@ (the
file with certificate and key) to fill in.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .process import BenchError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIGURATIONS = HERE / "peers"


class NotInstalledError(BenchError):
    """A program of another project is not there."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Where programs are: the built C programs, and packages that were only unpacked."""

    built: Path
    unpacked: Path | None

    def find(self, program: str) -> str | None:
        found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/lib/systemd")
        if found is None and self.unpacked is not None:
            folders = ("usr/bin", "usr/sbin", "lib/systemd", "usr/lib/systemd")
            places = ":".join(str(self.unpacked / folder) for folder in folders)
            found = shutil.which(program, path=places)
        return found

    def environment(self) -> dict[str, str]:
        """The libraries of unpacked packages, for programs that are not installed."""
        if self.unpacked is None:
            return dict(os.environ)
        machine = f"{os.uname().machine}-linux-gnu"
        libraries = ("lib", machine), ("usr/lib", machine), ("usr/lib", "syslog-ng")
        paths = [self.unpacked / folder / name for folder, name in libraries]
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, paths))}

    def need(self, program: str) -> str:
        """Raises NotInstalledError."""
        found = self.find(program)
        if found is None:
            raise NotInstalledError(f"{program} is not installed")
        return found

    @property
    def certificate(self) -> Path:
        """Of the servers that speak TLS; nobody vouches for it, and clients do not ask."""
        return self.built / "tls.pem"

    @property
    def rsa(self) -> Path:
        """The same with an RSA key: a handshake is dearer."""
        return self.built / "rsa.pem"


def configure(
    name: str, directory: Path, port: int, sync: str, tools: Tools, **values: str
) -> Path:
    """Fills in the configuration `name` of the folder `peers/`; returns the file made."""
    text = (CONFIGURATIONS / name).read_text()
    values |= {"port": str(port), "directory": str(directory), "sync": sync}
    values["tls"] = str(tools.certificate)
    for mark, value in values.items():
        text = text.replace(f"@{mark.upper()}@", value)
    path = directory / name
    path.write_text(text)
    return path


def make_certificates(tools: Tools) -> None:
    """Self-signed ones, each with its key in one file. Raises BenchError."""
    _make(tools.certificate, "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    _make(tools.rsa, "rsa:2048")


def _make(path: Path, *key: str) -> None:
    command = ["openssl", "req", "-x509", "-newkey", *key]
    command += ["-nodes", "-days", "30", "-subj", "/CN=localhost", "-out", str(path)]
    command += ["-keyout", str(path), "-addext", "subjectAltName=IP:127.0.0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"openssl: {done.stderr.strip()}")


@cache
def python() -> str:
    """The interpreter that runs msgd: the distribution's, as its package has it.

    The peers are the distribution's builds too. Where it lacks what msgd imports, this one.
    """
    own = "/usr/bin/python3"
    command = [own, "-c", "import click, daemon, yaml"]
    try:
        done = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return sys.executable
    return own if done.returncode == 0 else sys.executable


def msgd_command(module: str = "msgd.daemon") -> list[str]:
    """The daemon (or msgctl, as ``msgd.ctl``) of this folder."""
    return [python(), "-m", module]
