"""The reader of day files: what it takes for a record, wherever the file's blocks end."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.archive.final import Final, final_line, read_final
from msgd.archive.reader import NotARecord, Record, read, read_days, records
from msgd.archive.records import Form
from msgd.archive.scan import scan, split
from msgd.archive.source import Day, days

STAMP = b"2026-11-23T02:51:07.123456+00:00"
HEAD = STAMP + b" 127.0.0.1:40312"


def texts(data: bytes, *, strict: bool = False) -> list[bytes]:
    """What is read, in each case of `data` cut in blocks: whole, and byte by byte."""
    whole = [*records([data], strict=strict)]
    assert [*records([data[at : at + 1] for at in range(len(data))], strict=strict)] == whole
    for record in whole:
        assert data[record.offset : record.end].startswith(record.stamp)
    return [record.text for record in whole]


@pytest.mark.parametrize(
    ("head", "origin", "name", "session", "number"),
    [
        (b"127.0.0.1:40312", b"127.0.0.1:40312", b"", b"", 0),
        (b"[::1]:9", b"[::1]:9", b"", b"", 0),
        (b"[fe80::1%eth0@if3]:9", b"[fe80::1%eth0@if3]:9", b"", b"", 0),
        (b"unix:77@ann", b"unix:77", b"ann", b"", 0),
        (b"10.0.0.1:5@web1.example.org", b"10.0.0.1:5", b"web1.example.org", b"", 0),
        (b"10.0.0.1:5/nightly:007", b"10.0.0.1:5", b"", b"nightly", 7),
        (b"[::1]:5@a_b/n.1-x:1501", b"[::1]:5", b"a_b", b"n.1-x", 1501),
    ],
)
def test_origin(head: bytes, origin: bytes, name: bytes, session: bytes, number: int) -> None:
    line = STAMP + b" " + head + b" a text\n"
    assert [*records([line])] == [
        Record(STAMP, origin, name, session, number, b"a text", 0, len(line))
    ]


def test_several_lines() -> None:
    data = HEAD + b" one\n\ttwo\n\t\n" + HEAD + b"/s:001+2 a\n\tb\n\tc\n" + HEAD + b" \n"
    assert texts(data, strict=True) == [b"one\ntwo\n", b"a\nb\nc", b""]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HEAD + b" whole\n" + HEAD + b" hal\x18\n" + HEAD + b" more\n", [b"whole", b"more"]),
        (HEAD + b" whole\n\x18\n" + HEAD + b" more\n", [b"whole", b"more"]),
        # half of a session's record, and whole records behind it
        (HEAD + b"/s:001+2 a\n\tb\n" + HEAD + b" behind\n\x18\n" + HEAD + b" more\n", [b"more"]),
        (HEAD + b"/s:001+2 a\n\tb\x18\n" + HEAD + b" more\n", [b"more"]),
        (HEAD + b"/s:001+1 a\x18\n" + HEAD + b" more\n", [b"more"]),
        # a NUL, in a record and between them
        (HEAD + b" a\n" + HEAD + b" b\0\0\n" + HEAD + b" c\n\x18\n" + HEAD + b" d\n", [b"a", b"d"]),
        (HEAD + b" a\n\0\0\0\n" + HEAD + b" c\n\0\x18\n" + HEAD + b" d\n", [b"a", b"d"]),
        (HEAD + b" a\n\tb\x18\n" + HEAD + b" d\n", [b"d"]),
        # nothing has marked the end yet
        (HEAD + b" a\n" + HEAD + b"/s:001+1 b\n", [b"a"]),
    ],
)
def test_what_a_crash_left(data: bytes, expected: list[bytes]) -> None:
    assert texts(data, strict=True) == expected


@pytest.mark.parametrize("strange", [b"a note\n", b"\tof nobody\n", b"2026-11-23 10:00 note\n"])
def test_a_strange_line_is_no_damage(strange: bytes) -> None:
    data = HEAD + b" a\n" + HEAD + b" b\n"
    if not strange.startswith(b"\t"):
        data = data[: len(data) // 2] + strange + data[len(data) // 2 :]
    else:
        data = strange + data
    assert texts(data) == [b"a", b"b"]
    with pytest.raises(NotARecord):
        texts(data, strict=True)


def test_an_unfinished_line_is_no_record() -> None:
    assert texts(HEAD + b" a\n" + HEAD + b" b") == [b"a"]
    assert texts(HEAD + b" a\n" + HEAD + b" b\n\tc") == [b"a"]
    with pytest.raises(NotARecord):
        texts(HEAD + b" a", strict=True)


@given(st.lists(st.text("ab\n\té ").map(str.encode)), st.integers(0, 1200), st.data())
def test_reads_what_the_form_writes(lines: list[bytes], number: int, data: st.DataObject) -> None:
    form = Form("127.0.0.1:1")
    form.at(STAMP)
    if number:
        form.open("s-1", number)
    written = b"".join(map(form.message, lines))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)))))
    blocks = [written[a:b] for a, b in zip([0, *cuts], [*cuts, len(written)], strict=True)]
    found = [*records(blocks, strict=True)]
    assert [record.text for record in found] == lines
    assert [r.number for r in found] == [number + i if number else 0 for i in range(len(lines))]
    assert [r.end for r in found][:-1] == [r.offset for r in found][1:]


def test_days_plain_and_packed(tmp_path: Path) -> None:
    one, two, three = (HEAD + b" %d\n" % number for number in (1, 2, 3))
    (tmp_path / "2026-11-20.log.gz").write_bytes(gzip.compress(one) + gzip.compress(two))
    (tmp_path / "2026-11-21.log").write_bytes(three)
    for other in ("notes.txt", "2026-11-31.log", "2026-11-20.2.log"):
        (tmp_path / other).write_text("no day")
    assert days(str(tmp_path)) == ["2026-11-20", "2026-11-21"]
    assert [record.text for record in read_days(tmp_path)] == [b"1", b"2", b"3"]
    assert [record.text for record in read_days(tmp_path, "2026-11-21")] == [b"3"]
    assert [r.text for r in read(tmp_path / "2026-11-20.log.gz")] == [b"1", b"2"]


def test_a_gzip_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes whole records goes back by the beginning of the next one, each time."""
    data = random.Random(1).randbytes(3 << 20)
    (tmp_path / "2026-11-20.log.gz").write_bytes(gzip.compress(data, 1))
    with Day(str(tmp_path), "2026-11-20") as day:
        assert day.packed is not None
        sought, found, seek = list[int](), b"", day.packed.seek

        def note(at: int) -> int:
            sought.append(at)
            return seek(at)

        monkeypatch.setattr(day.packed, "seek", note)
        while block := day.read(len(found), 200_000):
            found += block[: max(len(block) - 5000, 1000)]
    assert found == data
    assert sought == sorted(sought)


