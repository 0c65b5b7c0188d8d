"""The manners of a daemon: signals at any moment, orphans, machines that lack something."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PASSWORD, Daemon, Start
from tests.lab.waiting import wait_for
from tests.test_daemon import Background, background, call, config

__all__ = ["background", "config"]


def _can_unshare() -> bool:
    command = ["unshare", "--mount", "--pid", "--fork", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(not _can_unshare(), reason="needs root for namespaces")

# Signals -----------------------------------------------------------------------------------

# Moments at which somebody else can know of the process: method, and when in it.
MOMENTS = {
    "it-listens": "msgd.server.listeners.Listeners.__init__",
    "the-pid-file-is-written": "msgd.process.lockfile.PidFile.write",
    "its-starter-is-released": "msgd.process.background.Starter.release",
    "the-pid-file-goes": "msgd.process.lockfile.PidFile.__exit__",
}


def signals_at(folder: Path, moment: str, number: int) -> dict[str, str]:
    """The environment of a msgd that sends itself a signal at this moment."""
    (folder / "site").mkdir(exist_ok=True)
    module, owner, method = MOMENTS[moment].rsplit(".", 2)
    (folder / "site" / "sitecustomize.py").write_text(f"""
import os, {module} as module
owner = module.{owner}
method = owner.{method}
def now(*arguments):
    before = "{method}" == "__exit__"
    if before:
        os.kill(os.getpid(), {number})
    result = method(*arguments)
    if not before:
        os.kill(os.getpid(), {number})
    return result
owner.{method} = now
""")
    before = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{folder / 'site'}:{before}"}


@pytest.mark.parametrize("moment", sorted(set(MOMENTS) - {"its-starter-is-released"}))
def test_a_signal_to_stop_is_heeded_at_any_moment(
    start: Start, tmp_path: Path, moment: str
) -> None:
    pidfile = tmp_path / "pid"
    env = signals_at(tmp_path, moment, signal.SIGTERM)
    daemon = start("", "--pidfile", str(pidfile), env=env)
    if moment == "the-pid-file-goes":
        daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert "stopping: SIGTERM" in daemon.log
    assert "stopped; 0 messages" in daemon.log
    assert not pidfile.exists()


_AT_THE_END = """
import os, signal, sys
class End:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)
sys.goes_last = End()
"""


def test_nor_does_a_signal_change_how_it_has_ended(start: Start, tmp_path: Path) -> None:
    """When Python takes itself apart it gives signals back what they do to any process."""
    (tmp_path / "sitecustomize.py").write_text(_AT_THE_END)
    daemon = start("", env={"PYTHONPATH": str(tmp_path)})
    assert daemon.stop() == 0


@pytest.mark.parametrize("moment", ["it-listens", "the-pid-file-is-written"])
def test_a_signal_to_reload_is_heeded_at_any_moment(
    start: Start, tmp_path: Path, moment: str
) -> None:
    env = signals_at(tmp_path, moment, signal.SIGHUP)
    daemon = start("port: 0\n", "--pidfile", str(tmp_path / "pid"), env=env)
    daemon.wait_log("configuration read again")
    assert daemon.stop() == 0


@pytest.mark.parametrize("moment", sorted(set(MOMENTS) - {"the-pid-file-goes"}))
def test_so_is_one_to_a_daemon_in_the_background(
    background: Background, tmp_path: Path, moment: str
) -> None:
    env = signals_at(tmp_path, moment, signal.SIGTERM)
    status, _, errors = call(
        "-c", background.config, "--daemonize", "--pidfile", background.pidfile, env=env
    )
    assert (status, errors) == (0, "")
    wait_for(lambda: not background.pidfile.exists(), "the removal of the pid file")


def test_user_signals_do_not_end_it(msgd: Daemon) -> None:
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        msgd.signal(number)
    with msgd.line_client() as client:
        assert client.ask(b"MESG still here\n") == b"MESG still here\n"
    assert msgd.stop() == 0


_FORK = """
import os, signal
from msgd.process import children
from msgd.process.signals import Signals
signals = Signals()
pid = children.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0)
print(children.reap(pid)[0], signals.take(), children.own)
"""


def test_a_signal_to_a_child_is_not_noted_in_its_parent_s_name() -> None:
    done = subprocess.run([sys.executable, "-c", _FORK], capture_output=True, text=True, timeout=20)
    assert done.stdout == f"-15 [{signal.SIGCHLD}] set()\n"


# Containers --------------------------------------------------------------------------------


@needs_namespaces
def test_process_1_buries_orphans(start: Start) -> None:
    """A child that ended before msgd ran, and one that ends while it runs."""
    wrapper = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c"]
    daemon = start("", wrapper=(*wrapper, 'true & sleep 1 & exec "$@"', "sh"))
    inner = int(Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text())
    children = Path(f"/proc/{inner}/task/{inner}/children")
    with daemon.line_client() as client:
        wait_for(lambda: children.read_text() == "", "the burial")
        client.send(b"TERM wrong\n")  # its own children are its own matter
        assert client.line() == b"PWNO\n"
    os.kill(inner, signal.SIGTERM)
    assert daemon.wait() == 0


@needs_namespaces
def test_without_proc_a_password_is_verified(start: Start, msgd: Daemon) -> None:
    hidden = 'mount -t tmpfs none /proc && exec "$@"'
    wrapper = ("unshare", "--mount", "sh", "-c", hidden, "sh")
    daemon = start(msgd.config.read_text(), wrapper=wrapper)
    with daemon.line_client() as client:
        assert client.ask(b"TERM wrong\n") == b"PWNO\n"
        assert client.ask(f"TERM {PASSWORD}\n".encode()) == b"PWOK\n"
    assert daemon.wait() == 0


def test_why_a_password_could_not_be_verified_stands_in_the_log(start: Start) -> None:
    costly = (
        "$scrypt$ln=17,r=8,p=1$LKnmI6uagaJgSY2E/umpgw$83wfq2O6s3BzcibqkWICNJXtCozUQnJ0ry3/R9VylMI"
    )
    daemon = start(f"password_hash: {costly}\nlisten: 127.0.0.1\n")
    memory = 120 << 20  # of the 128 MiB that this hash needs
    resource.prlimit(daemon.pid, resource.RLIMIT_AS, (memory, memory))
    with daemon.line_client() as client:
        assert client.ask(b"TERM wrong\n") == b"FAIL password cannot be verified now\n"
    found = daemon.wait_log(r"a password could not be verified: (.*)")
    assert "Error" in found[1]
    assert "wrong" not in found[1]
