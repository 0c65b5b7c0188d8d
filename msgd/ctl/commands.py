"""The command line: the verbs in one table, and how a run of one ends.

A verb's file is imported when the verb is used, so that msgctl starts fast.
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from msgd import __version__
from msgd.ctl.exits import OK, USAGE, of_error, unless_closed
from msgd.ctl.options import common
from msgd.ctl.streams import complain

VERBS = ("ping", "send", "terminate")  # each is the file of this name, and `command` in it


class _Verbs(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        verb = import_module(f"msgd.ctl.{name}").command
        assert isinstance(verb, click.Command)
        return verb


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
    params=common(),
)
@click.version_option(__version__, "-V", "--version", message="msgctl %(version)s")
def msgctl() -> None:
    """Talk to msgd, which archives text messages: an echo means that a message is stored."""


def run() -> int:
    """Do what the command line says; returns the exit status."""
    try:
        return unless_closed(_run)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "msgctl"
        complain(f"{error.format_message()} (see {command} --help)")
        return USAGE
    except Exception as error:
        return of_error(error)


def _run() -> int:
    """What click's own main does, without its words and statuses for signals and closed pipes."""
    try:
        with msgctl.make_context("msgctl", sys.argv[1:]) as context:
            status = msgctl.invoke(context)
    except click.exceptions.Exit as asked:  # of --help and --version
        status = asked.exit_code
    return status if isinstance(status, int) else OK
