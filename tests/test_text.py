"""The text rules, over every character that they name and many that they do not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.wire.text import escape, is_plain, typed, unsafe_lines
from tests.model import BIDI_AND_SEPARATORS, escaped

CONTROLS = [code for code in range(0x110000) if unicodedata.category(chr(code)) == "Cc"]
NAMED = sorted({*CONTROLS, *BIDI_AND_SEPARATORS} - {ord("\t"), ord("\n")})
SPECIAL = st.sampled_from([chr(code) for code in NAMED]).map(str.encode)
MIXED = st.lists(st.one_of(st.binary(max_size=4), SPECIAL, st.text().map(str.encode))).map(b"".join)


@pytest.mark.parametrize("code", NAMED, ids="U+{:04X}".format)
@pytest.mark.parametrize("around", [(b"", b""), (b"a", b"b"), ("é".encode(), "—".encode())])
@pytest.mark.parametrize("size", [1, 5000])  # short and long texts are searched in two ways
def test_named_characters_become_visible(code: int, around: tuple[bytes, bytes], size: int) -> None:
    before, after = around[0] * size, around[1] * size
    text = before + chr(code).encode() + after
    expected = f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    assert escape(text) == before + expected.encode() + after
    assert not is_plain(text)


def test_every_other_character_stays() -> None:
    kept = set(range(0x110000)) - set(range(0xD800, 0xE000)) - set(NAMED)
    text = "".join(map(chr, sorted(kept))).encode()
    assert escape(text) == text
    assert is_plain(text)


@pytest.mark.parametrize("byte", range(0x80, 0x100))
def test_a_byte_that_is_no_utf8_becomes_visible(byte: int) -> None:
    assert escape(b"a" + bytes([byte])) == b"a\\x%02x" % byte


@given(MIXED)
def test_escape_is_the_model(text: bytes) -> None:
    assert escape(text) == escaped(text)
    assert is_plain(text) == (escaped(text) == text)
    assert escape(escape(text)) == escape(text)


@given(st.lists(MIXED.map(lambda text: text.replace(b"\n", b"") + b"\n")), st.integers(0, 300))
def test_unsafe_lines_are_those_that_need_an_escape(lines: list[bytes], plain: int) -> None:
    data = (b"plain\n" * plain).join([b"", *lines])
    expected, at = [], 0
    for line in data.split(b"\n")[:-1]:
        if escaped(line) != line:
            expected.append(at)
        at += len(line) + 1
    assert unsafe_lines(data) == expected


def test_what_is_typed_becomes_utf8_whatever_the_locale() -> None:
    assert typed("é€") == "é€".encode()
    assert typed(b"a\xff".decode("ascii", "surrogateescape")) == b"a\xff"
