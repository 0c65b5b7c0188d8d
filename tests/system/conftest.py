"""Fixtures of the system tests: the package, a machine, a machine with msgd installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import image
from .machine import Machine, why_not
from .server import Server

SOURCE = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", choices=image.SUITES, default="bookworm", help="Debian to boot")


def need(*tools: str) -> None:
    """Skip the test with a reason where a tool is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def output(*command: str | Path, **options: object) -> str:
    """What a command on this host writes; fails unless its status is 0."""
    done = subprocess.run(command, text=True, capture_output=True, timeout=300, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the freshly built Debian package."""
    need("dpkg-buildpackage", "dh", "git")
    results = tmp_path_factory.mktemp("build")
    output(SOURCE / "packaging/build-deb", results)
    return results


@pytest.fixture(scope="session")
def package(build: Path) -> Path:
    """The freshly built .deb."""
    return next(build.glob("msgd_*_all.deb"))


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    if reason := why_not():
        pytest.skip(reason)
    return image.golden(request.config.getoption("--suite"))


@pytest.fixture
def machine(golden: Path) -> Iterator[Machine]:
    """A booted Debian without msgd, and without a network to load anything from."""
    with Machine(golden) as machine:
        yield machine


@pytest.fixture
def server(machine: Machine, package: Path) -> Server:
    """A booted Debian with the package installed; the service runs, as installed."""
    machine.push(package, "/root/msgd.deb")
    machine.run("apt-get", "install", "--yes", "/root/msgd.deb", seconds=120)
    return Server(machine)
