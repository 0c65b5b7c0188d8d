"""Asking for the password, and the verb terminate."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator

import click

from msgd.client.client import Client, PasswordRefused
from msgd.ctl.manners import NO_PERMISSION, OK, complain
from msgd.wire.text import typed

_TRIES = 3


def terminate(client: Client, from_stdin: bool) -> int:
    """Offer passwords until one is accepted; returns the exit status."""
    with client:
        for password in _from_stdin() if from_stdin else _from_terminal():
            if offer(client, password):
                return OK
    return NO_PERMISSION


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
        click.echo("Password accepted: the server stops.")
    except OSError:
        complain("password accepted: the server stops")
        raise
    return True


def ask() -> bytes:
    """A password from the terminal, which does not show it; where it is no text, its bytes."""
    import getpass

    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return typed(getpass.getpass("Password: "))
        except UnicodeDecodeError as error:  # no text in the locale's encoding
            return bytes(error.object).partition(b"\n")[0]
        except getpass.GetPassWarning:
            raise click.UsageError("there is no terminal to ask at: use --password-stdin") from None


def _from_stdin() -> Iterator[bytes]:
    yield sys.stdin.buffer.readline().removesuffix(b"\n").removesuffix(b"\r")


def _from_terminal() -> Iterator[bytes]:
    for _ in range(_TRIES):
        yield ask()
