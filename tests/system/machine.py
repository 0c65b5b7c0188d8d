"""One booted throw-away machine: an overlay snapshot of the golden image under systemd-nspawn.

The mounts are made in a mount namespace that ends with the container, so the host never sees
them. `stop` ends every process of the machine's own cgroup and removes it. After a test run
that was itself killed, nspawn dies with it (PR_SET_PDEATHSIG), and the next run removes the rest.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

BOOT_SECONDS = 60
POWEROFF_SECONDS = 30
COMMAND_SECONDS = 60
CGROUP_HIERARCHIES = ("", "systemd", "unified")  # pure version 2, or version 1 and hybrid
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "cat",
    "DEBIAN_FRONTEND": "noninteractive",
}

# The snapshot's upper layer is a tmpfs, so that writes cost nothing and vanish.
SNAPSHOT = """
mount -t tmpfs -o size=1g,mode=755 msgd-test {rw}
mkdir {rw}/upper {rw}/work
mount -t overlay -o lowerdir={image},upperdir={rw}/upper,workdir={rw}/work msgd-test {root}
exec "$@"
"""

T = TypeVar("T")
_numbers = itertools.count(1)


def why_not() -> str | None:
    """The reason why no machine can be booted here, or None."""
    if os.geteuid() != 0:
        return "booting a machine needs root"
    for tool in ("systemd-nspawn", "debootstrap", "nsenter", "setpriv", "unshare"):
        if shutil.which(tool) is None:
            return f"booting a machine needs {tool}"
    if subprocess.run(["unshare", "--mount", "true"], stderr=subprocess.DEVNULL).returncode:
        return "booting a machine needs the right to mount"
    return None


def wait_for(what: Callable[[], T | None], seconds: float = 20.0, why: str = "") -> T:
    """Call `what` until it gives something true, and return that; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < end, f"not within {seconds} s: {why or what}"
        time.sleep(0.03)
    return result


class Machine:
    """A booted container; `run` enters it, `stop` (or leaving the context) removes it."""

    def __init__(self, image: Path) -> None:
        self.name = f"msgd-{os.getpid()}-{next(_numbers)}"
        self._folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self._cgroups = _make_cgroups(self.name)
        self._console = (self._folder / "console").open("wb")
        self._nspawn = self._start(image)
        try:
            self.leader = wait_for(self._find_leader, BOOT_SECONDS, "PID 1")
            wait_for(self._is_up, BOOT_SECONDS, "systemctl is-system-running")
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(
        self,
        *command: str,
        check: bool = True,
        input: str = "",
        seconds: float = COMMAND_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine. With `check`, a status other than 0 fails the test."""
        done = subprocess.run(
            self.command(*command),
            text=True,
            capture_output=True,
            timeout=seconds,
            input=input,
        )
        words = f"{shlex.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        assert not check or done.returncode == 0, words
        return done

    def shell(self, text: str, **options: object) -> str:
        """The output of a piece of shell, without the last line feed."""
        return self.run("bash", "-ec", text, **options).stdout.rstrip("\n")  # type: ignore[arg-type]

    def command(self, *command: str) -> list[str]:
        """The command on the host that runs `command` in the machine.

        nsenter alone keeps the host's capabilities (with CAP_SYS_TIME `date -s` would set the
        real clock); setpriv leaves only those of the container.
        """
        enter = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        limit = ["setpriv", f"--bounding-set={_dropped(self.leader)}", "--inh-caps=-all"]
        settings = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        return [*enter, "--", *limit, "env", "-i", *settings, *command]

    def path(self, inside: str) -> Path:
        """A path of the machine, for reading and writing from the host."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def push(self, source: Path, inside: str) -> None:
        """Copy a file of the host into the machine."""
        self.path(inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, self.path(inside))

    def stop(self) -> None:
        """Power off, by force where it must be, and remove every trace."""
        if self._nspawn.poll() is None and hasattr(self, "leader"):
            with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
                self.run("systemctl", "--no-block", "poweroff", check=False)
                self._nspawn.wait(POWEROFF_SECONDS)
        self._nspawn.kill()
        self._nspawn.wait()
        self._console.close()
        for cgroup in self._cgroups:
            wait_for(lambda cgroup=cgroup: _empty(cgroup), why=f"{cgroup} empty")  # type: ignore[misc]
        shutil.rmtree(self._folder)

    def _start(self, image: Path) -> subprocess.Popen[bytes]:
        rw, root = self._folder / "rw", self._folder / "root"
        rw.mkdir()
        root.mkdir()
        snapshot = SNAPSHOT.format(rw=rw, image=image, root=root)
        ending = ["setpriv", "--pdeathsig=KILL"]
        namespace = ["unshare", "--mount", "--propagation=private", "--fork", "--kill-child"]
        nspawn = [
            "systemd-nspawn",
            "--quiet",
            f"--directory={root}",
            f"--machine={self.name}",
            "--register=no",
            "--keep-unit",
            "--boot",
            "--private-network",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
            "--console=pipe",
            "--kill-signal=SIGRTMIN+4",
            "--system-call-filter=bpf",  # else IPAddressDeny= and DevicePolicy= do nothing
        ]
        return subprocess.Popen(
            [*ending, *namespace, "sh", "-ec", snapshot, "sh", *nspawn],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
            env={"PATH": ENVIRONMENT["PATH"], "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            preexec_fn=lambda: _join(self._cgroups),
            start_new_session=True,
        )

    def _find_leader(self) -> int | None:
        """The descendant of nspawn that is PID 1 of the new PID namespace."""
        assert self._nspawn.poll() is None, (self._folder / "console").read_text()
        return next((p for p in _descendants(self._nspawn.pid) if _is_init(p)), None)

    def _is_up(self) -> bool:
        state = self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
        return state in ("running", "degraded")


def _make_cgroups(name: str) -> list[Path]:
    """A cgroup of its own in each hierarchy of systemd; else two containers on one host share
    one, and kill each other's services."""
    cgroups = []
    for hierarchy in CGROUP_HIERARCHIES:
        top = Path("/sys/fs/cgroup", hierarchy)
        if (top / "cgroup.procs").exists():
            _remove_stale(top)
            (top / name).mkdir()
            cgroups.append(top / name)
    return cgroups


def _remove_stale(top: Path) -> None:
    """Remove what a killed run has left: cgroups of machines whose test process is gone."""
    for cgroup in top.glob("msgd-*-*"):
        owner = cgroup.name.split("-")[1]
        if owner.isdecimal() and not Path("/proc", owner).exists():
            _empty(cgroup)


def _join(cgroups: list[Path]) -> None:
    for cgroup in cgroups:
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def _empty(cgroup: Path) -> bool:
    """End what is left in the cgroup and remove it; false while something is still dying."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        for pid in Path(folder, "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            os.rmdir(folder)
        except OSError:
            return False
    return True


def _descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in map(int, children):
            found += [child, *_descendants(child)]
    return found


def _is_init(pid: int) -> bool:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        named = dict(line.split(":", 1) for line in status.splitlines())
        return named["Name"].strip() == "systemd" and named["NSpid"].split()[-1] == "1"
    return False


def _dropped(pid: int) -> str:
    """What setpriv takes away: every capability that is not in the bounding set of `pid`."""
    status = Path(f"/proc/{pid}/status").read_text()
    bounding = int(next(x for x in status.splitlines() if x.startswith("CapBnd")).split()[1], 16)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    return ",".join(f"-cap_{n}" for n in range(last + 1) if not bounding >> n & 1)
