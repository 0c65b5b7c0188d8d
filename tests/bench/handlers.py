"""Logging handlers beside each other: records a second that a program logs, and delivers.

    python handlers.py log KIND PORT RECORDS      the program that logs; prints JSON
    python handlers.py receive FILE               the receiver of logging.handlers.SocketHandler

The receiver is what the logging cookbook of Python's documents shows: there is none to install.
"""

from __future__ import annotations

import json
import logging
import pickle
import socket
import socketserver
import struct
import sys
import time
from logging.handlers import SocketHandler, SysLogHandler

TEXT = (
    "the quick brown fox jumps over the lazy dog 0123456789 the quick brown fox jumps over it %07d"
)


def make_handler(kind: str, port: int, records: int) -> logging.Handler:
    if kind == "MsgdHandler":
        from msgd.handler import MsgdHandler

        # Room for all of it: the program logs faster than any server archives.
        return MsgdHandler("127.0.0.1", port, 60, records, capacity_bytes=records * 200)
    if kind == "SocketHandler":
        return SocketHandler("127.0.0.1", port)
    handler = SysLogHandler(("127.0.0.1", port), socktype=socket.SOCK_STREAM)
    handler.append_nul = False
    handler.setFormatter(logging.Formatter("bench: %(message)s\n"))
    return handler


def log(kind: str, port: int, records: int) -> None:
    handler = make_handler(kind, port, records)
    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    begin = time.monotonic()
    for number in range(records):
        logger.info(TEXT, number)
    logged = time.monotonic()
    handler.close()
    print(json.dumps({"begin": begin, "logged": logged, "closed": time.monotonic()}))


class Receiver(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while length := self.rfile.read(4):
            data = self.rfile.read(struct.unpack(">L", length)[0])
            logging.getLogger("bench").handle(logging.makeLogRecord(pickle.loads(data)))


def receive(path: str) -> None:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logging.getLogger("bench").addHandler(handler)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Receiver) as server:
        print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "log":
        log(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        receive(sys.argv[2])
