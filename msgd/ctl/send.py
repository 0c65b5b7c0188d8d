"""The verb send: its options, and which of its ways a run takes."""

from __future__ import annotations

import sys

import click

from msgd.client.servers import checked_session
from msgd.ctl.exits import end_like_interrupts
from msgd.ctl.options import common, json_option, retry_option
from msgd.ctl.retry import Retry
from msgd.ctl.settings import server


class _Worded(click.Command):
    """A command whose arguments are the words of a text.

    An option between two words is an error: it would be missing in the text without a word said.
    """

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if not any(word[:1] == "-" for word in args[1:]):
            return super().parse_args(context, args)  # as mostly: the rest takes a while
        words = self._text(context, args, up_to_the_first_word=True)
        behind_dashes = args[: len(args) - len(words)][-1:] == ["--"]
        at = next((at for at, word in enumerate(words) if word[:1] == "-" and word != "-"), 0)
        if at and not behind_dashes and words[at] != "--" and self._text(context, words[at:]):
            raise click.UsageError(
                f"{words[at]} stands between the words of the text: put options before them, or"
                " behind them, and -- before a text with such words",
                context,
            )
        return super().parse_args(context, args)

    def _text(
        self, context: click.Context, args: list[str], up_to_the_first_word: bool = False
    ) -> list[str]:
        """The words of the text; or all that begins with the first of them."""
        context.allow_interspersed_args = not up_to_the_first_word
        found = self.make_parser(context).parse_args(list(args))[0].get("text")
        context.allow_interspersed_args = True
        return list(found) if isinstance(found, tuple) else []


@click.command("send", cls=_Worded, params=common())
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
    if session is not None:
        try:
            checked_session(session)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
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
    printer = Printer(source, quiet, as_json)
    return Sending(server(), source, printer, Retry(retry, quiet=quiet), session).run()
