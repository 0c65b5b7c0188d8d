"""msgd-relay collect: writes what is in the stream as the same day files, a folder a node.

The stream is read in order, from the sequence that was noted last. The note is only a hint: where
a block goes is decided by the file itself (copyfile.py). Now and then, and after each reconnect,
the last message of each subject is held against the file, and what lags is read again from its
beginning.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from msgd.errors import Fatal
from msgd.relay.answers import NAME_IN_USE, NO_ROOM, NO_STREAM, ApiError, explain
from msgd.relay.badfiles import BadFiles
from msgd.relay.blocks import DONE, PREFIX, Message, Part, parse_subject
from msgd.relay.copies import Copies
from msgd.relay.copyfile import Copy, Differs, Put
from msgd.relay.engine import Engine
from msgd.relay.errors import Doubt
from msgd.relay.following import EVERYTHING, LAST_OF_EACH, SIZE, Consumer, Gap, from_sequence
from msgd.relay.housekeeping import Housekeeping
from msgd.relay.options import Config
from msgd.relay.program import Program, Rate, together
from msgd.relay.proving import Proving, is_kept
from msgd.relay.stream import differences, wanted
from msgd.relay.trouble import Trouble

log = logging.getLogger("msgd")

_RECONCILE_SECONDS = 600.0


class Collect:
    """The program; `run` ends when it is asked to stop."""

    def __init__(self, config: Config, engine: Engine, copies: Copies, program: Program) -> None:
        self._config, self._engine, self._copies = config.collect, engine, copies
        self._program = program
        self._wanted = wanted(engine.stream, config.collect)
        self._trouble = Trouble()
        self._stream = ""  # when it was made: another stream of the same name begins anew
        self._next = 0  # sequence of the next message
        self._reconcile_at = 0.0
        self._bad = BadFiles(copies)
        self._proving = Proving(copies, self._bad, config.collect.keep_days, program)
        self._housekeeping = Housekeeping(copies, config.collect, program)
        self._pending = 0
        self._rate = Rate()
        self._figures = _Figures(program)
        program.status = self.status
        program.before_metrics = self._look_up

    async def run(self) -> None:
        """Collect until asked to stop. Raises Denied, Fatal."""
        log.info("collecting in %s", self._copies.directory)
        await together(self._collect(), self._proving.run(), self._housekeeping.run())

    async def _collect(self) -> None:
        while not self._program.stopping.is_set():
            pause = 0.0
            try:
                await self._engine.connect()
                await self._serve()
            except (Doubt, Gap) as doubt:
                pause = self._trouble.begins(str(doubt))
            except ApiError as error:
                pause = self._trouble.begins(explain(error, self._engine.stream))
            finally:
                await self._engine.close()
            await self._program.sleep(pause)

    async def _serve(self) -> None:
        await self._find_stream()
        self._reconcile_at = 0.0
        while not self._program.stopping.is_set():
            at = self._next
            try:
                await self._read_on()
            except Gap as gap:
                log.debug("%s; reading on from %d by a new consumer", gap, self._next)
                self._figures.gaps.value += 1
                if self._next == at:
                    raise  # a pause first, and another server

    async def _find_stream(self) -> None:
        """Look for the stream, make it where it is missing, and find where to go on."""
        try:
            info = await self._engine.api(f"STREAM.INFO.{self._engine.stream}")
        except ApiError as error:
            if error.code != NO_STREAM:
                raise
            info = await self._make_stream()
        for words in differences(info["config"], self._wanted):
            self._bad.say_once(words, logging.WARNING)
        state, made = info["state"], str(info.get("created", ""))
        noted = self._copies.read_note()
        following = noted.get("sequence")
        self._stream, self._next = made, 1
        if noted.get("stream") == made and isinstance(following, int):
            if following <= int(state.get("last_seq", 0)):
                self._next = following + 1
            else:
                log.error(
                    "the stream has lost messages: it ends with %s, and %d was read from it; "
                    "it is read again from its beginning", state.get("last_seq"), following
                )  # fmt: skip

    async def _make_stream(self) -> dict[str, Any]:
        try:
            info = await self._engine.api(f"STREAM.CREATE.{self._engine.stream}", self._wanted)
        except ApiError as error:
            if error.code in NO_ROOM:
                raise Doubt(
                    f"the servers have no room for a stream of {self._config.max_bytes} bytes "
                    f"({error}): lower collect.max_bytes, or see to their disk and max_file_store"
                ) from error
            if error.code != NAME_IN_USE:
                raise
            return await self._engine.api(f"STREAM.INFO.{self._engine.stream}")
        log.info("made the stream %s", self._engine.stream)
        return info

    async def _read_on(self) -> None:
        """Follow the stream by one consumer; returns when asked to stop. Raises Gap."""
        consumer = Consumer(self._engine, from_sequence(self._next))
        try:
            await consumer.open()
            while not self._program.stopping.is_set():
                self._pending = consumer.pending
                if not consumer.pending:
                    await self._reconcile_if_due()
                    self._trouble.over()
                messages = await self._program.unless_stopped(consumer.next())
                if messages:
                    await asyncio.to_thread(self._write, messages)
        finally:
            await consumer.close()

    async def _reconcile_if_due(self) -> None:
        if time.monotonic() >= self._reconcile_at:
            await self._reconcile()
            self._reconcile_at = time.monotonic() + _RECONCILE_SECONDS

    def _write(self, messages: list[Message]) -> None:
        """Put a batch into the files: one fdatasync a file, and only then the note."""
        blocks: dict[Part, list[Message]] = {}
        for message in messages:
            part = parse_subject(message.subject)
            if part is not None and message.offset is not None:
                blocks.setdefault(part, []).append(message)
            elif message.subject.endswith(DONE):
                self._proving.note(message)
        for part, found in blocks.items():
            self._write_part(part, found)
        self._next = messages[-1].sequence + 1
        try:
            self._copies.write_note({"stream": self._stream, "sequence": self._next - 1})
        except OSError as error:
            raise Doubt(f"{self._copies.directory}: {error.strerror}") from error

    def _write_part(self, part: Part, blocks: list[Message]) -> bool:
        """False where something is missing before one of them."""
        if part in self._bad.differing or not is_kept(part.day, self._config.keep_days):
            return True
        path = self._copies.path(part)
        try:
            copy = self._copies.open(part)
        except OSError as error:
            raise Doubt(f"{path}: {error.strerror}") from error
        try:
            for block in blocks:
                assert block.offset is not None
                if copy.put(block.offset, block.data) is Put.MISSING:
                    if self._bad.short.get(part) != copy.size:
                        self._reconcile_at = 0.0  # which reads it again from its beginning
                    return False
                self._figures.blocks.value += 1
                self._figures.bytes.value += len(block.data)
                self._rate.add()
        except Differs as error:
            self._bad.set_aside(part, f"from byte {error.at} on it is not what the stream has")
        except OSError as error:
            raise Doubt(f"{path}: {error.strerror}: free some space?") from error
        finally:
            self._sync(copy)
        return True

    def _sync(self, copy: Copy) -> None:
        try:
            copy.sync()
        except OSError as error:
            raise Fatal(
                f"{copy.path}: fdatasync: {error.strerror}: what was collected last may not be on "
                "stable storage; check the device"
            ) from error
        finally:
            copy.close()

    async def _reconcile(self) -> None:
        """Hold the last message of each subject against the file, and mend what lags."""
        for part, end in (await self._ends()).items():
            size = await asyncio.to_thread(self._copies.size, part)
            if size < end and self._bad.short.get(part) != size:
                await self._read_again(part, end)

    async def _ends(self) -> dict[Part, int]:
        """Where each file ends, after what has been read of the stream."""
        ends: dict[Part, int] = {}
        told: list[str] = []
        consumer = Consumer(self._engine, LAST_OF_EACH, f"{PREFIX}.>")
        try:
            await consumer.open()
            while consumer.pending:
                for message in await consumer.next():
                    part, size = parse_subject(message.subject), message.headers.get(SIZE, "")
                    if message.subject.endswith(DONE):
                        told.append(message.subject)
                    if part is None or message.offset is None or not size.isdecimal():
                        continue
                    if message.sequence < self._next and is_kept(part.day, self._config.keep_days):
                        ends[part] = message.offset + int(size)
        finally:
            await consumer.close()
        for subject in told:  # what was not proven before the last stop
            if (done := await self._engine.last(subject)) is not None:
                self._proving.note(done)
        return {part: end for part, end in ends.items() if part not in self._bad.differing}

    async def _read_again(self, part: Part, end: int) -> None:
        consumer = Consumer(self._engine, EVERYTHING, part.subject)
        whole = True
        try:
            await consumer.open()
            while whole and consumer.pending and not self._program.stopping.is_set():
                if messages := await consumer.next():
                    whole = await asyncio.to_thread(self._write_part, part, messages)
        finally:
            await consumer.close()
        size = await asyncio.to_thread(self._copies.size, part)
        if size < end and part not in self._bad.differing and not self._program.stopping.is_set():
            self._bad.note_short(part, size)

    def status(self) -> str:
        """For the service manager."""
        text = f"{self._pending} blocks behind; {self._rate():.0f} blocks a second"
        if bad := self._bad.number:
            text += f"; {bad} files need somebody to look at them"
        return f"{text}; {self._trouble.words}" if self._trouble.words else text

    def _look_up(self) -> None:
        figures = self._figures
        figures.pending.value = self._pending
        figures.bad.value = self._bad.number
        figures.unproven.value = self._proving.number
        figures.trouble.value = int(bool(self._trouble.words))


class _Figures:
    def __init__(self, program: Program) -> None:
        counter, gauge = program.registry.counter, program.registry.gauge
        self.blocks = counter("msgd_relay_collected_blocks", "Blocks that are in the files.")
        self.bytes = counter("msgd_relay_collected_bytes", "Their bytes.", "bytes")
        self.gaps = counter("msgd_relay_consumers_replaced", "Consumers that had a gap.")
        self.pending = gauge("msgd_relay_pending_blocks", "Blocks that the stream has for us.")
        self.unproven = gauge(
            "msgd_relay_unproven_days", "Finished days whose copy is not yet proven."
        )
        self.bad = gauge(
            "msgd_relay_bad_files", "Copies that differ, or lack what the stream has lost."
        )
        self.trouble = gauge(
            "msgd_relay_trouble", "1 while the servers do not do what they should, else 0."
        )
