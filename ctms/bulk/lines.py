"""Streaming reader for the lines of a file or a pipe, with bounded memory whatever the content."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast

from ctms.errors import ListError

MAX_LINE = 65_536
"""Characters of a line; a longer line is truncated, so that a file without line breaks is not read into memory."""

NOT_TEXT = "\N{REPLACEMENT CHARACTER}"
"""Replaces bytes that are not text."""

_BREAKS = "\r\n"
"""The ends of lines. If a CR LF is divided, its line feed is taken for a blank line, which nobody reads."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZIP = b"PK\x03\x04"
_UTF_16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MAX_HIGH_BYTE = 9  # no tab, no line break, no printable character
_FALLBACK = "ctms.windows_1252"


def _decode_as_windows_1252(error: UnicodeError) -> tuple[str, int]:
    """Decode bytes that are not UTF-8 as Windows-1252, Excel's encoding, which contains the text of Latin-1."""
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101  files are only read
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error(_FALLBACK, _decode_as_windows_1252)


class Lines:
    """The lines of a stream and their numbers, without blank lines and comments (`#`), or with comments (`rows`).

    The stream may be UTF-8, UTF-16 or Windows-1252 (Latin-1), and compressed with gzip or zstd. Lines read ahead can be
    pushed back. Line breaks become line feeds, unless `newline` is `""`. Raises `ListError` when the stream is an
    archive, or damaged.
    """

    def __init__(self, stream: BinaryIO, newline: str | None = None) -> None:
        start, whole = decompress(stream)
        encoding = _encoding(start)
        self._text = io.TextIOWrapper(
            whole, encoding, errors=_FALLBACK if encoding == "utf-8-sig" else "replace", newline=newline
        )
        self._again: deque[tuple[int, str]] = deque()
        self._number = 0
        self._cut = False

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self._without_blank_lines("#")

    def rows(self) -> Iterator[tuple[int, str]]:
        """Yield the lines and their numbers without blank lines: in a table, a line that begins with `#` is a row."""
        return self._without_blank_lines("")

    def _without_blank_lines(self, comment: str) -> Iterator[tuple[int, str]]:
        while True:
            if self._again or self._cut:
                found = self.next()
                if found is None:
                    return
                number, line = found
            else:  # as `next` does, without two calls for each of a million lines
                line = self._text.readline(MAX_LINE)
                if not line:
                    return
                self._number = number = self._number + 1
                self._cut = len(line) == MAX_LINE and line[-1] not in _BREAKS
            text = line.lstrip()
            # A truncated line is not blank: what was cut off may be anything.
            if (text and text[0] != comment) or (not text and len(line) == MAX_LINE):
                yield number, line

    def next(self) -> tuple[int, str] | None:
        """Return the next line, including blank lines and comments; None at the end."""
        if self._again:
            return self._again.popleft()
        while self._cut:
            self._read()
        line = self._read()
        return (self._number, line) if line else None

    def peek(self, number: int) -> list[tuple[int, str]]:
        """Return the next lines, at most `number`, without removing them; a truncated line is the last one."""
        found: list[tuple[int, str]] = []
        while len(found) < number and (line := self.next()) is not None:
            found.append(line)
            if len(line[1]) == MAX_LINE:  # its rest can be read only until the next line is
                break
        self.push_back(found)
        return found

    def rest(self) -> Iterator[str]:
        """Yield the rest of the line that was returned last, in pieces; nothing if it was not truncated.

        Lines that were pushed back come without their rest, except the last one that was read.
        """
        while self._cut and not self._again:
            yield self._read()

    def chunks(self) -> Iterator[tuple[int, str]]:
        """Yield the rest of the stream in chunks: lines, or parts of lines, of at most `MAX_LINE` characters."""
        while self._again:
            yield self._again.popleft()
        while piece := self._read():
            yield self._number, piece

    def push_back(self, lines: Iterable[tuple[int, str]]) -> None:
        """Push lines back, so that they come next."""
        self._again.extendleft(reversed(list(lines)))

    def _read(self) -> str:
        """Return the next line, or the next chunk of a long line."""
        piece = self._text.readline(MAX_LINE)
        self._number += not self._cut
        self._cut = len(piece) == MAX_LINE and piece[-1] not in _BREAKS
        return piece


def decompress(stream: BinaryIO) -> tuple[bytes, io.BufferedReader[Any]]:
    """Return the first bytes, and the whole stream, decompressed if it is compressed with gzip or zstd.

    Raises `ListError`, when it is read too, if the stream is an archive, or damaged.
    """
    start, whole = _peek(stream)
    if start.startswith(_GZIP):
        start, whole = _peek(cast("BinaryIO", gzip.GzipFile(fileobj=whole)), "it is a damaged gzip file")
    elif start == _ZSTD:
        from ctms.bulk.zstd import ZstdReader  # noqa: PLC0415  most lists do without

        start, whole = _peek(cast("BinaryIO", ZstdReader(whole)), "it is a damaged zstd file")
    if start == _ZIP:
        raise ListError("it is a ZIP archive or an Excel workbook: unpack it, or save the sheet as CSV")
    return start, whole


def _peek(stream: BinaryIO, damaged: str | None = None) -> tuple[bytes, io.BufferedReader[Any]]:
    """Return the first four bytes and the whole stream, which may be a pipe and not seekable."""
    source = _Whole(stream, damaged)
    whole = io.BufferedReader(source, 1 << 18)
    start = b""
    while len(start) < len(_ZIP) and (more := source.readinto_bytes(len(_ZIP) - len(start))):
        start += more
    source.start = start
    return start, whole


def _encoding(start: bytes) -> str:
    if start.startswith(_UTF_16_BOMS):
        return "utf-16"
    # Without a byte order mark, a first character in ASCII reveals the byte order. The high byte of the second one is
    # small, too, in the scripts of Europe and its neighbours: otherwise, the zero may be any damaged byte.
    for order, high, low in (("be", start[::2], start[1::2]), ("le", start[1::2], start[::2])):
        if high[:1] == b"\0" < low[:1] and max(high) < _MAX_HIGH_BYTE:
            return f"utf-16-{order}"
    return "utf-8-sig"


class _Whole(io.RawIOBase):
    """A stream with its first bytes already read (`start`); a damaged stream raises `ListError`."""

    def __init__(self, rest: BinaryIO, damaged: str | None) -> None:
        self.start = b""
        self._rest = rest
        self._damaged = damaged

    def readable(self) -> bool:
        return True

    def readinto_bytes(self, size: int) -> bytes:
        """Return at most `size` bytes of the rest."""
        try:
            return self._rest.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            if self._damaged is None:
                raise
            raise ListError(self._damaged) from None

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # it is more than a memoryview may be
        found = self.start or self.readinto_bytes(len(buffer))
        self.start = b""
        buffer[: len(found)] = found
        return len(found)
