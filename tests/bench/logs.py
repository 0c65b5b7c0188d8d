"""Runs handlers.py: a program that logs, on the clients' core, to a server on the other."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass

from .pairs import Figures
from .peers import PEERS
from .process import LOAD_CORE, BenchError, pinned, wait_until
from .stand import Stand
from .tools import HERE, ROOT, python

PEER_OF = {
    "MsgdHandler": "msgd",
    "SysLogHandler": "rsyslog imptcp",
    "SocketHandler": "logging receiver",
}


@dataclass(frozen=True, slots=True)
class Log:
    """Records a second: `logged` by the program, `rate` until the last is in the server's file."""

    kind: str
    records: int = 50_000

    def __call__(self, stand: Stand) -> Figures:
        peer, records = PEERS[PEER_OF[self.kind]], stand.scaled(self.records)
        with (
            stand.fresh() as directory,
            peer.serve(stand.tools, directory, peer.not_synced) as served,
        ):
            times = self._run(served.port, records)
            wait_until(lambda: served.archived() >= records, "all records are archived")
            end = times["closed"] if peer.acknowledges else time.monotonic()
            if served.archived() != records:
                raise BenchError(f"{records} records, {served.archived()} are archived")
        begin = times["begin"]
        return {"logged": records / (times["logged"] - begin), "rate": records / (end - begin)}

    def _run(self, port: int, records: int) -> dict[str, float]:
        command = [python(), str(HERE / "handlers.py"), "log", self.kind, str(port), str(records)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            pinned(LOAD_CORE, command), env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0 or done.stderr:
            raise BenchError(f"{self.kind}: {done.stderr.strip()[-200:]}")
        times: dict[str, float] = json.loads(done.stdout)
        return times
