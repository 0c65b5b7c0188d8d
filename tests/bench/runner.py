"""One run of one case: a fresh server on a fresh directory, the work, the count of its archive."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .cases import Case
from .generator import Run, Work, push, push_to_pipe
from .peers import PEERS, Served, Tools
from .process import BenchError

MOST_PAGES = 1 << 30  # bytes
RECORD_BYTES = 80  # what an archive may add to a text


@contextmanager
def fresh_directory(parent: Path) -> Iterator[Path]:
    """Gone at the end, so that no run leaves its archive to the next one's disk."""
    path = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def use_pages(directory: Path, work: Work) -> None:
    """Fill as much page cache as a run needs, and free it again.

    A page that a virtual machine has never used costs several times as much on its first use: what
    runs first would pay for all.
    """
    path = directory / "pages"
    need = min(work.messages * work.lines * (work.size + RECORD_BYTES), MOST_PAGES)
    block = bytes(1 << 20)
    with path.open("wb", buffering=0) as file:
        for _ in range(need // len(block) + 1):
            file.write(block)
    path.unlink()


def run_case(case: Case, tools: Tools, parent: Path, scale: float) -> Run:
    """Raises BenchError when the work was not done, or acknowledged and archived differ."""
    peer = PEERS[case.peer]
    sync = peer.synced if case.synced else peer.not_synced
    assert sync is not None
    work = scaled(case.work, scale)
    use_pages(parent, work)
    with fresh_directory(parent) as directory, peer.serve(tools, directory, sync) as served:
        run = _push(tools, peer.wire, served, work)
        archived = served.archived()
    expected = run.messages * (case.work.lines if peer.wire == "echo" else 1)
    if archived != expected:
        raise BenchError(f"{expected} messages were confirmed, {archived} are archived")
    return run


def _push(tools: Tools, wire: str, served: Served, work: Work) -> Run:
    program = tools.built / "load"
    if served.pipe is not None:
        return push_to_pipe(program, served.pipe, work)
    return push(program, wire, served.port, work, count_file=served.count_file)


def scaled(work: Work, scale: float) -> Work:
    """The same work, less of it; at least two messages a connection."""
    messages = max(int(work.messages * scale), 2 * work.connections)
    return replace(work, messages=messages, waiter_messages=int(work.waiter_messages * scale))
