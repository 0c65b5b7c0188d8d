"""Who writes which session: one connection at a time, and only numbers that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgd.wire.headers import NUMBER_USED

if TYPE_CHECKING:
    from msgd.archive.sessions import Sessions
    from msgd.server.connection import Connection
    from msgd.wire.events import Answer, Open


class Writers:
    """The connections that have a session open, beside the archive's table of last numbers."""

    def __init__(self, numbers: Sessions) -> None:
        self._numbers = numbers
        self._writers: dict[tuple[str, str], Connection] = {}

    def note(self, client: Connection, last: int) -> None:
        """A commit has kept the client's messages up to this number."""
        if client.session:
            self._numbers.note(*client.session, last)

    def open(self, client: Connection, asked: Open) -> Answer:
        """Answer SESS. All that was read before must be committed: the number is true then."""
        client.opening = False
        self.leave(client)
        session = (client.origin.name, asked.id)
        last = self._numbers.last(*session)
        if asked.number is not None and asked.number <= last:
            return client.protocol.refuse_open(NUMBER_USED)
        earlier = self._writers.get(session)
        if earlier is not None:
            earlier.protocol.taken_over()
            earlier.session = None
        self._writers[session], client.session = client, session
        self._numbers.hold(*session)
        return client.protocol.opened(asked.id, last, client.form)

    def leave(self, client: Connection) -> None:
        """The client writes no session any more: it opens another, or is gone."""
        if client.session is not None:
            del self._writers[client.session]
            self._numbers.release(*client.session)
            client.session = None
