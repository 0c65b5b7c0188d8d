"""One run of send: messages from a source to the server, and what to say about them."""

from __future__ import annotations

from collections.abc import Iterator

from msgd.client import ConnectionLost, MsgdError
from msgd.client.inflight import Answer, Pipeline
from msgd.ctl.exits import OK, REFUSED, UNAVAILABLE, why_ended, words
from msgd.ctl.printer import Printer
from msgd.ctl.retry import Retry
from msgd.ctl.settings import Server
from msgd.ctl.sources import Files, Text
from msgd.ctl.streams import complain


class Sending:
    """`run` returns the exit status."""

    def __init__(self, where: Server, source: Text | Files, printer: Printer, retry: Retry) -> None:
        self._server = where
        self._source = source
        self._printer = printer
        self._retry = retry
        self._pipeline = Pipeline()

    def run(self) -> int:
        try:
            for answer in self._answers():
                self._show(answer)
        except MsgdError as error:
            return self._break_off(str(error), UNAVAILABLE)
        except MemoryError:
            return self._break_off("not enough memory", REFUSED)
        except KeyboardInterrupt as error:
            return self._break_off(*why_ended(error))
        return self._finish()

    def _answers(self) -> Iterator[Answer]:
        """The answers to everything, over as many connections as that takes."""
        while True:
            try:
                with self._server.connect() as client:
                    self._warn_of_doubles()
                    if self._pipeline.idle:
                        self._retry.settled()
                    yield from client.transmit(self._pipeline, self._source)
                    return
            except MsgdError as error:
                if isinstance(error, ConnectionLost):
                    self._pipeline.rewind()
                self._printer.hide()
                self._retry.wait(error)

    def _show(self, answer: Answer) -> None:
        self._retry.progress()
        self._printer.show(answer, self._source.bytes_of(self._pipeline.answered))
        if self._printer.closed:
            self._source.ended = True  # what is under way is still waited for

    def _warn_of_doubles(self) -> None:
        if doubtful := self._pipeline.unknown:
            first = self._pipeline.answered + 1
            places = self._source.places(first, first + doubtful - 1)
            complain(
                f"connected again; {places} sent once more: sent before, without a confirmation,"
                " so perhaps twice in the archive"
            )

    def _finish(self) -> int:
        failure = self._source.failure
        if failure is not None:
            self._printer.hide()
            complain(words(failure))
        if not self._printer.closed:
            self._printer.finish(*self._counts, well=failure is None)
        if self._printer.closed:
            return self._break_off(f"standard output {self._printer.closed}", self._printer.status)
        return REFUSED if self._refused or failure else OK

    @property
    def _refused(self) -> int:
        return self._pipeline.refused + self._source.refused

    @property
    def _counts(self) -> tuple[int, int, int]:
        return self._pipeline.confirmed, self._refused, self._pipeline.unknown

    def _break_off(self, why: str, status: int) -> int:
        """Say why it ended early, how far it came, and where to go on."""
        self._printer.broken_off(*self._counts)
        complain(why + self._how_far())
        return status

    def _how_far(self) -> str:
        pipeline = self._pipeline
        if pipeline.idle and not pipeline.answered:
            return ""
        if isinstance(self._source, Text):
            return f": the message is {'confirmed' if pipeline.confirmed else 'not confirmed'}"
        confirmed, refused, unknown = self._counts
        said = f": {confirmed} confirmed, {refused} refused, {unknown} not known"
        if pipeline.idle and self._source.exhausted():
            return said
        return f"{said}; first without confirmation: {self._source.place(pipeline.answered + 1)}"
