"""What send prints: echoes or JSON on standard output, refusals and the end on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from io import BytesIO
from operator import itemgetter

from msgd.client.client import receipts
from msgd.client.inflight import Answer
from msgd.ctl.exits import BROKEN_PIPE, REFUSED
from msgd.ctl.progress import NoProgress, progress
from msgd.ctl.sources import Files, Text
from msgd.ctl.streams import complain, discard_output, say_bytes

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

    def say_already(self, session: str, messages: int) -> None:
        """The session has so many: they are not sent again."""
        if not self._quiet:
            self._progress.hide()
            was = "was" if messages == 1 else "were"
            complain(f"session {session}: {messages} {was} there already")

    def show(self, answer: Answer, bytes_done: int) -> None:
        if answer.refusal is not None:
            self._complain_of(answer)
        if not self._quiet and (self._json or not answer.already):
            self._over_progress.hide()
            self._print(self._json_lines(answer) if self._json else self._texts(answer))
        last = answer.first + answer.messages - 1
        if answer.already:
            self._progress.begin(bytes_done, last)
        else:
            self._progress.show(bytes_done, last)

    def finish(self, counts: dict[str, int], well: bool) -> None:
        """The last line, where there was more than one message or not all went well."""
        self._progress.hide()
        if self._json:
            self._print(_json_line(counts))
            return
        well = well and not (counts["refused"] or counts["unknown"])
        is_one = counts["confirmed"] == 1
        if isinstance(self._source, Files) and not (well and (self._quiet or is_one)):
            complain(in_words(counts))

    def broken_off(self, counts: dict[str, int]) -> None:
        """The end came early; the line for people is said by who knows why."""
        self._progress.hide()
        if self._json:
            self._print(_json_line(counts))

    def hide(self) -> None:
        """Leave the line on the terminal to somebody else."""
        self._progress.hide()

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
        # Whatever listens there: an echo that is not what the text rules make of the message
        # is none for the library. So nothing in it steers a terminal, behind a pipe neither.
        return b"".join(map(_TEXT, BytesIO(answer.echo)))

    def _json_lines(self, answer: Answer) -> bytes:
        return b"".join(map(_json_line, self._objects(answer)))

    def _objects(self, answer: Answer) -> Iterator[dict[str, object]]:
        for number, text, refusal in receipts(answer):
            where = self._source.position(number)
            if answer.already:
                yield {**where, "status": "confirmed", "text": text, "already": True}
            elif refusal is None:
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


def in_words(counts: dict[str, int]) -> str:
    """How many messages came to what end."""
    words = "{confirmed} confirmed, {refused} refused, {unknown} not known"
    return words.format(**counts)


def _json_line(fields: Mapping[str, object]) -> bytes:
    import json  # takes as long as the rest of a short run

    return json.dumps(fields).encode() + b"\n"
