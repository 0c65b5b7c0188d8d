"""The verb send: messages from a source to the server, and what to say about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgd.client.client import Client, ConnectionLost, MsgdError
from msgd.client.inflight import Answer, Pipeline
from msgd.ctl.lines import Files, Text
from msgd.ctl.manners import INTERRUPTED, OK, REFUSED, UNAVAILABLE, complain, words
from msgd.ctl.printer import Printer
from msgd.ctl.retry import Retry


class Sending:
    """One run of send; `run` returns the exit status."""

    def __init__(
        self,
        connect: Callable[[], Client],
        source: Text | Files,
        printer: Printer,
        retry: Retry,
    ) -> None:
        self._connect = connect
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
        except KeyboardInterrupt:
            return self._break_off("interrupted", INTERRUPTED)
        return self._finish()

    def _answers(self) -> Iterator[Answer]:
        """The answers to everything, over as many connections as that takes."""
        while True:
            try:
                with self._connect() as client:
                    self._warn_of_doubles()
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
        pipeline, printer, failure = self._pipeline, self._printer, self._source.failure
        if failure is not None:
            printer.hide()
            complain(words(failure))
        if not printer.closed:
            printer.finish(pipeline.confirmed, self._refused, pipeline.unknown)
        if printer.closed:
            return self._break_off(f"standard output {printer.closed}", printer.status)
        return REFUSED if self._refused or failure else OK

    @property
    def _refused(self) -> int:
        return self._pipeline.refused + self._source.refused

    def _break_off(self, why: str, status: int) -> int:
        """Say why it ended early, how far it came, and where to go on."""
        self._printer.hide()
        complain(why + self._how_far())
        return status

    def _how_far(self) -> str:
        pipeline = self._pipeline
        if pipeline.idle and not pipeline.answered:
            return ""
        if isinstance(self._source, Text):
            return f": the message is {'confirmed' if pipeline.confirmed else 'not confirmed'}"
        first = self._source.place(pipeline.answered + 1)
        return (
            f": {pipeline.confirmed} confirmed, {self._refused} refused,"
            f" {pipeline.unknown} not known; first without confirmation: {first}"
        )
