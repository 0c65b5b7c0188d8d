"""The C programs: built with cc, run on their own core, their JSON read back."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .process import LOAD_CORE, BenchError, pinned

HERE = Path(__file__).parent
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion")


@dataclass(frozen=True, slots=True)
class Work:
    """What the generator is to push; the defaults are the usual work of 100-byte texts."""

    messages: int
    connections: int = 1
    size: int = 100
    kind: str = "ascii"
    window: int | None = None
    waiters: int = 0
    waiter_messages: int = 0
    session: bool = False

    @property
    def lines(self) -> int:
        """Lines of a message: the generator's `more` has ten."""
        return 10 if self.kind == "more" else 1

    def options(self) -> list[str]:
        numbers = {
            "messages": self.messages,
            "connections": self.connections,
            "size": self.size,
            "waiters": self.waiters,
            "waiter-messages": self.waiter_messages,
        }
        chosen = [f"--{name}={value}" for name, value in numbers.items()]
        if self.window is not None:
            chosen.append(f"--window={self.window}")
        if self.session:
            chosen.append("--session")
        return [*chosen, f"--kind={self.kind}"]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave: messages, seconds, waits in microseconds."""

    messages: int
    acknowledged: bool
    seconds: float
    p50_us: float = 0.0
    p99_us: float = 0.0
    worst_us: float = 0.0
    waits: int = 0


def build(directory: Path) -> None:
    """Compiles load and limit into `directory`. Raises BenchError with the compiler's words."""
    load = ["load.c", "traffic.c", "connect.c", "wire.c"]
    for name, sources in {"load": load, "limit": ["limit.c"]}.items():
        paths = [str(HERE / source) for source in sources]
        command = ["cc", *FLAGS, "-o", str(directory / name), *paths, "-lssl", "-lcrypto"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"cc: {done.stderr.strip()}")


def make_lines(program: Path, path: Path, work: Work) -> None:
    """A file of the work's texts, one a line. Raises BenchError."""
    with path.open("wb") as file:
        command = [str(program), "--wire=pipe", *work.options()]
        if subprocess.run(command, stdout=file, timeout=60, check=False).returncode != 0:
            raise BenchError(f"{path} could not be written")


def push_to_pipe(program: Path, reader: subprocess.Popen[bytes], work: Work) -> Run:
    """Writes the work to the reader's pipe; it is done when the reader has ended."""
    assert reader.stdin is not None
    begin = time.monotonic()
    command = [str(program), "--wire=pipe", *work.options()]
    done = subprocess.run(pinned(LOAD_CORE, command), stdout=reader.stdin, timeout=60, check=False)
    reader.stdin.close()
    if done.returncode != 0 or reader.wait(60) != 0:
        raise BenchError("the pipe broke")
    return Run(work.messages, False, time.monotonic() - begin)


def target(wire: str, port: int, path: Path | None = None, *, tls: bool = False) -> list[str]:
    """The generator's options that say where to connect."""
    options = [f"--wire={wire}", f"--port={port}"]
    options += [f"--path={path}"] if path is not None else []
    return options + (["--tls"] if tls else [])


def push(
    program: Path, where: list[str], work: Work, *, file: Path | None = None, seconds: int = 60
) -> Run:
    """Runs the generator to its end. Raises BenchError when a reply was wrong or time ran out."""
    command = [str(program), *where, f"--timeout={seconds}", *work.options()]
    if file is not None:
        command.append(f"--count-file={file}")
    try:
        done = subprocess.run(
            pinned(LOAD_CORE, command),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + 10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"load: no end after {seconds + 10} s") from None
    if done.returncode != 0:
        raise BenchError(done.stderr.strip() or f"load: status {done.returncode}")
    return Run(**json.loads(done.stdout))
