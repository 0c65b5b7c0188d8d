"""What every test may use: a daemon of its own; and one line for each reason to leave tests out."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.lab.archive import Record, parse
from tests.lab.client import Client
from tests.lab.daemon import PASSWORD, PASSWORD_HASH, Daemon, Start
from tests.lab.proc import cpu_seconds
from tests.lab.waiting import SECONDS, wait_for

__all__ = [
    "PASSWORD",
    "PASSWORD_HASH",
    "SECONDS",
    "Client",
    "Daemon",
    "Record",
    "Start",
    "cpu_seconds",
    "parse",
    "wait_for",
]

settings.register_profile("thorough", deadline=None)  # no timing decides over a test
settings.register_profile("quick", deadline=None, max_examples=30)

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that:
# Ctrl-C would do nothing in the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out the tests marked thorough")
    parser.addoption("--thorough", action="store_false", dest="quick", help="leave none out")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("quick" if config.getoption("quick") else "thorough")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("quick"):
        left_out = pytest.mark.skip(reason="thorough, run by `make coverage`")
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason to leave out tests, which is mostly a tool that is missing."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(
            f"{reason}: {count} {'test' if count == 1 else 'tests'} left out"
        )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start daemons with a configuration; all are gone after the test."""
    daemons: list[Daemon] = []

    def make(config: str = "", *options: str, **more: object) -> Daemon:
        folder = tmp_path / str(len(daemons)) if "folder" not in more else more.pop("folder")
        assert isinstance(folder, Path)
        folder.mkdir(exist_ok=True)
        daemons.append(Daemon(folder, config, *options, **more))  # type: ignore[arg-type]
        return daemons[-1]

    yield make
    end(daemons)


def end(daemons: list[Daemon]) -> None:
    """Ask all of them to stop; nothing has gone wrong in them."""
    for daemon in daemons:
        daemon.close_clients()  # at a stop it would wait for those that do not read
        if daemon.process.poll() is None:
            daemon.signal(signal.SIGTERM)
    for daemon in daemons:
        try:
            daemon.process.wait(SECONDS)
        finally:
            daemon.kill()
        assert "Traceback" not in daemon.log
        assert not re.search(r"^msgd: \w*(Error|Exception): ", daemon.log, re.MULTILINE)


CONFIG = f"password_hash: {PASSWORD_HASH}\nlisten: 127.0.0.1\n"


@pytest.fixture
def msgd(start: Start) -> Daemon:
    """A daemon with the password `PASSWORD`, otherwise at its defaults."""
    return start(CONFIG)


@pytest.fixture(scope="module")
def shared_daemons() -> Iterator[list[Daemon]]:
    daemons: list[Daemon] = []
    yield daemons
    end(daemons)


@pytest.fixture
def shared_msgd(shared_daemons: list[Daemon], tmp_path_factory: pytest.TempPathFactory) -> Daemon:
    """As `msgd`, for tests that only send and look, or wait for its end: they take turns.

    A file whose tests are all of that kind has a fixture `msgd` that returns this one.
    """
    if not shared_daemons or shared_daemons[-1].process.poll() is not None:
        shared_daemons.append(Daemon(tmp_path_factory.mktemp("shared"), CONFIG))
    shared_daemons[-1].begin_anew()
    return shared_daemons[-1]
