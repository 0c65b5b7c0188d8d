"""The command msgd. It starts fast: what only some ways of calling it need is imported there."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial

from msgd import __version__
from msgd.config.options import OPTIONS, Config, ConfigError, Source, dump
from msgd.errors import Fatal
from msgd.process import log
from msgd.process.command import Parser, exit_status

_logger = logging.getLogger("msgd")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    gc.disable()  # what is loaded stays: to look for garbage in it is a tenth of the start
    _hold_standard_streams()
    given = _parser().parse_args(arguments)
    log.to_stderr(verbose=given.verbose)
    return exit_status(partial(given.run, given), (ConfigError,), verbose=given.verbose)


def _hold_standard_streams() -> None:
    """Where 0, 1 or 2 is closed, no socket or file may take its place and be written to."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="msgd",
        description="Archive text messages that arrive over TCP; the echo is the receipt.",
    )
    parser.set_defaults(run=_serve)
    add = parser.add_argument
    add(
        "-c", "--config", metavar="FILE", type=_path,
        help="configuration (/etc/msgd.yaml where that exists)",
    )  # fmt: skip
    add("-p", "--port", metavar="N", type=_port, help="TCP port, 0 for any; overrides the file")
    add(
        "-d", "--log-directory", metavar="DIR", type=_directory,
        help="the archive; overrides the file",
    )  # fmt: skip
    add("--check", action="store_true", help="show the effective configuration; start nothing")
    add("--daemonize", action="store_true", help="go to the background, and log to syslog")
    add("--pidfile", metavar="FILE", help="name the daemon's process there while it runs")
    add("-v", "--verbose", action="store_true", help="log connects, disconnects and tracebacks")
    add("--version", action="version", version=f"msgd {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    command = commands.add_parser("hash-password", help="print a string for password_hash")
    command.set_defaults(run=_hash_password)
    command = commands.add_parser("make-tls", help="make certificates for TLS, and an authority")
    command.add_argument(
        "--client", metavar="NAME", help="for a client, by the authority that is in DIR"
    )
    command.add_argument("directory", metavar="DIR", type=_directory, help="where they are made")
    command.add_argument("hosts", metavar="HOST", nargs="*", help="name or address of this machine")
    command.set_defaults(run=_make_tls, parser=command)
    return parser


def _port(text: str) -> object:
    kind = next(option.kind for option in OPTIONS if option.name == "port")
    try:
        return kind.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _path(text: str) -> str:
    if not text:  # of a variable that is not set; it would mean the folder where one stands
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def _directory(text: str) -> str:
    return os.path.abspath(_path(text))  # a daemon changes to /, and reads its arguments again


def _serve(given: argparse.Namespace) -> None:
    # A daemon changes to /, and SIGHUP reads the file again.
    path = os.path.abspath(given.config) if given.config and given.daemonize else given.config
    source = Source(path, port=given.port, log_directory=given.log_directory, prove=_prove)
    config = source.load()
    if given.check:
        _print(dump(config))
    else:
        _run(config, source.load, given)


def _prove(config: Config) -> None:
    """That its certificates work: found at start and by --check, and not by a client."""
    if config.tls.certificate is not None:
        from msgd.server.certificates import load

        for words in load(config.tls).warnings:
            _logger.warning("%s", words)


def _run(config: Config, reload: Callable[[], Config], given: argparse.Namespace) -> None:
    """Serve until asked to stop. What can fail does so before the terminal is left."""
    from msgd.process.signals import Signals

    with ExitStack() as stack:
        # First, and gone last: nobody must know of a process that a signal ends.
        signals = stack.enter_context(closing(Signals()))
        from msgd.process import systemd
        from msgd.server.loop import Server

        pidfile = None
        if given.pidfile:
            from msgd.process.lockfile import PidFile

            pidfile = stack.enter_context(PidFile(given.pidfile))
        server = Server(config, systemd.listen_sockets())
        starter = None
        if given.daemonize:
            from msgd.process.background import detach

            kept = server.filenos() + signals.filenos()
            kept += [pidfile.fd] if pidfile else []
            starter = detach(kept, verbose=given.verbose)
        if pidfile:
            pidfile.write()
        if starter:
            starter.release()
        gc.freeze()  # nor later, and not in children, where it would copy all of it
        gc.enable()
        server.run(reload, signals)


def _hash_password(given: argparse.Namespace) -> None:
    from msgd.password import hash_password
    from msgd.wire.headers import PASSWORD_BYTES, well_formed

    password = _ask_password() if os.isatty(0) else _read_password()
    if not well_formed(password):
        raise Fatal(
            f"a password has 1 to {PASSWORD_BYTES} bytes of UTF-8, and no control character"
        )
    _print(hash_password(password) + "\n")


def _make_tls(given: argparse.Namespace) -> None:
    from msgd.config import maketls

    if bool(given.hosts) == (given.client is not None):
        given.parser.error("give a HOST or more, or --client NAME and no HOST")
    if given.client is not None:
        _print(maketls.make_client(given.directory, given.client))
    else:
        _print(maketls.make_server(given.directory, given.hosts))


def _ask_password() -> bytes:
    from msgd.prompt import ask

    try:
        password = ask("Password: ")
        again = ask("The same again: ")
    except EOFError:
        raise Fatal("no password was given") from None
    except KeyboardInterrupt:
        print(file=sys.stderr)  # the shell's prompt is not to stand behind ours
        raise
    if password != again:
        raise Fatal("the two passwords differ: no hash is made")
    return password


def _read_password() -> bytes:
    with open(0, "rb", closefd=False) as standard_input:
        line = standard_input.readline(4096)
    if not line:
        raise Fatal("no password was given on standard input")
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _print(text: str) -> None:
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # What could not be written is still buffered; Python would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Fatal(f"standard output: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