@pytest.mark.parametrize(("plain", "expected"), [(b"2", b"12"), (b"3", b"123"), (b"12", b"12")])
def test_a_day_that_is_both(tmp_path: Path, plain: bytes, expected: bytes) -> None:
    (tmp_path / "2026-11-20.log.gz").write_bytes(gzip.compress(b"1") + gzip.compress(b"2"))
    (tmp_path / "2026-11-20.log").write_bytes(plain)
    with Day(str(tmp_path), "2026-11-20") as day:
        assert b"".join(day.blocks()) == expected
        assert day.size == len(expected)
        assert b"".join(day.blocks(1)) == expected[1:]
        assert day.in_place(str(tmp_path))
        (tmp_path / "2026-11-20.log").unlink()
        assert not day.in_place(str(tmp_path))


def test_final(tmp_path: Path) -> None:
    assert read_final(str(tmp_path)) is None
    (tmp_path / ".msgd.final").write_bytes(final_line("2026-11-20", 12345))
    assert (tmp_path / ".msgd.final").read_bytes() == b"2026-11-20.log 00000000000000012345\n"
    assert read_final(str(tmp_path)) == Final("2026-11-20", 12345)
    (tmp_path / ".msgd.final").write_bytes(b"2026-11-20.log 123\n")
    assert read_final(str(tmp_path)) is None


PIECES = [
    HEAD + b" plain\n", HEAD + b"/s:001 a\n", HEAD + b"/s:002 b\n", HEAD + b"/t:1003 c\n",
    HEAD + b"/s:004+1 d\n", HEAD + b"@n/s:005+2 e\n", HEAD + b"/s:006", b"\tmore\n", b"\tmo",
    b"\x18\n", b"\0\0", b"\n", b"a note\n", HEAD + b"/s:7 no\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.integers(1, 40))
def test_reads_as_the_scan_at_a_start_does(pieces: list[bytes], size: int) -> None:
    """What the server believes after a crash, and what a reader of the archive sees."""
    data = b"".join(pieces)
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    seen: dict[tuple[str, str], int] = {}
    for record in records(blocks):
        if record.session:
            seen[record.name.decode(), record.session.decode()] = record.number
    assert seen == {split(key): last for key, last in scan(blocks).last.items()}
