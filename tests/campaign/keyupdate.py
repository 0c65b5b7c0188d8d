"""A client of TLS 1.3 that asks for new keys, which Python's own ssl cannot: libssl by ctypes."""

from __future__ import annotations

import ctypes
import socket
from functools import cache

_REQUESTED = 1  # SSL_KEY_UPDATE_REQUESTED: the other side is to renew its own, and to say so
_WANT_READ, _WANT_WRITE = 2, 3
_AT_ONCE = 500


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libssl.so.3")
    for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
        getattr(library, name).restype = ctypes.c_void_p
    return library


@cache
def _context() -> ctypes.c_void_p:
    library = _library()
    return ctypes.c_void_p(library.SSL_CTX_new(ctypes.c_void_p(library.TLS_client_method())))


class Session:
    """TLS over a socket, which stays the caller's. Raises OSError where it is at its end."""

    def __init__(self, sock: socket.socket) -> None:
        """Shake hands, and say PING inside."""
        self._session = ctypes.c_void_p(_library().SSL_new(_context()))
        _library().SSL_set_fd(self._session, sock.fileno())
        sock.settimeout(None)  # OpenSSL reads by itself: it would take a time-out for an error
        if _library().SSL_connect(self._session) != 1:
            raise ConnectionError("no handshake")
        _library().SSL_write(self._session, b"PING\n", 5)
        sock.setblocking(False)

    def ask(self) -> None:
        """Ask for new keys as often as there is room, and take what has been answered."""
        for _ in range(_AT_ONCE):
            _library().SSL_key_update(self._session, _REQUESTED)
            if self._look(_library().SSL_do_handshake(self._session)):
                break
        room = ctypes.create_string_buffer(4096)
        while not self._look(_library().SSL_read(self._session, room, len(room))):
            pass

    def _look(self, result: int) -> bool:
        """Whether it would block."""
        if result > 0:
            return False
        if _library().SSL_get_error(self._session, result) in (_WANT_READ, _WANT_WRITE):
            return True
        raise ConnectionError("TLS is at its end")

    def close(self) -> None:
        _library().SSL_free(self._session)
