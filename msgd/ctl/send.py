"""The verb send: its options, and which of its ways a run takes."""

from __future__ import annotations

import re
import sys

import click

from msgd.ctl.exits import end_like_interrupts
from msgd.ctl.options import common, json_option, retry_option
from msgd.ctl.retry import Retry
from msgd.ctl.settings import server

_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


class _Worded(click.Command):
    """A command whose arguments are the words of a text.

    An option between two words is an error: it would be missing in the text without a word said.
    """

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.allow_interspersed_args = False
        rest = self.make_parser(context).parse_args(list(args))[1]
        context.allow_interspersed_args = True
        at = next((at for at, word in enumerate(rest) if word[:1] == "-" and word != "-"), None)
        if at and rest[at] != "--" and self.make_parser(context).parse_args(rest[at:])[1]:
            raise click.UsageError(
                f"{rest[at]} stands between the words of the text: put options before them, or"
                " behind them, and -- before a text with such words",
                context,
            )
        return super().parse_args(context, args)


@click.command("send", cls=_Worded)
@common
@click.argument("text", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-f", "--file", "files", multiple=True, metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
    help="Send the lines of this file; may be given again.",
)  # fmt: skip
@click.option(
    "--session", metavar="ID",
    help="Message k of the input is message k of this session: what is there is left out.",
)  # fmt: skip
@click.option("--whole", is_flag=True, help="All of the input is one message, not its lines.")
@click.option("-q", "--quiet", is_flag=True, help="Print only what went wrong.")
@retry_option
@json_option
def command(
    text: tuple[str, ...], files: tuple[str, ...], session: str | None, whole: bool, quiet: bool,
    retry: float, as_json: bool,
) -> int:  # fmt: skip
    """Send messages, and print them as they are archived.

    The words of TEXT are one message. Without any, or with "-", each line of standard input is
    a message; at a terminal it is a conversation.
    """
    if text and files:
        raise click.UsageError("give either TEXT or --file")
    if session is not None and not re.fullmatch(_ID, session, re.ASCII):
        raise click.UsageError(
            f"no session is called {session!r}: 1 to 64 of letters, digits and . _ -,"
            " the first a letter or digit"
        )
    end_like_interrupts()
    if not (text or files or whole) and sys.stdin.isatty():
        from msgd.ctl.conversation import Conversation

        if as_json:
            raise click.UsageError("--json is not for a conversation")
        if session is not None:
            raise click.UsageError("--session is not for a conversation")
        return Conversation(server(), Retry(retry), quiet).run()
    from msgd.ctl.printer import Printer
    from msgd.ctl.sending import Sending
    from msgd.ctl.sources import Files, Text
    from msgd.wire.text import typed

    is_text = bool(text) and text != ("-",)
    source = Text(typed(" ".join(text))) if is_text else Files(files or ("-",), whole)
    return Sending(server(), source, Printer(source, quiet, as_json), Retry(retry), session).run()
