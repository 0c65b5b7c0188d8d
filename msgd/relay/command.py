"""The command msgd-relay."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from functools import partial

from msgd import __version__
from msgd.errors import Fatal
from msgd.process import log
from msgd.process.command import Parser, exit_status
from msgd.relay.errors import Denied
from msgd.relay.options import Config, ConfigError, dump, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    given = _parser().parse_args(arguments)
    log.to_stderr(verbose=given.verbose, name="msgd-relay")
    return exit_status(partial(_run, given), (ConfigError, Denied), verbose=given.verbose)


def _run(given: argparse.Namespace) -> None:
    config = load(given.config)
    if given.check:
        _print(dump(config))
    else:
        asyncio.run(given.run(config))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="msgd-relay",
        description="Carry msgd's archive to other machines, over NATS JetStream.",
    )
    parser.add_argument("--version", action="version", version=f"msgd-relay {__version__}")
    _add_common(parser)
    parser.set_defaults(config=None, check=False, verbose=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for name, run, words in (
        ("ship", _ship, "publish this machine's archive"),
        ("collect", _collect, "write what is published as the same day files"),
    ):
        command = commands.add_parser(name, help=words, description=words.capitalize() + ".")
        _add_common(command)
        command.set_defaults(run=run)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Options that are taken before the command and after it."""
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add("-c", "--config", metavar="FILE", help="configuration (/etc/msgd-relay.yaml if it exists)")
    add("--check", action="store_true", help="show the effective configuration; start nothing")
    add("-v", "--verbose", action="store_true", help="log tracebacks too")


async def _ship(config: Config) -> None:
    from msgd.relay.engine import Engine
    from msgd.relay.program import Program
    from msgd.relay.ship import Ship

    program = Program(config.metrics_file)
    engine = Engine(config, f"_INBOX.{config.node}")
    await program.run(Ship(config, engine, program).run())


async def _collect(config: Config) -> None:
    from msgd.relay.collect import Collect
    from msgd.relay.copies import Copies
    from msgd.relay.engine import Engine
    from msgd.relay.program import Program

    program = Program(config.metrics_file)
    engine = Engine(config, "_INBOX.collect")
    copies = Copies(config.collect)
    try:
        await program.run(Collect(config, engine, copies, program).run())
    finally:
        copies.close()


def _print(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # What could not be written is still buffered; Python would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Fatal(f"standard output: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
