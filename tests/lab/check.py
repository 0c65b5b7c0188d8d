"""Whether an archive holds what was echoed, once and whole, and nothing that was never sent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from msgd.archive.reader import records
from tests.lab.load import Sender

_BEGIN = re.compile(
    rb"(\d{4}-\d\d-\d\d)T\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d 127\.0\.0\.\d+:\d+"
    rb"(?:/[\w.-]+:\d{3,}(?:\+(\d+))?)? ",
    re.ASCII,
)


def is_whole(data: bytes) -> bool:
    """Whether a crash has left no half of a record that shows by itself at the end."""
    if not data.endswith(b"\n"):
        return not data
    last = re.split(rb"\n(?!\t)", data[:-1])[-1]
    begin = _BEGIN.match(last)
    return begin is None or last.count(b"\n\t") >= int(begin[2] or 0)


class Found(NamedTuple):
    """What a part of an archive holds."""

    texts: list[bytes]
    torn: bytes  # the rest behind the last whole record; b"" where there is none


def read(data: bytes) -> Found:
    """Take records apart; fails on what is neither record nor rest."""
    lines, feed, rest = data.rpartition(b"\n")
    return Found([record.text for record in records([lines + feed], strict=True)], rest)


def verify(data: bytes, senders: Iterable[Sender], *, killed: bool = False) -> Found:
    """Check what was archived while these clients sent.

    Where the daemon was killed the last record may be a beginning of one that was sent and not
    echoed. It is returned as torn, without its text.
    """
    senders = list(senders)
    problems = [sender.problem for sender in senders if sender.problem]
    assert not problems, problems
    sent = dict(receipt for sender in senders for receipt in sender.receipts())
    assert len(sent) == sum(len(sender.sent) for sender in senders), "a text was sent twice"
    found = read(data)
    if killed:
        found = _without_torn(found, sent, data)
    assert not found.torn, f"an unfinished line: {found.torn!r}"
    counts = Counter(found.texts)
    assert not counts.keys() - sent.keys(), f"never sent: {[*counts.keys() - sent.keys()][:3]}"
    twice = [text for text, count in counts.items() if count > 1]
    assert not twice, f"archived twice: {twice[:3]}"
    lost = [text for text, echoed in sent.items() if echoed and text not in counts]
    assert not lost, f"{len(lost)} echoed and lost: {lost[:3]}"
    denied = [text for sender in senders for text in sender.denied() if text in counts]
    assert not denied, f"answered with FAIL, but archived: {denied[:3]}"
    _in_order(found.texts, senders)
    return found


def _without_torn(found: Found, sent: dict[bytes, bool], data: bytes) -> Found:
    """Take an unfinished record away from the end, if it is the beginning of one not echoed."""
    texts, torn = found
    *_, rest = re.split(rb"\n(?!\t)", data.removesuffix(b"\n"))
    begin = _BEGIN.match(rest)
    if begin and begin[2] and not is_whole(data):  # of a session: the reader has left it out
        last = rest[begin.end() :].replace(b"\n\t", b"\n")
    elif torn.startswith(b"\t"):  # it was torn in a further line of its text
        last = texts.pop() + b"\n" + torn[1:]
    elif torn:
        begin = _BEGIN.match(torn)
        last = torn[begin.end() :] if begin else b""
    elif texts and texts[-1] not in sent:  # it was torn just behind a line of it
        last = texts.pop() + b"\n"
    else:
        return found
    assert any(text.startswith(last) and not echoed for text, echoed in sent.items()), (
        f"torn, but no beginning of what was sent and not echoed: {last!r}"
    )
    return Found(texts, b"")


def _in_order(texts: list[bytes], senders: Iterable[Sender]) -> None:
    """The messages of one connection stand in the order in which it sent them."""
    place = {text: number for number, text in enumerate(texts)}
    for sender in senders:
        places = [place[message.text] for message in sender.sent if message.text in place]
        assert places == sorted(places), f"{sender.name}: archived in another order"
