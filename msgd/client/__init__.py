"""The library for Python programs, and the logging handler.

A message comes in at `Client.send` or `Client.send_many`, and comes back as a receipt. Only what
talks to a server belongs here; what people see is msgd.ctl's.
"""

from msgd.client.client import (
    PORT,
    Client,
    ConnectionLost,
    MsgdError,
    NotConnected,
    PasswordRefused,
    Receipt,
    Refused,
)

__all__ = [
    "PORT",
    "Client",
    "ConnectionLost",
    "MsgdError",
    "NotConnected",
    "PasswordRefused",
    "Receipt",
    "Refused",
]
