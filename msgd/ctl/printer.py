"""What send prints: echoes or JSON on standard output, refusals and the end on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BytesIO
from operator import itemgetter

from msgd.client.client import receipts
from msgd.client.inflight import Answer
from msgd.ctl.exits import BROKEN_PIPE, REFUSED
from msgd.ctl.progress import NoProgress, progress
from msgd.ctl.sources import Files, Text
from msgd.ctl.streams import complain, discard_output, say_bytes
from msgd.wire.text import escape

_TEXT = itemgetter(slice(5, None))  # of a line: what is behind MESG or MORE and the space


class Printer:
    """Shows answers as they come, and how far the input is."""

    def __init__(self, source: Text | Files, quiet: bool, as_json: bool) -> None:
        self.closed = ""  # what became of standard output, when nothing can be written there
        self.status = REFUSED  # the exit status for that
        self._source = source
        self._quiet = quiet
        self._json = as_json
        self._progress = progress(source.total_bytes)
        # An echo has to begin on a line of its own, where the progress is shown as well.
        self._over_progress = NoProgress() if not sys.stdout.isatty() else self._progress
        source.on_unsent = self._unsent

    def show(self, answer: Answer, bytes_done: int) -> None:
        if answer.refusal is not None:
            self._complain_of(answer)
        if not self._quiet:
            self._over_progress.hide()
            self._print(self._json_lines(answer) if self._json else self._texts(answer))
        self._progress.show(bytes_done, answer.first + answer.messages - 1)

    def finish(self, confirmed: int, refused: int, unknown: int, well: bool) -> None:
        """The last line, where there was more than one message or not all went well."""
        self._progress.hide()
        if self._json:
            self._print_counts(confirmed, refused, unknown)
            return
        well = well and not (refused or unknown)
        if isinstance(self._source, Files) and not (well and (self._quiet or confirmed == 1)):
            complain(f"{confirmed} confirmed, {refused} refused, {unknown} not known")

    def broken_off(self, confirmed: int, refused: int, unknown: int) -> None:
        """The end came early: only the line for people is not said here."""
        self._progress.hide()
        if self._json:
            self._print_counts(confirmed, refused, unknown)

    def hide(self) -> None:
        """Leave the line on the terminal to somebody else."""
        self._progress.hide()

    def _print_counts(self, confirmed: int, refused: int, unknown: int) -> None:
        self._print(_json_line({"confirmed": confirmed, "refused": refused, "unknown": unknown}))

    def _complain_of(self, answer: Answer) -> None:
        self._progress.hide()
        places = self._source.places(answer.first, answer.first + answer.messages - 1)
        complain(f"{places}: refused: {answer.refusal}")

    def _unsent(self, place: str, position: dict[str, object], reason: str) -> None:
        """The source has found a message that cannot be sent."""
        self._progress.hide()
        complain(f"{place}: not sent: {reason}")
        if self._json and not self._quiet:
            self._print(_json_line({**position, "status": "refused", "reason": reason}))

    def _texts(self, answer: Answer) -> bytes:
        # msgd sends no control characters, but what is it that listens there?
        return b"".join(map(_TEXT, BytesIO(escape(answer.echo))))

    def _json_lines(self, answer: Answer) -> bytes:
        return b"".join(map(_json_line, self._objects(answer)))

    def _objects(self, answer: Answer) -> Iterator[dict[str, object]]:
        for number, text, refusal in receipts(answer):
            where = self._source.position(number)
            if refusal is None:
                yield {**where, "status": "confirmed", "text": text}
            else:
                yield {**where, "status": "refused", "reason": refusal}

    def _print(self, data: bytes) -> None:
        """Write to standard output; what cannot be written ends the sending, not the program."""
        if self.closed:
            return
        try:
            say_bytes(data)
        except BrokenPipeError:
            self._close("was closed", BROKEN_PIPE)
        except OSError as error:
            self._close(f"cannot be written ({error.strerror})", REFUSED)

    def _close(self, reason: str, status: int) -> None:
        self.closed, self.status = reason, status
        discard_output()


def _json_line(fields: dict[str, object]) -> bytes:
    import json  # takes as long as the rest of a short run

    return json.dumps(fields).encode() + b"\n"
