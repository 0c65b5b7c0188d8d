"""The number of each session's last message, in the order in which the sessions were used."""

from __future__ import annotations

from collections import OrderedDict

_LOOKS = 16  # at sessions that could be forgotten, for each number that is noted


class Sessions:
    """A table of up to ``most`` sessions; the one unused for longest is forgotten first.

    A session belongs to its owner: "" or the name that the client has proved.
    """

    def __init__(self, most: int) -> None:
        self.most = most  # may be changed at any time
        self._last: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._held: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self._last)

    def last(self, owner: str, session: str) -> int:
        """The number of the last message in the archive; 0 for a session that is not known."""
        number = self._last.get((owner, session), 0)
        if number:
            self._last.move_to_end((owner, session))
        return number

    def note(self, owner: str, session: str, last: int) -> None:
        """This is the number of the last message now: its record is in the archive."""
        self._last[owner, session] = last
        self._last.move_to_end((owner, session))
        if len(self._last) > self.most:
            self._forget()

    def hold(self, owner: str, session: str) -> None:
        """A connection has it open: until `release` it is not forgotten."""
        self._held.add((owner, session))

    def release(self, owner: str, session: str) -> None:
        """No connection has it open any more."""
        self._held.discard((owner, session))

    def _forget(self) -> None:
        """Where nearly all are held, there may be a few too many until others have been noted."""
        for _ in range(_LOOKS):
            if len(self._last) <= self.most:
                return
            oldest = next(iter(self._last))
            if oldest in self._held:
                self._last.move_to_end(oldest)
            else:
                del self._last[oldest]

    def all(self) -> list[tuple[tuple[str, str], int]]:
        """Owner, id and number of each, the one unused for longest first."""
        return list(self._last.items())
