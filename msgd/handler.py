"""``from msgd.handler import MsgdHandler``: the handler lives in msgd/client/."""

from msgd.client.handler import MsgdHandler

__all__ = ["MsgdHandler"]
