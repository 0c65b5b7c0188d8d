"""The conversation: `msgctl send` at a terminal, line by line."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from msgd.client import Client, ConnectionLost, MsgdError, Refused
from msgd.ctl.exits import INTERRUPTED, OK, REFUSED, UNAVAILABLE, Ended, why_ended
from msgd.ctl.history import History
from msgd.ctl.retry import Retry
from msgd.ctl.settings import Server
from msgd.ctl.streams import complain, harmless, say, whole_text
from msgd.ctl.terminate import ask_password, offer
from msgd.wire.text import typed


class Conversation:
    """One run of it; `run` returns the exit status."""

    def __init__(self, where: Server, retry: Retry, quiet: bool) -> None:
        self._server = where
        self._retry = retry
        self._quiet = quiet
        self._status = OK
        self._client: Client | None = None

    def run(self) -> int:
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        self._client = self._retry.connected(self._server.connect)
        with _echoes_apart() as self._echoes, History():
            say(
                f"Connected to {self._client.address}. Each line is a message;"
                " Ctrl-D leaves, terminate stops the server."
            )
            prompt = _coloured("msgd> ", "1;36", sys.stdout, in_prompt=True)
            try:
                while self._turn(input(prompt)):
                    pass
            except Ended as ended:
                self._status = why_ended(ended)[1]
            except (EOFError, KeyboardInterrupt):
                say("")
        self._hang_up()
        return self._status

    def _turn(self, line: str) -> bool:
        """One line; false when it was the last."""
        try:
            if line == "terminate":
                return self._terminate()
            if line:  # Enter alone is no message
                self._send(typed(line))
        except Refused as refused:
            self._status = REFUSED
            complain(f"refused: {refused.reason}")
        return True

    def _send(self, text: bytes) -> None:
        try:
            archived = harmless_lines(self._connected().send(text))
        except Refused:
            raise
        except MsgdError as error:
            self._hang_up()
            self._status = UNAVAILABLE
            fate = "is not confirmed" if isinstance(error, ConnectionLost) else "was not sent"
            complain(f"{error}: the last line {fate}")
        except KeyboardInterrupt:
            self._status = INTERRUPTED
            complain("interrupted: the last line is not confirmed")
            raise
        else:
            if not self._quiet:
                print(_coloured(archived, "32", self._echoes), file=self._echoes)

    def _terminate(self) -> bool:
        try:
            return not offer(self._connected(), ask_password())
        except EOFError:
            say("No password: the server goes on.")
        except Refused:
            raise
        except MsgdError as error:
            self._hang_up()
            self._status = UNAVAILABLE
            complain(f"{error}: it is not known whether the server stops")
        return True

    def _connected(self) -> Client:
        """The connection, or a new one where it has broken since the last line."""
        if self._client is None or self._client.closed_by_server():
            self._hang_up()
            self._client = self._server.connect()
            complain(f"connected again to {self._client.address}")
        return self._client

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def harmless_lines(text: str) -> str:
    """An echo for a terminal; whatever it is that listens there."""
    return "\n".join(map(harmless, text.split("\n")))


@contextmanager
def _echoes_apart() -> Iterator[TextIO]:
    """Where echoes go. While standard output is none, the terminal takes its place.

    So prompts, which readline writes to descriptor 1, never stand in a redirected output.
    """
    if sys.stdout.isatty():
        yield sys.stdout
        return
    _check_readers(1)
    try:
        terminal = os.open("/dev/tty", os.O_WRONLY | os.O_NOCTTY)
    except OSError:  # none that is ours: then it is the one that is read from
        terminal = os.dup(0)
    echoes = os.dup(1)
    os.dup2(terminal, 1)
    os.close(terminal)
    try:
        yield whole_text(echoes, sys.stdout.encoding)
    finally:
        os.dup2(echoes, 1)
        os.close(echoes)


def _check_readers(descriptor: int) -> None:
    """Raises BrokenPipeError where nobody reads this pipe, before anything is typed for it."""
    poll = select.poll()
    poll.register(descriptor, 0)
    if any(found & select.POLLERR for _, found in poll.poll(0)):
        raise BrokenPipeError


def _coloured(text: str, code: str, stream: TextIO, in_prompt: bool = False) -> str:
    """With colour at a terminal, unless NO_COLOR says otherwise (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    begin, end = f"\x1b[{code}m", "\x1b[0m"
    if in_prompt:  # readline has to know what takes no room on the line
        begin, end = f"\x01{begin}\x02", f"\x01{end}\x02"
    return f"{begin}{text}{end}"
