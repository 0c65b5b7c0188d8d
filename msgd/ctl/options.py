"""The options that verbs share, as they stand on the command line."""

from __future__ import annotations

from math import isnan
from typing import Any

import click

LONGEST = 1e6  # seconds: what the library takes, which --help need not wait for


class Seconds(click.FloatRange):
    """A number of seconds; click would take "nan", which is in no range and out of none."""

    def __init__(self, *, above_zero: bool = False) -> None:
        super().__init__(0, LONGEST, min_open=above_zero)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        if isnan(seconds):
            self.fail(f"{value!r} is not a number", param, ctx)
        return seconds


def _note(context: click.Context, option: click.Parameter, value: object) -> None:
    """Keep what the command line says of a common option; its last word counts."""
    given = context.ensure_object(dict)
    if value not in (None, False):  # a flag that is not there
        given[option.name] = value


def _option(*names: str, **more: Any) -> click.Option:
    return click.Option(names, default=None, expose_value=False, callback=_note, **more)


# What else may give their values, and their defaults, is in settings.
_COMMON = (
    _option(
        "-H", "--host", metavar="HOST",
        help="The server: name, address, either with :PORT, or the path of a socket; several"
        " with commas are tried in turn.  [MSGCTL_HOST; default: 127.0.0.1]",
    ),
    _option(
        "-p", "--port", type=click.IntRange(1, 65535), metavar="PORT",
        help="Its port.  [MSGCTL_PORT; default: the one in /etc/msgd.yaml, or 6743]",
    ),
    _option(
        "--timeout", type=Seconds(above_zero=True), metavar="SECONDS",
        help="How long to wait for an answer that is due.  [default: 10]",
    ),
    _option("--tls", is_flag=True, help="Speak TLS, and verify the server's name.  [MSGCTL_TLS]"),
    _option(
        "--ca", metavar="FILE",
        help="Its certificate must be of this authority.  [MSGCTL_CA; default: the system's]",
    ),
    _option("--cert", metavar="FILE", help="Show this certificate to the server.  [MSGCTL_CERT]"),
    _option(
        "--key", metavar="FILE",
        help="The private key of --cert.  [MSGCTL_KEY; default: in the same file]",
    ),
    _option(
        "--pin", metavar="sha256:HEX",
        help="Its certificate must be the one with this fingerprint.  [MSGCTL_PIN]",
    ),
)  # fmt: skip


def common() -> list[click.Parameter]:
    """The options that stand before the subcommand as well as behind it, for click's `params`.

    They are made once: each of them takes a while.
    """
    return [*_COMMON]


retry_option = click.option(
    "--retry", type=Seconds(), default=0.0, metavar="SECONDS",
    help="When there is no connection, keep trying for so long.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
