"""One run of send: messages from a source to the server, and what to say about them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from msgd.client import Client, MsgdError, NoSessions, NotNow, SessionError
from msgd.client.inflight import Answer, Pipeline
from msgd.ctl.exits import OK, REFUSED, UNAVAILABLE, why_ended, words
from msgd.ctl.printer import Printer, in_words
from msgd.ctl.retry import Retry
from msgd.ctl.settings import Server
from msgd.ctl.sources import Files, Text
from msgd.ctl.streams import complain


class Sending:
    """`run` returns the exit status."""

    def __init__(
        self,
        where: Server,
        source: Text | Files,
        printer: Printer,
        retry: Retry,
        session: str | None,
    ) -> None:
        self._server = where
        self._address = ""  # of the server that was connected last
        self._source = source
        self._printer = printer
        self._retry = retry
        # Without a name it is one of this run: then a server without sessions will do as well.
        self._named = session is not None
        self._session = session or (os.urandom(8).hex() if retry.wanted else None)
        self._begun = False  # there was a connection
        self._pipeline = Pipeline()

    def run(self) -> int:
        try:
            for answer in self._answers():
                self._show(answer)
        except MsgdError as error:
            cut_short = self._printer.closed or self._source.failure
            if not (cut_short and isinstance(error, SessionError)):
                return self._break_off(str(error), _status(error))
        except MemoryError:
            return self._break_off("not enough memory", REFUSED)
        except KeyboardInterrupt as error:
            return self._break_off(*why_ended(error))
        return self._finish()

    def _answers(self) -> Iterator[Answer]:
        """The answers to everything, over as many connections as that takes."""
        while True:
            try:
                with self._connected() as client:
                    self._say_what_is_there(client)
                    if self._pipeline.idle:
                        self._retry.settled()
                    yield from client.transmit(self._pipeline, self._source)
                    return
            except MsgdError as error:
                self._printer.hide()
                self._retry.wait(error)

    def _connected(self) -> Client:
        if self._session is None or self._named:
            return self._server.connect(self._session)
        try:
            return self._server.connect(self._session)
        except NoSessions:
            if self._pipeline.unknown:
                raise
            self._session = None  # what a break leaves in doubt may stand there twice
            return self._server.connect()

    def _say_what_is_there(self, client: Client) -> None:
        moved, self._address = self._address not in ("", client.address), client.address
        if self._session is None or moved:
            self._warn_of_doubles("in both archives" if moved else "twice in the archive")
        elif self._named and not self._begun and client.last:
            self._printer.say_already(self._session, client.last)
        self._begun = True

    def _show(self, answer: Answer) -> None:
        self._retry.progress()
        self._printer.show(answer, self._source.bytes_of(self._pipeline.answered))
        if self._printer.closed:
            self._source.ended = True  # what is under way is still waited for

    def _warn_of_doubles(self, where: str) -> None:
        """A session ends the doubt on its own server only."""
        if doubtful := self._pipeline.unknown:
            first = self._pipeline.answered + 1
            places = self._source.places(first, first + doubtful - 1)
            complain(
                f"connected again; {places} sent once more: sent before, without a confirmation,"
                f" so perhaps {where}"
            )

    def _finish(self) -> int:
        failure = self._source.failure
        if failure is not None:
            self._printer.hide()
            complain(words(failure))
        if not self._printer.closed:
            self._printer.finish(self._counts, well=failure is None)
        if self._printer.closed:
            return self._break_off(f"standard output {self._printer.closed}", self._printer.status)
        return REFUSED if self._refused or failure else OK

    @property
    def _refused(self) -> int:
        return self._pipeline.refused + self._source.refused

    @property
    def _counts(self) -> dict[str, int]:
        pipeline = self._pipeline
        counts = {
            "confirmed": pipeline.confirmed, "refused": self._refused, "unknown": pipeline.unknown
        }  # fmt: skip
        already = min(pipeline.already, pipeline.answered)
        return counts | {"already": already} if self._named else counts

    def _break_off(self, why: str, status: int) -> int:
        """Say why it ended early, how far it came, and where to go on."""
        self._printer.broken_off(self._counts)
        complain(why + self._how_far())
        return status

    def _how_far(self) -> str:
        pipeline = self._pipeline
        if pipeline.idle and not pipeline.answered:
            return ""
        if isinstance(self._source, Text):
            return f": the message is {'confirmed' if pipeline.confirmed else 'not confirmed'}"
        said = f": {in_words(self._counts)}"
        if pipeline.idle and self._source.exhausted():
            return said
        return f"{said}; first without confirmation: {self._source.place(pipeline.answered + 1)}"


def _status(error: MsgdError) -> int:
    """What the server refuses, and what trying again does not help, is no lost connection."""
    return REFUSED if isinstance(error, NotNow | SessionError) else UNAVAILABLE
