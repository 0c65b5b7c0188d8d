"""Connecting: names, several addresses, several servers, sockets in the file system."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from msgd.client import Client, NotConnected
from tests.conftest import Daemon, Start
from tests.scripted import dead, echo, greet, scripted

Resolve = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port


def resolves(*addresses: tuple[str, int]) -> Resolve:
    def getaddrinfo(*args: object, **more: object) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    return getaddrinfo


def fails(number: int) -> Resolve:
    def getaddrinfo(*args: object, **more: object) -> list[tuple[Any, ...]]:
        raise socket.gaierror(number, "words")

    return getaddrinfo


def test_nobody_listens(free_port: int) -> None:
    with pytest.raises(NotConnected, match=f"nobody listens at 127.0.0.1:{free_port}"):
        Client(port=free_port)


@pytest.mark.parametrize("host", ["a" * 300, "..", "a..b", "ä" * 300])
def test_no_name_looks_like_this(host: str) -> None:
    with pytest.raises(NotConnected, match="no host called"):
        Client(host)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (socket.EAI_NONAME, "there is no host called 'some.host'"),
        (socket.EAI_AGAIN, "some.host cannot be looked up now: is the network"),
        (socket.EAI_FAIL, "some.host cannot be looked up: words"),
    ],
)
def test_a_resolver_that_is_down_is_no_missing_host(
    monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", fails(number))
    with pytest.raises(NotConnected, match=words):
        Client("some.host")


def test_a_dead_first_address_does_not_cost_the_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with dead() as nobody, scripted(echo) as port:
        addresses = ("127.0.0.1", nobody), ("127.0.0.1", port)
        monkeypatch.setattr(socket, "getaddrinfo", resolves(*addresses))
        with Client("some.host", timeout=600) as client:
            assert client.send("a") == "a"


def test_a_refusal_begins_the_next_attempt(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    with scripted(echo) as port:
        addresses = ("127.0.0.1", free_port), ("127.0.0.1", port)
        monkeypatch.setattr(socket, "getaddrinfo", resolves(*addresses))
        with Client("some.host") as client:
            assert client.send("a") == "a"
    monkeypatch.setattr(socket, "getaddrinfo", resolves(("127.0.0.1", free_port)))
    with pytest.raises(NotConnected, match=r"nobody listens at some\.host:6743"):
        Client("some.host")


def test_nobody_answers_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with dead() as port, pytest.raises(NotConnected, match=r"no answer for 0\.1 seconds"):
        Client(port=port, timeout=0.1)


def test_the_next_server_when_one_is_away(free_port: int) -> None:
    with (
        scripted(echo) as port,
        Client(["127.0.0.1", f"127.0.0.1:{port}"], free_port) as client,
    ):
        assert client.send("a") == "a"
        assert client.address == f"127.0.0.1:{port}"
    with pytest.raises(NotConnected, match=r"nobody listens at \[::1\].*; nobody listens at 127"):
        Client([f"[::1]:{free_port}", "127.0.0.1"], free_port)


def test_a_server_that_is_busy_is_away() -> None:
    def busy(connection: socket.socket) -> None:
        connection.sendall(b"FAIL busy\n")

    with (
        scripted(busy) as away,
        scripted(echo) as port,
        Client([f"127.0.0.1:{away}", f"127.0.0.1:{port}"]) as client,
    ):
        assert client.address == f"127.0.0.1:{port}"


@contextmanager
def on_path(path: Path) -> Iterator[None]:
    """A server that echoes one connection's messages on this path."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            with listener.accept()[0] as connection:
                greet(connection)
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(20)


def test_an_absolute_path_is_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "msgd.sock"
    with pytest.raises(NotConnected, match=f"there is no socket {path}"):
        Client(str(path))
    with on_path(path), Client(str(path)) as client:
        assert client.send("a") == "a"
        assert client.address == str(path)
    with pytest.raises(NotConnected, match=f"nobody listens at {path}"):
        Client(str(path))


def test_ipv6(start: Start) -> None:
    daemon: Daemon = start("listen: '::1'\n")
    port = int(daemon.wait_log(r"\]:(\d+)")[1])
    for host in ("::1", "[::1]", f"[::1]:{port}"):
        with Client(host, port) as client:
            assert client.send("a") == "a"
