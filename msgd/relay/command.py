"""The command msgd-relay."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from msgd import __version__
from msgd.errors import Fatal
from msgd.process import log
from msgd.relay.errors import Denied
from msgd.relay.options import Config, ConfigError, dump, load

OK, FAILED, USAGE, BAD_CONFIG = 0, 1, 2, 78  # the last is EX_CONFIG of sysexits.h

_HELP_WIDTH = 90

_logger = logging.getLogger("msgd")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    verbose = False
    try:
        given = _parser().parse_args(arguments)
        verbose = given.verbose
        log.to_stderr(verbose=verbose, name="msgd-relay")
        config = load(given.config)
        if given.check:
            _print(dump(config))
        else:
            asyncio.run(given.run(config))
    except (ConfigError, Denied) as error:
        _logger.error("%s", error)
        return BAD_CONFIG
    except Fatal as error:
        _logger.error("%s", error, exc_info=verbose)
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except Exception as error:
        _logger.error("%s: %s", type(error).__name__, error, exc_info=verbose)
        return FAILED
    return OK


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    width = partial(argparse.HelpFormatter, width=_HELP_WIDTH)
    parser = _Parser(
        prog="msgd-relay",
        description="Carry msgd's archive to other machines, over NATS JetStream.",
        allow_abbrev=False,
        formatter_class=width,
    )
    parser.add_argument("--version", action="version", version=f"msgd-relay {__version__}")
    _add_common(parser)
    parser.set_defaults(config=None, check=False, verbose=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    for name, run, words in (
        ("ship", _ship, "publish this machine's archive"),
        ("collect", _collect, "write what is published as the same day files"),
    ):
        command = commands.add_parser(
            name, help=words, description=words.capitalize() + ".", formatter_class=width
        )
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
