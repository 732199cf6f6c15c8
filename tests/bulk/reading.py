"""Reading lists in tests."""

from __future__ import annotations

import io

from ctms.bulk import lists
from ctms.bulk.columns import ReadOptions
from ctms.bulk.entries import Entry

ADDRESSES, OPT_OUTS = ReadOptions(), ReadOptions(opt_outs=True)


def read(text: str | bytes, wanted: ReadOptions = ADDRESSES) -> list[Entry]:
    return list(lists.read(io.BytesIO(text.encode() if isinstance(text, str) else text), wanted))


def found(text: str | bytes, wanted: ReadOptions = ADDRESSES) -> list[str | None]:
    return [entry.address for entry in read(text, wanted)]


def problems(text: str | bytes, wanted: ReadOptions = ADDRESSES) -> dict[int | None, str]:
    return {entry.line: entry.problem for entry in read(text, wanted) if entry.problem}
