"""The golden image: a small Debian with a real systemd, made once and kept in a cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITES = ("bookworm", "trixie")

# What msgd depends on is here, so that the package installs without a network; the rest is
# for the tests: faketime moves the clock, iproute2 makes the second network namespace, openssl the
# certificates, pip installs nats-py, which Debian does not have; nats-server is there, disabled.
PACKAGES = (
    "acl",
    "dbus",
    "faketime",
    "iproute2",
    "nats-server",
    "openssl",
    "procps",
    "python3",
    "python3-click",
    "python3-daemon",
    "python3-pip",
    "python3-yaml",
    "systemd",
    "systemd-sysv",
)
SECONDS_TO_BUILD = 900


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "msgd-system-tests"


def golden(suite: str) -> Path:
    """The root folder of the image of `suite`; made when it is not there (about a minute).

    The name holds a digest of the package list, so that a changed list makes a new image.
    Raises RuntimeError when debootstrap fails; its log stays beside the image.
    """
    digest = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:8]
    root = cache_folder() / f"{suite}-{digest}"
    if not root.exists():
        unfinished = root.with_name(f"{root.name}.{os.getpid()}")
        _debootstrap(suite, unfinished)
        _settle(unfinished)
        unfinished.rename(root)
    return root


def wheels() -> Path:
    """A folder with nats-py, for pip in a machine without a network; loaded once."""
    folder = cache_folder() / "wheels"
    if not any(folder.glob("nats_py-*.whl")):
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        subprocess.run([*command, f"--wheel-dir={folder}", "nats-py>=2.6"], check=True)
    return folder


def _debootstrap(suite: str, root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    log = root.with_suffix(".log")
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    with log.open("wb") as output:
        done = subprocess.run(
            [*command, suite, str(root)],
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=SECONDS_TO_BUILD,
        )
    if done.returncode:
        shutil.rmtree(root, ignore_errors=True)
        raise RuntimeError(f"debootstrap failed with status {done.returncode}, see {log}")
    log.unlink()


def _settle(root: Path) -> None:
    """Take away what must differ from boot to boot, add what minbase lacks."""
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    for wanted in (root / "etc/systemd/system").glob("*.wants/nats-server.service"):
        wanted.unlink()
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").unlink(missing_ok=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
