"""How msgctl ends: its exit statuses, and the one place that makes them of errors."""

from __future__ import annotations

from collections.abc import Callable

from msgd.ctl.streams import complain, discard_output

# 69 and 77 are EX_UNAVAILABLE and EX_NOPERM of sysexits(3). What a signal ends counts as 128
# and the signal's number, as in a shell.
OK, REFUSED, USAGE, UNAVAILABLE, NO_PERMISSION = 0, 1, 2, 69, 77
HUNG_UP, INTERRUPTED, BROKEN_PIPE, TERMINATED = 129, 130, 141, 143


class BadSetting(Exception):
    """What was asked for cannot be meant: str() says where it stands, and what is wrong."""


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP: the work ends as with Ctrl-C, and says how far it came."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__()
        self.name, self.status = name, status


def end_like_interrupts() -> None:
    """From here on SIGTERM and SIGHUP are `Ended`, unless they were ignored (as by nohup)."""
    import signal  # and its enumerations, which --version and --help need not wait for

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # the second one ends it at once
        raise Ended(signal.Signals(number).name, 128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


def why_ended(error: KeyboardInterrupt) -> tuple[str, int]:
    """The word for people, and the exit status."""
    if isinstance(error, Ended):
        return f"ended by {error.name}", error.status
    return "interrupted", INTERRUPTED


def interrupted(error: KeyboardInterrupt) -> int:
    """Say it; the exit status."""
    why, status = why_ended(error)
    complain(why)
    return status


def words(error: OSError) -> str:
    """The error and its file, where it has one, for one line."""
    return f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}"


def unless_closed(verb: Callable[[], int]) -> int:
    """Run the verb; where nobody reads standard output any more, say so and end."""
    try:
        return verb()
    except BrokenPipeError:
        discard_output()
        complain("standard output was closed")
        return BROKEN_PIPE


def of_error(error: Exception) -> int:
    """Say what went wrong, in one line; the exit status."""
    match error:
        case MemoryError():
            complain("not enough memory")
            return REFUSED
        case OSError():
            complain(words(error))
            return REFUSED
        case BadSetting():
            complain(str(error))
            return USAGE
    from msgd.client import MsgdError, Refused

    if isinstance(error, MsgdError):
        complain(str(error))
        return REFUSED if isinstance(error, Refused) else UNAVAILABLE
    complain(f"a bug in msgctl: {type(error).__name__}: {error}")
    return REFUSED
