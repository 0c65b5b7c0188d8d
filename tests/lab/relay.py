"""msgd-relay, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.lab.proc import takes_signal
from tests.lab.waiting import SECONDS, wait_for


class Relay:
    """`msgd-relay ship` or `collect`, with a configuration of its own."""

    def __init__(
        self,
        folder: Path,
        verb: str,
        config: str,
        env: Mapping[str, str] | None = None,
        inside: tuple[str, ...] = (),
    ) -> None:
        """``inside`` is what the command begins with."""
        folder.mkdir(parents=True, exist_ok=True)
        self.verb, self._env, self._inside = verb, env or {}, inside
        self.config = folder / f"{verb}.yaml"
        self.config.write_text(config)
        self._log = folder / f"{verb}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        program = [sys.executable, "-m", "msgd.relay.command", self.verb]
        command = [*self._inside, *program, "-c", str(self.config)]
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=log, env={**os.environ, **self._env}
            )

    @property
    def log(self) -> str:
        """What it has said so far, over all starts."""
        return self._log.read_text()

    def wait_log(self, pattern: str) -> None:
        def found() -> bool:
            assert self.process is not None
            if re.search(pattern, self.log):
                return True
            assert self.process.poll() is None, f"it has ended, without {pattern!r}: {self.log}"
            return False

        wait_for(found, f"{pattern!r} in the log")

    def stop(self) -> int:
        """As asked, once it can be; its exit status."""
        process = self.process
        assert process is not None
        wait_for(lambda: process.poll() is not None or takes_signal(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGTERM)
        return process.wait(SECONDS)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
