"""The text rules, over every character that they name and many that they do not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.wire.text import escape, is_plain, typed
from tests.model import HIDDEN, NEEDED, escaped, visible

CONTROLS = {*range(0x20), *range(0x7F, 0xA0)} - {ord("\t"), ord("\n")}
UNSAFE = [*map(chr, sorted(CONTROLS | HIDDEN))]
SPECIAL = st.sampled_from(UNSAFE).map(str.encode)
MIXED = st.lists(st.one_of(st.binary(max_size=4), SPECIAL, st.text().map(str.encode))).map(b"".join)
# Of category Cf, but with a glyph: signs that enclose digits, and hieroglyphs' joiners.
WITH_GLYPH = {
    *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD,
    *range(0x13430, 0x13441),
}  # fmt: skip


@pytest.mark.parametrize("around", ["", "ab", "é—"])
def test_unsafe_characters_become_visible(around: str) -> None:
    before, after = around[:1].encode(), around[1:].encode()
    for char in UNSAFE:
        assert escape(before + char.encode() + after) == before + visible(char) + after
        assert not is_plain(before + char.encode() + after)


def test_they_are_found_in_long_texts_too() -> None:
    """Short and long texts are searched in two ways."""
    tags = {chr(code) for code in range(0xE0000, 0xE0FFF) if code % 61}
    for char in set(UNSAFE) - tags:
        for around in (b"a" * 5000, "é—😀".encode() * 1000):
            text = around + char.encode() + around
            assert escape(text) == around + visible(char) + around


def test_every_other_character_stays() -> None:
    codes = {*range(0xD800), *range(0xE000, 0x110000)} - CONTROLS - HIDDEN
    text = "".join(map(chr, sorted(codes)))
    assert escape(text.encode()) == text.encode()
    for at in range(0, len(text), 400):
        assert is_plain(text[at : at + 400].encode())


def test_the_rule_is_that_of_the_unicode_database() -> None:
    """As far as this Python's database knows: it has no Default_Ignorable_Code_Point."""
    unsafe = {"\t", "\n", *UNSAFE}
    of: dict[str, set[str]] = {}
    for char in map(chr, range(0x110000)):
        of.setdefault(unicodedata.category(char), set()).add(char)
        assert unicodedata.bidirectional(char) not in _BIDIRECTIONAL or char in unsafe
    hidden, formats = of["Cc"] | of["Zl"] | of["Zp"], of["Cf"]
    assert hidden <= unsafe
    assert formats - set(map(chr, WITH_GLYPH | NEEDED)) <= unsafe
    # What is escaped and has a name is a format character, or one of these.
    others = {char for char in unsafe - hidden - formats if unicodedata.name(char, "")}
    words = ("FILLER", "VARIATION SELECTOR", "JOINER", "INHERENT")
    assert all(any(word in unicodedata.name(char) for word in words) for char in others)


_BIDIRECTIONAL = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize("byte", range(0x80, 0x100))
def test_a_byte_that_is_no_utf8_becomes_visible(byte: int) -> None:
    assert escape(b"a" + bytes([byte])) == b"a\\x%02x" % byte


@given(MIXED)
def test_escape_is_the_model(text: bytes) -> None:
    assert escape(text) == escaped(text)
    assert is_plain(text) == (escaped(text) == text)
    assert escape(escape(text)) == escape(text)


@pytest.mark.parametrize("size", [100, 5000])
@pytest.mark.parametrize(
    "bit",
    [b"\xff", b"a\xff", b"\x1b", b"\x1b\xff", b"\xf0\x9f", "\x9b".encode(), "é\U000e0041".encode()],
)
def test_escape_is_the_model_for_texts_full_of_what_is_unsafe(bit: bytes, size: int) -> None:
    assert escape(bit * size) == escaped(bit * size)


def test_what_is_typed_becomes_utf8_whatever_the_locale() -> None:
    assert typed("é€") == "é€".encode()
    assert typed(b"a\xff".decode("ascii", "surrogateescape")) == b"a\xff"
