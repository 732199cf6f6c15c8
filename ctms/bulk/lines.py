"""The lines of a file or a pipe, read one by one: whatever is in it, it costs little memory and ends nothing."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator
from typing import BinaryIO

LONGEST_LINE = 65_536
"""Characters; one that is longer is cut. A file that has no lines at all must not be read into memory."""

NOT_TEXT = "\N{REPLACEMENT CHARACTER}"
"""Stands where bytes are no text."""

_BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Lines:
    """The lines of a stream in UTF-8 (or in UTF-16, with a BOM) and their numbers, without those that say nothing.

    Blank lines say nothing, nor do those that begin with `#`. Lines that were read too far can be given back.
    """

    def __init__(self, stream: BinaryIO) -> None:
        start = stream.read(2)  # and no seek back: it may be a pipe
        whole = io.BufferedReader(_Continued(start, stream), 1 << 18)
        self._text = io.TextIOWrapper(whole, _BOMS.get(start, "utf-8-sig"), errors="replace")
        self._again: deque[tuple[int, str]] = deque()
        self._number = 0

    def __iter__(self) -> Iterator[tuple[int, str]]:
        while (found := self.next()) is not None:
            text = found[1].strip()
            if text and not text.startswith("#"):
                yield found

    def next(self) -> tuple[int, str] | None:
        """Return the next line, whatever it says; None at the end."""
        if self._again:
            return self._again.popleft()
        line = self._text.readline(LONGEST_LINE)
        if not line:
            return None
        self._number += 1
        if len(line) == LONGEST_LINE and not line.endswith("\n"):
            while (more := self._text.readline(LONGEST_LINE)) and not more.endswith("\n"):
                pass
        return self._number, line

    def give_back(self, lines: Iterable[tuple[int, str]]) -> None:
        """Have these lines come next."""
        self._again.extendleft(reversed(list(lines)))


class _Continued(io.RawIOBase):
    """A stream whose first bytes have been read."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # it is more than a memoryview may be
        found = self._start or self._rest.read(len(buffer))
        self._start = b""
        buffer[: len(found)] = found
        return len(found)
