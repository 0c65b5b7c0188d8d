"""The library for Python programs, and the logging handler.

A message comes in at `Client.send` or `Client.send_many`, and comes back as a receipt. Only what
talks to a server belongs here; what people see is msgd.ctl's.
"""

from msgd.client.client import PORT, Client, Receipt
from msgd.client.errors import (
    ConnectionLost,
    InUse,
    MsgdError,
    NoSessions,
    NotConnected,
    NotNow,
    PasswordRefused,
    Refused,
    SessionError,
)

__all__ = [
    "PORT",
    "Client",
    "ConnectionLost",
    "InUse",
    "MsgdError",
    "NoSessions",
    "NotConnected",
    "NotNow",
    "PasswordRefused",
    "Receipt",
    "Refused",
    "SessionError",
]
