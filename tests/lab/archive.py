"""The records of an archive, taken apart in the slow and obvious way."""

from __future__ import annotations

import re
from typing import NamedTuple


class Record(NamedTuple):
    """One record of the archive."""

    stamp: str
    origin: str
    text: str


_RECORD = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d) (\d[\d.]*:\d+|\[[0-9a-f:.]+\]:\d+) (.*)"
)


def parse(archive: str) -> list[Record]:
    """The records in an archive file; fails on a line that is neither record nor continuation."""
    records: list[Record] = []
    assert archive == "" or archive.endswith("\n")
    for line in archive.split("\n")[:-1]:
        if line.startswith("\t"):
            last = records.pop()
            records.append(last._replace(text=f"{last.text}\n{line[1:]}"))
        else:
            found = _RECORD.fullmatch(line)
            assert found, f"not a record: {line!r}"
            records.append(Record(*found.groups()))
    return records
