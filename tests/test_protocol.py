"""The protocol against a slow, obvious model: the same bytes, the same replies, however cut."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd.wire.client import ClientProtocol, ProtocolError, Reply
from msgd.wire.events import Close, Records, Terminate
from msgd.wire.headers import HEADERS, encode_message, request
from tests.driver import Driver, cut
from tests.model import Model

# Texts around what is special: the limit, controls, bad UTF-8, the bytes of other escapes.
BITS = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=8).map(str.encode),
    st.sampled_from(
        [
            *(
                b"a",
                b"\t",
                b"\r",
                b"\x1b[1m",
                b"\\x1b",
                b"\xc2\x80",
                b"\xc2",
                b"\xd8\x9c",
                b"\xe2\x80",
            ),
            *(
                b"\xe2\x80\xa8",
                b"\xe2\x81\xa6",
                b"\xed\xa0\x80",
                b"\xf4\x90\x80\x80",
                "é€😀".encode(),
            ),
        ]
    ),
)
TEXTS = st.lists(BITS, max_size=4).map(b"".join).map(lambda text: text.replace(b"\n", b""))
NUMBERS = st.one_of(
    st.integers(0, 5),
    st.integers(995, 1005),
    st.integers(2**63 - 3, 2**63 + 1),
    st.sampled_from(["", "007", "-1", "1 ", "\u0661", "9" * 30]),
)
IDS = st.sampled_from(
    ["a", "b", "a.b_c-d", "", ".a", "-", "a/b", "a:b", "é", "0" * 63 + "z", "z" * 65]
)
SESSIONS = st.one_of(
    st.just("SESS a"),
    IDS.map("SESS {}".format),
    st.tuples(IDS, NUMBERS).map(lambda asked: "SESS {} {}".format(*asked)),
).map(str.encode)
LINES = st.one_of(
    SESSIONS,
    st.tuples(st.sampled_from([b"MESG ", b"MORE "]), TEXTS).map(b"".join),
    st.sampled_from(
        [
            b"SESS",
            b"SESSx",
            b"PING",
            b"TERM",
            b"TERM ",
            b"MESG",
            b"MORE",
            b"PING ",
            b"",
            b"PONG",
            b"mesg a",
        ]
    ),
    st.tuples(st.sampled_from([b"TERM ", b"XXXX ", b"PING ", b"MESGX", b""]), TEXTS).map(b"".join),
    st.integers(0, 2500).map(lambda size: b"MESG " + b"x" * size),
    st.integers(1000, 1100).map(lambda size: b"TERM " + b"p" * size),
)
ENDS = st.sampled_from([b"\n", b"\n", b"\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS).map(b"".join), max_size=30).map(b"".join)


@given(STREAMS, st.sampled_from([b"PING\n", b"PING\r\n"]), TEXTS, st.data())
def test_line_framing_is_the_model_however_the_bytes_are_cut(
    stream: bytes, hello: bytes, tail: bytes, data: st.DataObject
) -> None:
    limit = data.draw(st.sampled_from([1, 8, 20, 1000, 65536]))
    whole = hello + stream + tail
    model = Model(limit)
    model.line_framed(whole)
    edges = data.draw(st.lists(st.integers(0, len(whole)), max_size=20))
    ways = [[whole], cut(whole, edges)]
    if len(whole) < 3000:
        ways.append([whole[i : i + 1] for i in range(len(whole))])
    for pieces in ways:
        driver = Driver(limit)
        for piece in pieces:
            driver.receive(piece)
        driver.assert_is(model)
        assert not driver.closed


# Long streams reach what short ones do not: pieces, runs, blocks with one odd line in them.
@settings(max_examples=settings().max_examples // 3)
@given(st.lists(st.tuples(LINES, st.integers(1, 200)), max_size=6), st.data())
def test_long_streams_are_the_model(runs: list[tuple[bytes, int]], data: st.DataObject) -> None:
    whole = b"PING\n" + b"".join((line + b"\n") * times for line, times in runs)
    model = Model(65536)
    model.line_framed(whole)
    driver = Driver(65536)
    for piece in cut(whole, data.draw(st.lists(st.integers(0, len(whole)), max_size=5))):
        driver.receive(piece)
    driver.assert_is(model)


@given(
    st.lists(st.one_of(LINES, TEXTS, st.binary(max_size=50)).filter(bool), max_size=8), st.data()
)
def test_bare_framing_is_the_model(messages: list[bytes], data: st.DataObject) -> None:
    limit = data.draw(st.sampled_from([8, 1000]))
    model, driver = Model(limit), Driver(limit)
    driver.receive(b"PING")
    assert driver.replies == b"PONG"
    for message in messages:
        if driver.replies == b"PONG" and not (message[:1].isalpha() and message[:1].isupper()):
            continue  # these choose line framing, or nothing
        if len(message) > max(limit, 1024):
            continue
        model.bare_message(message)
        for piece in cut(message, data.draw(st.lists(st.integers(0, 50), max_size=3))):
            driver.receive(piece)
        driver.quiet()
        assert driver.replies == b"PONG" + model.replies
        assert driver.texts() == model.archive
        if driver.closed:
            return


@given(st.integers(0, 6), st.binary(max_size=12))
def test_anything_but_the_handshake_is_refused_at_the_first_byte_that_differs(
    right: int, wrong: bytes
) -> None:
    driver, first = Driver(100), b"PING\r\n"[:right] + wrong
    for at in range(1, len(first) + 1):
        driver.receive(first[at - 1 : at])
        fits = re.match(rb"PING(\n|\r\n|[A-Z])", first[:at])
        if fits:
            assert not driver.closed
            return
        if not b"PING\r\n".startswith(first[:at]):
            assert driver.closed
            assert driver.replies.removeprefix(b"PONG") == b"FAIL handshake expected\n"
            return
    assert not driver.closed


@pytest.mark.parametrize(
    ("pieces", "replies", "archived"),
    [
        ([b"PING"], b"PONG", []),
        ([b"PING", b"\n"], b"PONG\n", []),
        ([b"PING", b"\r", b"\n", b"MESG a\n"], b"PONG\nMESG a\n", [b"a"]),
        ([b"PINGMESG a"], b"PONGMESG a", [b"a"]),
        ([b"PING", b"\rMESG a"], b"PONGFAIL handshake expected\n", []),
        ([b"PING", b"\r"], b"PONGFAIL handshake expected\n", []),
        ([b"PING / HTTP/1.1\r\n"], b"PONGFAIL handshake expected\n", []),
        ([b"PING", b"MESG a\nb\r\n"], b"PONGMESG a\nb", [b"a\nb"]),
        ([b"PING", b"MESG a\r\nb\n\n"], b"PONGMESG a\\x0d\nb\n", [b"a\\x0d\nb\n"]),
        ([b"PING", b"PING\n"], b"PONGPONG", []),
        ([b"PING", b"\n", b"TERMx\n"], b"PONG\nFAIL space expected after the header\n", []),
        ([b"PING", b"MESG"], b"PONGFAIL space expected after the header", []),
        ([b"PING", b"MORE a"], b"PONGFAIL unknown header", []),
        ([b"PING", b"MORE"], b"PONGFAIL unknown header", []),
        ([b"PING", b"TERM "], b"PONGPWIV", []),
        ([b"PING", b"TERM secret\r\n"], b"PONGPWNO", []),
        ([b"PING", b"TERM a\nb"], b"PONGPWIV", []),
        ([b"PING\nMESG a"], b"PONG\n", []),
        ([b"PING\nMESG \n"], b"PONG\nMESG \n", [b""]),
        ([b"PING\nMESG a\r\r\n"], b"PONG\nMESG a\\x0d\n", [b"a\\x0d"]),
        ([b"PING\nMORE \nMORE \nMESG \n"], b"PONG\nMORE \nMORE \nMESG \n", [b"\n\n"]),
    ],
)
def test_worked_examples(pieces: list[bytes], replies: bytes, archived: list[bytes]) -> None:
    driver = Driver(100)
    for piece in pieces:
        driver.receive(piece)
    driver.end()
    assert (driver.replies, driver.texts(), driver.closed) == (replies, archived, True)


def test_the_longest_text_fits_and_a_longer_one_does_not() -> None:
    driver = Driver(10)
    driver.receive(b"PING\nMESG 1234567890\r\nMESG 12345678901\nMORE 12345\nMESG 67890\n")
    driver.receive(b"MORE 12345\nMORE 678901\nMORE more\nMESG rest\nMESG next\n")
    failed = b"FAIL message too long\n"
    assert driver.replies == b"PONG\nMESG 1234567890\n" + failed + (
        b"MORE 12345\nMESG 67890\n" + failed + b"MESG next\n"
    )


def test_a_line_too_long_is_answered_before_it_ends_and_not_kept() -> None:
    driver = Driver(10)
    driver.receive(b"PING\nMESG " + b"x" * 2000)
    assert driver.replies == b"PONG\nFAIL message too long\n"
    for _ in range(100):
        driver.receive(b"x" * 1000)
    driver.receive(b"\nMESG next\n")
    assert driver.replies == b"PONG\nFAIL message too long\nMESG next\n"


def test_empty_lines_without_end_do_not_fill_the_memory() -> None:
    driver = Driver(10)
    driver.receive(b"PING\n" + b"MORE \n" * 10 + b"MESG \n" + b"MORE \n" * 11 + b"MESG \nPING\n")
    echo = b"MORE \n" * 10 + b"MESG \n"
    assert driver.replies == b"PONG\n" + echo + b"FAIL message too long\nPONG\n"


def test_over_tls_there_is_line_framing_only() -> None:
    driver = Driver(100, line_only=True)
    driver.receive(b"PINGMESG a")
    assert driver.closed
    assert driver.replies == b"PONGFAIL line framing expected\n"
    lines = Driver(100, line_only=True)
    lines.receive(b"PING\r\nMESG a\n")
    assert lines.replies == b"PONG\nMESG a\n"


def test_what_is_under_way_is_told() -> None:
    driver = Driver(100)
    driver.quiet()
    driver.receive(b"PING")
    assert driver.protocol.greeted
    assert not driver.protocol.unfinished
    driver.receive(b"MESG a")
    assert driver.protocol.unfinished
    assert driver.protocol.held == len(b"MESG a")
    driver.quiet()
    driver.quiet()
    assert driver.replies == b"PONGMESG a"
    assert not driver.protocol.unfinished
    driver.feed(b"TERM x")
    driver.take(driver.protocol.quiet(driver.form))
    driver.take(driver.protocol.quiet(driver.form))  # nothing comes of that before the answer
    assert driver.protocol.paused
    driver.answer()
    assert driver.replies == b"PONGMESG aPWNO"
    lines = Driver(100)
    lines.receive(b"PING\nMORE a\nMESG b")
    assert not lines.protocol.unfinished
    assert lines.protocol.held == len(b"a\nMESG b")


def test_a_bare_message_too_long_closes() -> None:
    driver = Driver(2000)
    driver.receive(b"PING")
    driver.receive(b"MESG " + b"x" * 2001)
    driver.quiet()
    assert driver.closed
    assert driver.replies == b"PONGFAIL message too long"
    endless = Driver(2000)
    endless.receive(b"PINGMESG " + b"x" * 3000)
    assert endless.closed


def test_the_end_in_the_middle_of_a_line_drops_it() -> None:
    driver = Driver(100)
    driver.receive(b"PING\nMORE one\nMESG tw")
    driver.end()
    assert (driver.dropped, driver.archive) == (len(b"one\nMESG tw"), b"")


def test_what_is_behind_a_password_waits_for_its_answer() -> None:
    driver = Driver(100)
    driver.receive(b"PING\n")
    form, protocol = driver.form, driver.protocol
    first = protocol.receive(b"MESG a\nTERM secret\nMESG b\nTERM x\nMESG c", form)
    assert [type(event) for event in first] == [Records, Terminate]
    assert protocol.receive(b"1\nMESG \x1b2\n", form) == []
    assert protocol.held == len(b"MESG b\nTERM x\nMESG c1\nMESG \x1b2\n")
    second = protocol.resume(form, 1000)
    assert [type(event) for event in second] == [Records, Terminate]
    while protocol.paused:  # a little at a time, cut anywhere
        driver.take(protocol.resume(form, 1))
    assert driver.texts() == [b"c1", b"\\x1b2"]
    assert protocol.held == 0


def test_a_line_behind_a_password_keeps_its_carriage_returns() -> None:
    driver = Driver(8)
    driver.receive(b"PING\nTERM secret\nMESG a\r\r\nMESG b\r\nMESG 1234567\r\r\n")
    assert driver.replies == b"PONG\nPWNO\nMESG a\\x0d\nMESG b\nMESG 1234567\\x0d\n"


def test_a_line_too_long_behind_a_password_takes_no_other_line_with_it() -> None:
    driver = Driver(8)
    driver.receive(b"PING\nTERM secret\nMESG a\nMESG " + b"x" * 1100)
    driver.receive(b"xxx\nMESG b\n")
    assert driver.replies == b"PONG\nPWNO\nMESG a\nFAIL message too long\nMESG b\n"


INTERRUPTED = b"FAIL session interrupted\n"


@pytest.mark.parametrize(
    ("stream", "replies", "marks"),
    [
        (b"SESS a\nMESG x\nMORE y\nMESG z\n", b"SESS 0\nMESG x\nMORE y\nMESG z\n", "1 2+1"),
        (b"SESS a 9\nPING\nTERM x\nMESG x\n", b"SESS 0\nPONG\nPWNO\nMESG x\n", "9"),
        (b"SESS old\nMESG x\nSESS old\nMESG y\n", b"SESS 7\nMESG x\nSESS 8\nMESG y\n", "8 9"),
        (b"SESS old 8\nMESG x\n", b"SESS 7\nMESG x\n", "8"),
        (b"SESS old 7\nMESG x\n", b"FAIL number already used\n" + INTERRUPTED, ""),
        (b"SESS a 0\nMESG x\n", b"FAIL number already used\n" + INTERRUPTED, ""),
        (b"SESS\nMESG x\n", b"FAIL space expected after the header\n" + INTERRUPTED, ""),
        (b"SESS \nMESG x\nSESS a\n", b"FAIL malformed session\n" + INTERRUPTED + b"SESS 0\n", ""),
        # Whatever is refused stops the session, and so it stays until the next SESS.
        (b"SESS a\nMESG\nMESG x\nMORE y\nMESG z\nMESG\n",
         b"SESS 0\nFAIL space expected after the header\n" + 3 * INTERRUPTED, ""),
        (b"SESS a\nMESG " + b"x" * 101 + b"\nMESG y\nSESS a 3\nMESG z\n",
         b"SESS 0\nFAIL message too long\n" + INTERRUPTED + b"SESS 0\nMESG z\n", "3"),
        (b"SESS a\nMESG x\n" + b"MORE y\n" * 102 + b"MESG z\nMESG z\n",
         b"SESS 0\nMESG x\nFAIL message too long\n" + INTERRUPTED, "1"),
        (b"SESS a\nMORE x\nPING\nPING\nMESG y\n",
         b"SESS 0\nFAIL message interrupted\nPONG\n" + INTERRUPTED, ""),
        (b"SESS a\nMORE x\nWHAT\nMESG y\n", b"SESS 0\nFAIL unknown header\n" + INTERRUPTED, ""),
        (b"SESS a\nMORE x\nSESS a\nMESG y\n",
         b"SESS 0\nFAIL message interrupted\n" + INTERRUPTED, ""),
        (b"MORE x\nSESS a\nMESG y\n", b"FAIL message interrupted\n" + INTERRUPTED, ""),
        # What is no message stops nothing.
        (b"SESS a\nWHAT\nPING x\nTERM\n\nMESG x\n",
         b"SESS 0\nFAIL unknown header\nFAIL header takes no argument\nPWIV\n"
         b"FAIL unknown header\nMESG x\n", "1"),
        # Without a session nothing is stopped.
        (b"MESG\nMESG x\n", b"FAIL space expected after the header\nMESG x\n", "-"),
    ],
)  # fmt: skip
def test_sessions(stream: bytes, replies: bytes, marks: str) -> None:
    driver = Driver(100, {"old": 7})
    driver.receive(b"PING\n" + stream)
    assert driver.replies == b"PONG\n" + replies
    found = [mark.rpartition(b":")[2].lstrip(b"0").decode() or "-" for mark, _ in driver.records()]
    assert " ".join(found) == marks


def test_in_bare_framing_there_are_no_sessions() -> None:
    driver = Driver(100)
    driver.receive(b"PINGSESS a")
    driver.quiet()
    assert driver.replies == b"PONGFAIL unknown header"


def test_the_session_in_the_page() -> None:
    """Both connections of msgd-protocol(7), "A session that breaks", as it shows them."""
    page = (Path(__file__).parents[1] / "man/msgd-protocol.7").read_text()
    shown = page.partition(".Ss A session that breaks\n")[2].partition("\n.Ss ")[0]
    shown = shown.replace("(a text that is too long)", 101 * "x").replace("\\en", "\n")
    parts = re.findall(r"\.Bd -literal\n(client.*?)\.Ed", shown, re.DOTALL)
    archive, sessions = b"", dict[str, int]()
    for part in parts:
        driver = Driver(100, sessions)
        for side, data in re.findall(r"^(client|server)  ((?:[A-Z].*\n)+)\n", part, re.MULTILINE):
            if side == "client":
                driver.replies = b""
                arrives = data.partition("MESG four")[0] if "MESG three" in data else data
                driver.receive(arrives.encode())
            else:  # the echo of three is lost
                assert driver.replies.removesuffix(b"MESG three\n").decode() == data
        archive += driver.archive
    archived = [line.partition("/")[2] for line in archive.decode().splitlines()]
    assert len(parts) == 2
    assert archived == re.findall(r"^127\.0\.0\.1:\d+/(.*)$", shown, re.MULTILINE)


def test_what_cannot_be_written_stops_the_session() -> None:
    driver = Driver(100)
    driver.receive(b"PING\nSESS a\nMESG before\n")
    driver.broken = {2}
    driver.receive(b"MESG 1\nMESG 2\nPING\nMESG 3\n")
    failed = b"FAIL archive cannot be written\n"
    assert driver.replies.endswith(b"before\n" + failed + INTERRUPTED + b"PONG\n" + INTERRUPTED)
    driver.receive(b"MORE 4\nMESG 5\nSESS a\nMESG again\n")
    assert driver.replies.endswith(b"PONG\n" + 2 * INTERRUPTED + b"SESS 1\nMESG again\n")
    assert driver.records() == [(b"/a:001", b"before"), (b"/a:002", b"again")]


def test_the_first_message_that_cannot_be_written_has_the_reason() -> None:
    """No other: also where those behind it were read, and refused, before the write."""
    driver = Driver(10)
    driver.receive(b"PING\nSESS a\n")
    driver.broken = {1}
    driver.receive(b"MESG 1\nMESG 2\nMESG too long for it\nMESG 3\nMESG\nnonsense\n")
    failed = b"FAIL archive cannot be written\n"
    unknown = b"FAIL unknown header\n"
    assert driver.replies.endswith(b"SESS 0\n" + failed + 4 * INTERRUPTED + unknown)


def test_without_a_session_each_message_has_the_reason() -> None:
    for hello, ending in ((b"PING\n", b"\n"), (b"PINGM", b"")):
        driver = Driver(100)
        driver.receive(hello)
        failed = b"FAIL archive cannot be written" + ending
        assert driver.protocol.refused(2).data == 2 * failed
        assert driver.protocol.refused(1).data == failed


def test_a_session_that_is_taken_over() -> None:
    driver = Driver(100)
    driver.receive(b"PING\nSESS a\nMESG 1\nMORE 2\n")
    driver.protocol.taken_over()
    driver.receive(b"MESG 2\nMESG 3\nPING\nMESG\n")
    taken = b"FAIL session taken over\n"
    assert driver.replies == b"PONG\nSESS 0\nMESG 1\n" + 2 * taken + b"PONG\n" + taken
    driver.receive(b"SESS a\nMESG back\n")
    assert driver.records() == [(b"/a:001", b"1"), (b"/a:002", b"back")]


def test_a_session_that_is_taken_over_behind_a_loss() -> None:
    """It is told so: else it would take the session back by itself."""
    driver = Driver(100)
    driver.broken = {1}
    driver.receive(b"PING\nSESS a\nMESG 1\n")
    driver.protocol.taken_over()
    driver.receive(b"MESG 2\nMESG\n")
    assert driver.replies.endswith(b"written\n" + 2 * b"FAIL session taken over\n")


@given(STREAMS, st.sets(st.integers(0, 40)), st.data())
def test_a_session_has_no_gap_whatever_cannot_be_written(
    stream: bytes, broken: set[int], data: st.DataObject
) -> None:
    driver = Driver(1000)
    driver.broken = broken
    stream = b"PING\nSESS a\n" + stream.replace(b"SESS", b"MESG")
    for piece in cut(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=20))):
        driver.receive(piece)
    numbers = [int(mark.partition(b":")[2].partition(b"+")[0]) for mark, _ in driver.records()]
    assert numbers == list(range(1, len(numbers) + 1))


def receive(client: ClientProtocol, pieces: list[bytes]) -> list[Reply]:
    return [reply for piece in pieces for reply in client.receive(piece)]


def test_the_client_reads_what_the_server_writes() -> None:
    client = ClientProtocol()
    stream = b"PONG\nMESG a\nMORE b\nMORE \nMESG c\nFAIL busy\nPWOK\nMESG \nSESS 120\n"
    replies = receive(client, [bytes([byte]) for byte in stream])
    assert replies == [
        Reply(b"PONG"),
        Reply(b"MESG", b"a"),
        Reply(b"MESG", b"b\n\nc"),
        Reply(b"FAIL", b"busy"),
        Reply(b"PWOK"),
        Reply(b"MESG", b""),
        Reply(b"SESS", b"120"),
    ]
    assert ClientProtocol().receive(stream) == replies


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400",
        b"X",
        b"PING\n",
        b"TERM x\n",
        b"MORE a\nPONG\n",
        b"PONG x\n",
        b"MESG\n",
        b"FAIL \n",
        b"FAIL <b>no</b>\n",
        b"SESS 01\n",
        b"SESS -1\n",
        b"SESS x\n",
        b"MESG \x1b[1m\n",
        b"MESG \xff\n",
        "MESG \N{ZERO WIDTH SPACE}\n".encode(),
        b"\n",
    ],
)
def test_the_client_knows_a_server_that_is_something_else(stream: bytes) -> None:
    for pieces in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        client = ClientProtocol()
        with pytest.raises(ProtocolError):
            receive(client, pieces)


@pytest.mark.parametrize("endless", [b"MESG " + b"x" * 100, b"MORE \n" * 30, b"MORE xxx\n" * 30])
def test_the_client_keeps_no_endless_reply(endless: bytes) -> None:
    for size in (1, 7, 1000):
        client = ClientProtocol(50)
        with pytest.raises(ProtocolError):
            receive(client, cut(endless, range(0, len(endless), size)))


def test_the_longest_reply_is_taken() -> None:
    client = ClientProtocol(15)
    echo = b"MORE 123\nMESG 4\n"
    assert client.receive(echo * 3) == [Reply(b"MESG", b"123\n4")] * 3
    with pytest.raises(ProtocolError):
        client.receive(b"MORE 123\nMESG 45\n")


@given(STREAMS, st.data())
def test_the_client_understands_whatever_the_server_says(
    stream: bytes, data: st.DataObject
) -> None:
    driver = Driver(1000)
    driver.receive(b"PING\n" + stream)
    client = ClientProtocol(20_000)
    edges = data.draw(st.lists(st.integers(0, len(driver.replies)), max_size=20))
    replies = receive(client, cut(driver.replies, edges))
    assert [text for header, text in replies if header == b"MESG"] == driver.texts()


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), min_size=1))
def test_what_is_encoded_is_taken_apart_again(lines: list[bytes]) -> None:
    several, one = Driver(1000), Driver(1000)
    several.receive(b"PING\n" + b"".join(map(encode_message, lines)))
    assert several.messages == len(lines)
    one.receive(b"PING\n" + encode_message(b"\n".join(lines)))
    assert one.messages == 1


def test_requests_are_lines() -> None:
    assert request(b"PING") == b"PING\n"
    assert request(b"TERM", b"") == b"TERM \n"
    assert all(len(header) == 4 and header.isupper() for header in HEADERS)
    assert Close() == ()
