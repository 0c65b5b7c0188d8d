"""Asking for a password at the terminal. What is typed is never shown, whatever signal comes.

A terminal keeps its settings when the process that changed them stops or dies: Ctrl-Z or SIGTERM
at the prompt would leave the shell without echo, and fg would show the rest of the password.
"""

from __future__ import annotations

import os
import signal
import termios
from contextlib import suppress
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class NoTerminal(Exception):
    """There is no terminal to ask at."""


class _Ended(BaseException):
    """A signal came that ends the process, once the terminal is as it was."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def ask(prompt: str) -> bytes:
    """One line from the terminal, as UTF-8; what is no text in the locale comes as it was typed.

    Raises `NoTerminal`, KeyboardInterrupt, and EOFError at the end of the file.
    """
    terminal = _open()
    try:
        line = _Hidden(terminal, prompt.encode()).line()
    except _Ended as ended:
        signal.raise_signal(ended.number)  # what it means is decided by whoever handled it before
        raise EOFError from None
    except (OSError, termios.error):
        raise EOFError from None  # the terminal is gone
    finally:
        os.close(terminal)
    if not line:
        raise EOFError
    return os.fsdecode(line.removesuffix(b"\n")).encode("utf-8", "surrogateescape")


def _open() -> int:
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        if os.isatty(0):
            return os.dup(0)
        raise NoTerminal from None


class _Hidden:
    """A terminal that does not show what is typed, except while this process is stopped."""

    def __init__(self, terminal: int, prompt: bytes) -> None:
        self._terminal = terminal
        self._prompt = prompt
        self._before = termios.tcgetattr(terminal)

    def line(self) -> bytes:
        handled = [
            (number, signal.getsignal(number))
            for number in (signal.SIGTSTP, signal.SIGCONT, *_ENDING)
            if signal.getsignal(number) is not signal.SIG_IGN
        ]
        try:
            for number, _ in handled:
                signal.signal(number, self._handle)
            self._hide()
            return os.read(self._terminal, 4096)
        finally:
            self._show()
            for number, handler in handled:
                signal.signal(number, handler)
            with suppress(OSError):
                os.write(self._terminal, b"\n")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTSTP:
            self._stop()
        elif number == signal.SIGCONT:  # it was stopped by SIGSTOP: the shell has made it visible
            self._hide()
        else:
            raise _Ended(number)

    def _stop(self) -> None:
        """Be stopped as without a handler: not at all where nobody could continue us."""
        self._show()
        for number in (signal.SIGTSTP, signal.SIGCONT):
            signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        for number in (signal.SIGTSTP, signal.SIGCONT):
            signal.signal(number, self._handle)
        self._hide()

    def _hide(self) -> None:
        settings = termios.tcgetattr(self._terminal)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(self._terminal, termios.TCSAFLUSH, settings)
        os.write(self._terminal, self._prompt)

    def _show(self) -> None:
        with suppress(termios.error):
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)
