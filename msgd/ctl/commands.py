"""The verbs of msgctl, and their options.

Each verb imports what it needs when it runs, so that msgctl starts fast. It returns its exit
status; errors come here as exceptions and leave as one line on standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from math import isnan
from typing import TYPE_CHECKING, Any, TypeVar

import click

from msgd import __version__
from msgd.ctl.manners import (
    INTERRUPTED,
    OK,
    REFUSED,
    UNAVAILABLE,
    USAGE,
    complain,
    unless_closed,
    words,
)

if TYPE_CHECKING:
    from msgd.client.client import Client

CONFIG = "/etc/msgd.yaml"  # where the port of this machine's own msgd is looked up

_MOST = 1e6  # seconds; what does not fit poll(2)'s 31 bits of milliseconds overflows

Verb = TypeVar("Verb", bound=Callable[..., Any])


class _Seconds(click.FloatRange):
    """A number of seconds; click would take "nan", which is in no range and out of none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if isnan(seconds):
            self.fail(f"{value!r} is not a number", param, ctx)
        return seconds


def _note(context: click.Context, option: click.Parameter, value: object) -> None:
    """Keep the value of a common option; the command line wins, and its last word."""
    source = context.get_parameter_source(option.name or "")
    settings = context.ensure_object(dict)
    if source is click.core.ParameterSource.COMMANDLINE or option.name not in settings:
        settings[option.name] = value


def _common(verb: Verb) -> Verb:
    """The options that stand before the subcommand as well as behind it."""
    options = [
        click.option(
            "-H", "--host", envvar="MSGCTL_HOST", default="127.0.0.1", show_default=True,
            show_envvar=True, expose_value=False, callback=_note, metavar="HOST",
            help="Name or address of the server.",
        ),
        click.option(
            "-p", "--port", envvar="MSGCTL_PORT", type=click.IntRange(1, 65535),
            show_envvar=True, expose_value=False, callback=_note, metavar="PORT",
            help="Its port.  [default: the one in /etc/msgd.yaml, or 6743]",
        ),
        click.option(
            "--timeout", type=_Seconds(0, _MOST, min_open=True), default=10.0,
            metavar="SECONDS", show_default=True, expose_value=False, callback=_note,
            help="How long to wait for a server that makes no progress.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        verb = option(verb)
    return verb


_retry = click.option(
    "--retry", type=_Seconds(0, _MOST), default=0.0, metavar="SECONDS",
    help="When there is no connection, keep trying for so long.",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(__version__, "-V", "--version", message="msgctl %(version)s")
@_common
def msgctl() -> None:
    """Talk to msgd, which archives text messages: an echo means that a message is stored."""


@msgctl.command()
@_common
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="Stop after N answers.")
@click.option(
    "-i", "--interval", type=_Seconds(0, _MOST), default=1.0, show_default=True,
    metavar="SECONDS", help="Wait so long between two.",
)  # fmt: skip
@_retry
@_json
def ping(count: int | None, interval: float, retry: float, as_json: bool) -> int:
    """Measure the round-trip time to the server."""
    from msgd.ctl.pinging import Pinging
    from msgd.ctl.retry import Retry

    pinging = Pinging(_connect, Retry(retry), as_json)
    return unless_closed(lambda: pinging.run(count, interval))


@msgctl.command()
@_common
@click.argument("text", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-f", "--file", "files", multiple=True, metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
    help="Send the lines of this file; may be given again.",
)  # fmt: skip
@click.option("--whole", is_flag=True, help="All of the input is one message, not its lines.")
@click.option("-q", "--quiet", is_flag=True, help="Do not print the echoes.")
@_retry
@_json
def send(
    text: tuple[str, ...], files: tuple[str, ...], whole: bool, quiet: bool, retry: float,
    as_json: bool,
) -> int:  # fmt: skip
    """Send messages, and print them as they are archived.

    The words of TEXT are one message. Without any, or with "-", each line of standard input is
    a message; at a terminal it is a conversation.
    """
    if text and files:
        raise click.UsageError("give either TEXT or --file")
    from msgd.ctl.retry import Retry

    if not (text or files or whole) and sys.stdin.isatty():
        from msgd.ctl.conversation import Conversation

        if as_json:
            raise click.UsageError("--json is not for a conversation")
        return unless_closed(Conversation(Retry(retry).connected(_connect), quiet).run)
    from msgd.ctl.lines import Files, Text
    from msgd.ctl.printer import Printer
    from msgd.ctl.sending import Sending
    from msgd.wire.text import typed

    is_text = bool(text) and text != ("-",)
    source = Text(typed(" ".join(text))) if is_text else Files(files or ("-",), whole)
    return Sending(_connect, source, Printer(source, quiet, as_json), Retry(retry)).run()


@msgctl.command()
@_common
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
def terminate(password_stdin: bool) -> int:
    """Ask the server to stop, with its password."""
    from msgd.ctl.terminating import terminate

    client = _connect()
    return unless_closed(lambda: terminate(client, password_stdin))


def _connect() -> Client:
    """Connect as the common options say."""
    from msgd.client.client import Client

    settings = click.get_current_context().obj
    return Client(settings["host"], settings["port"] or _usual_port(), settings["timeout"])


def _usual_port() -> int:
    """The port of this machine's own msgd, where its configuration may be read."""
    from msgd.client.client import PORT

    if not os.access(CONFIG, os.R_OK):
        return PORT
    from msgd.config.options import ConfigError, load

    try:
        return load(CONFIG).port or PORT
    except ConfigError as error:
        complain(f"{error}; using port {PORT}")
        return PORT


def run() -> int:
    """Do what the command line says; returns the exit status."""
    try:
        status = msgctl.main(prog_name="msgctl", standalone_mode=False)
        return status if isinstance(status, int) else OK
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "msgctl"
        complain(f"{error.format_message()} (see {command} --help)")
        return USAGE
    except click.Abort:
        complain("interrupted")
        return INTERRUPTED
    except OSError as error:
        complain(words(error))
        return REFUSED
    except Exception as error:
        from msgd.client.client import MsgdError, Refused

        if not isinstance(error, MsgdError):
            raise
        complain(str(error))
        return REFUSED if isinstance(error, Refused) else UNAVAILABLE
