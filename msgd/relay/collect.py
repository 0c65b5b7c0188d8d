"""msgd-relay collect: writes what is in the stream as the same day files, a folder a node.

The stream is read in order, from the sequence that was noted last. The note is only a hint: where
a block goes is decided by the file itself (copies.py). Now and then, and after each reconnect, the
last message of each subject is held against the file, and what lags is read again from its
beginning.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import date, timedelta
from typing import Any

from msgd.archive.days import elapsed
from msgd.archive.housekeeper import Housekeeper
from msgd.errors import Fatal
from msgd.relay.answers import NAME_IN_USE, NO_STREAM, ApiError, explain
from msgd.relay.blocks import PREFIX, Finished, Message, Part, parse_subject, read_done
from msgd.relay.copies import Copies, Differs, Proof, Put
from msgd.relay.engine import Engine
from msgd.relay.errors import Doubt
from msgd.relay.following import EVERYTHING, LAST_OF_EACH, SIZE, Consumer, Gap, from_sequence
from msgd.relay.options import Config
from msgd.relay.program import Program, Rate, together
from msgd.relay.stream import differences, wanted
from msgd.relay.trouble import Trouble

log = logging.getLogger("msgd")

_RECONCILE_SECONDS = 600.0
_HOUSEKEEPING_SECONDS = 600.0
_NEXT_KEEPER_SECONDS = 0.3
_DAY_SECONDS = 86_400
_PROVE_SECONDS = 0.5  # between two looks at what is not yet proven
_DONE = ".done"


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
        self._unproven: dict[Part, Finished] = {}
        self._differing: set[Part] = set()  # the file and the stream do not agree; left alone
        self._short: dict[Part, int] = {}  # of which the stream has lost what comes next -> size
        self._said: set[str] = set()
        self._pending = 0
        self._rate = Rate()
        self._figures = _Figures(program)
        self._keepers: dict[str, Housekeeper] = {}
        self._calendar = Calendar()
        program.status = self.status
        program.before_metrics = self._look_up

    async def run(self) -> None:
        """Collect until asked to stop. Raises Denied, Fatal."""
        log.info("collecting in %s", self._copies.directory)
        try:
            await together(self._collect(), self._keep_proving(), self._keep_house())
        finally:
            for keeper in self._keepers.values():
                keeper.stop()

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
            self._say_once(words)
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

    async def _keep_proving(self) -> None:
        """Beside the rest: many long days take minutes."""
        while not self._program.stopping.is_set():
            for part, finished in [*self._unproven.items()]:
                await asyncio.to_thread(self._prove, part, finished)
                if self._program.stopping.is_set():
                    break
            await self._program.sleep(_PROVE_SECONDS)

    def _write(self, messages: list[Message]) -> None:
        """Put a batch into the files: one fdatasync a file, and only then the note."""
        blocks: dict[Part, list[Message]] = {}
        for message in messages:
            part = parse_subject(message.subject)
            if part is not None and message.offset is not None:
                blocks.setdefault(part, []).append(message)
            elif message.subject.endswith(_DONE):
                self._note_done(message)
        for part, found in blocks.items():
            self._write_part(part, found)
        self._next = messages[-1].sequence + 1
        try:
            self._copies.write_note({"stream": self._stream, "sequence": self._next - 1})
        except OSError as error:
            raise Doubt(f"{self._copies.directory}: {error.strerror}") from error

    def _write_part(self, part: Part, blocks: list[Message]) -> bool:
        """False where something is missing before one of them."""
        if part in self._differing or not self._kept(part.day):
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
                    if self._short.get(part) != copy.size:
                        self._reconcile_at = 0.0  # which reads it again from its beginning
                    return False
                self._figures.blocks.value += 1
                self._figures.bytes.value += len(block.data)
                self._rate.add()
        except Differs as error:
            self._set_aside(part, f"from byte {error.at} on it is not what the stream has")
        except OSError as error:
            raise Doubt(f"{path}: {error.strerror}: free some space?") from error
        finally:
            self._sync(copy)
        return True

    def _sync(self, copy: Any) -> None:
        try:
            copy.sync()
        except OSError as error:
            raise Fatal(
                f"{copy.path}: fdatasync: {error.strerror}: what was collected last may not be on "
                "stable storage; check the device"
            ) from error
        finally:
            copy.close()

    def _set_aside(self, part: Part, words: str) -> None:
        self._differing.add(part)
        self._say_once(
            f"{self._copies.path(part)}: {words}; nothing is overwritten and nothing more written: "
            f"compare it with {part.day}.log on {part.node}; to collect it again, move it away "
            "and start msgd-relay again",
            logging.ERROR,
        )

    def _kept(self, day: str) -> bool:
        """Whether retention lets us have it."""
        keep = self._config.keep_days
        return not keep or day >= (date.today() - timedelta(keep)).isoformat()

    def _note_done(self, message: Message) -> None:
        node = message.subject.removeprefix(f"{PREFIX}.").removesuffix(_DONE)
        for day, finished in read_done(message.data).items():
            part = parse_subject(f"{PREFIX}.{node}.{day}.{finished.generation}")
            if part is None or not self._kept(day):
                continue
            proof = self._copies.proof(part)
            if proof != Proof(finished.size, finished.sha256):
                self._unproven[part] = finished

    def _prove(self, part: Part, finished: Finished) -> None:
        """Hold a finished copy against its node's SHA-256, once all of it is there."""
        path = self._copies.path(part)
        try:
            if part not in self._differing and self._copies.size(part) < finished.size:
                return
            right = self._copies.prove(part, finished.size, finished.sha256)
        except OSError as error:
            self._say_once(f"{path}: {error.strerror or error}", logging.ERROR)
            return
        if self._unproven.get(part) == finished:
            del self._unproven[part]
        if right:
            self._copies.note_proof(part, Proof(finished.size, finished.sha256))
            log.info("%s: is what %s has", path, part.node)
        elif part not in self._differing:
            self._set_aside(part, f"its SHA-256 is not that of {part.node}'s file")

    async def _reconcile(self) -> None:
        """Hold the last message of each subject against the file, and mend what lags."""
        for part, end in (await self._ends()).items():
            size = await asyncio.to_thread(self._copies.size, part)
            if size < end and self._short.get(part) != size:
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
                    if message.subject.endswith(_DONE):
                        told.append(message.subject)
                    if part is None or message.offset is None or not size.isdecimal():
                        continue
                    if message.sequence < self._next and self._kept(part.day):
                        ends[part] = message.offset + int(size)
        finally:
            await consumer.close()
        for subject in told:  # what was not proven before the last stop
            if (done := await self._engine.last(subject)) is not None:
                self._note_done(done)
        return {part: end for part, end in ends.items() if part not in self._differing}

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
        if size < end and part not in self._differing and not self._program.stopping.is_set():
            self._short[part] = size
            self._say_once(
                f"{self._copies.path(part)}: what comes behind byte {size} is no longer in the "
                f"stream: stop msgd-relay collect, copy {part.day}.log from {part.node} to there, "
                "and start it again",
                logging.ERROR,
            )

    async def _keep_house(self) -> None:
        """Delete and compress as msgd does, by the same code: only what was proven."""
        due, keep_days = 0.0, self._config.keep_days
        if not keep_days and self._config.compress == "none":
            return
        while not self._program.stopping.is_set():
            if time.monotonic() >= due:
                due = time.monotonic() + _HOUSEKEEPING_SECONDS
                keep_days = 0 if self._calendar.has_jumped() else self._config.keep_days
                await self._wish()
            for keeper in [*self._keepers.values()]:  # one after the other: each is a process
                keeper.step(keep_days, self._config.compress)
                await self._program.sleep(_NEXT_KEEPER_SECONDS)
            await self._program.sleep(1)

    async def _wish(self) -> None:
        """A new keeper each time: its day follows what is proven, which is no calendar."""
        for node in await asyncio.to_thread(self._copies.nodes):
            if node not in self._keepers or not self._keepers[node].running:
                self._keepers[node] = Housekeeper(self._copies.folder(node))
                self._keepers[node].wish(await asyncio.to_thread(self._copies.first_unproven, node))

    def _say_once(self, words: str, level: int = logging.WARNING) -> None:
        if words not in self._said:
            log.log(level, "%s", words)
            self._said.add(words)

    def status(self) -> str:
        """For the service manager."""
        text = f"{self._pending} blocks behind; {self._rate():.0f} blocks a second"
        if bad := len(self._differing) + len(self._short):
            text += f"; {bad} files need somebody to look at them"
        return f"{text}; {self._trouble.words}" if self._trouble.words else text

    def _look_up(self) -> None:
        figures = self._figures
        figures.pending.value = self._pending
        figures.bad.value = len(self._differing) + len(self._short)
        figures.unproven.value = len(self._unproven)
        figures.trouble.value = int(bool(self._trouble.words))


class Calendar:
    """Sees that the clock has jumped: then nothing is deleted before the next day."""

    def __init__(self) -> None:
        self._seen = date.today(), elapsed()
        self._jumped: date | None = None

    def has_jumped(self) -> bool:
        """Whether it has come to today by jumping over a day."""
        (last, at), self._seen = self._seen, (date.today(), elapsed())
        today, now = self._seen
        if (today - last).days > (now - at) // _DAY_SECONDS + 1:
            log.warning("the clock has jumped from %s to %s; nothing is deleted today", last, today)
            self._jumped = today
        return self._jumped == today


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
