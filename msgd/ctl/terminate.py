"""The verb terminate: ask for the password, and ask the server to stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import click

from msgd.client import Client, PasswordRefused
from msgd.ctl.exits import INTERRUPTED, NO_PERMISSION, OK
from msgd.ctl.options import common
from msgd.ctl.settings import Server, server
from msgd.ctl.streams import complain, harmless, say
from msgd.prompt import NoTerminal, ask

_TRIES = 3


@click.command("terminate", params=common())
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
def command(password_stdin: bool) -> int:
    """Ask the server to stop, with its password."""
    where = server()
    with where.connect() as client:
        _say(_proof(where, client))
        try:
            for password in _from_stdin() if password_stdin else _from_terminal():
                if offer(client, password):
                    return OK
        except EOFError:
            complain("interrupted")
            return INTERRUPTED
    return NO_PERMISSION


def _proof(where: Server, client: Client) -> str:
    """Who says that it is the server which gets the password."""
    if where.place.is_socket:
        owner = _owner(where.place.host)
        return f"The server is proved by its local socket {client.address}, which is {owner}'s."
    if where.tls is None:
        return (
            f"Nothing proves that {client.address} is msgd: whoever has the port gets the"
            " password. A local socket or --tls would prove it."
        )
    by = "its pinned certificate" if where.tls.pin else "its certificate"
    return f"The server {client.address} is proved by TLS, with {by}."


def _owner(path: str) -> str:
    import pwd

    number = os.stat(path).st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _say(text: str) -> None:
    """What is only said must not keep anybody from stopping the server."""
    with suppress(OSError):
        say(harmless(text))


def offer(client: Client, password: bytes) -> bool:
    """Ask the server to stop, and say what it answers; true where it stops."""
    try:
        client.terminate(password)
    except PasswordRefused as refused:
        if refused.well_formed:
            complain("wrong password, or the server has none: it goes on")
        else:
            complain("no server has such a password (1 to 1024 bytes of text): it goes on")
        return False
    try:
        say("Password accepted: the server stops.")
    except OSError:
        complain("password accepted: the server stops")
        raise
    return True


def ask_password() -> bytes:
    """A password from the terminal, which does not show it. Raises EOFError."""
    try:
        return ask("Password: ")
    except NoTerminal:
        raise click.UsageError("there is no terminal to ask at: use --password-stdin") from None


def _from_stdin() -> Iterator[bytes]:
    yield sys.stdin.buffer.readline(4096).removesuffix(b"\n").removesuffix(b"\r")


def _from_terminal() -> Iterator[bytes]:
    for _ in range(_TRIES):
        yield ask_password()
