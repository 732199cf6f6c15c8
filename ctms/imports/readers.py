"""Readers of the files of an import: CSV, NDJSON and Parquet, also compressed, and the directories of exports.

Each yields the rows with their numbers, from 1. A row is a mapping of columns, or a document. One that cannot be read
is a `RowError`: the others can.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Protocol

from ctms.bulk.csv_rows import DELIMITERS, parse_line, read_row
from ctms.bulk.lines import MAX_LINE, Lines, decompress
from ctms.errors import ListError
from ctms.imports.mapping import Row, RowError

CSV, NDJSON, PARQUET = FORMATS = ("csv", "ndjson", "parquet")

MANIFEST = "manifest.json"
MAX_DOCUMENT = 16 * 1024 * 1024
"""Bytes of a line of NDJSON."""

_SUFFIXES = {
    ".csv": CSV,
    ".tsv": CSV,
    ".txt": CSV,
    ".ndjson": NDJSON,
    ".jsonl": NDJSON,
    ".json": NDJSON,
    ".parquet": PARQUET,
}
_COMPRESSED = {".gz", ".zst"}


class RowReader(Protocol):
    """A reader of one file."""

    @property
    def columns(self) -> Sequence[str] | None:
        """The names of the columns; None if each row has its own."""

    def __iter__(self) -> Iterator[Row | RowError]:
        """Yield the rows."""


class CsvReader:
    """A reader of a CSV file, whose first row names the columns. Raises `ListError`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = Lines(stream, newline="")  # line breaks within quotes stay as they are
        first = self._lines.next()
        if first is None:
            raise ListError("the file is empty")
        if len(first[1]) >= MAX_LINE:
            raise ListError("the first line is too long")
        found = [(one, cells) for one in DELIMITERS if (cells := parse_line(first[1], one)) is not None]
        if not found:
            raise ListError("the first line is not a row of CSV: it has a quote that does not end")
        self._delimiter, names = max(found, key=lambda both: len(both[1]))
        self.columns: Sequence[str] = [name.strip() for name in names]
        if len(set(self.columns)) < len(self.columns):
            raise ListError("two columns have the same name: rename one in the first line")

    def __iter__(self) -> Iterator[Row | RowError]:
        """Yield the rows that are not empty. Raises `ListError` when it is not known where a row ends."""
        columns, delimiter = self.columns, self._delimiter
        for number, line in self._lines.rows():
            cells = read_row(self._lines, number, line, delimiter)
            if cells is None:
                yield RowError((), "The line is too long")
                continue
            while len(cells) > len(columns) and not cells[-1].strip():
                cells.pop()
            if len(cells) > len(columns):
                yield RowError((), "The row has more columns than the first line")
            else:
                yield dict(zip(columns, cells, strict=False))


class NdjsonReader:
    """A reader of JSON documents, one per line."""

    columns: None = None

    def __init__(self, stream: BinaryIO) -> None:
        start, self._stream = decompress(stream)
        if start.startswith(b"["):
            raise ListError("it is a JSON array: write one document per line")

    def __iter__(self) -> Iterator[Row | RowError]:
        """Yield the documents."""
        while line := self._stream.readline(MAX_DOCUMENT):
            if len(line) == MAX_DOCUMENT:
                while line and not line.endswith(b"\n"):
                    line = self._stream.readline(MAX_DOCUMENT)
                yield RowError((), "The line is too long")
            elif not line.isspace():
                yield _document(line.removeprefix(b"\xef\xbb\xbf"))


def _document(line: bytes) -> Row | RowError:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # of JSON or UTF-8
        return RowError((), "The line is not JSON")
    return found if isinstance(found, dict) else RowError((), "The line is not a JSON object")


def find_format(path: Path) -> str | None:
    """Return the format of a file by its name."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def find_files(path: Path) -> list[Path]:
    """Return the file, or the parts of an export in a directory. Raises `ListError` if the export is incomplete."""
    if not path.is_dir():
        return [path]
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        names = [Path(part["file"]).name for part in manifest["parts"]]
    except FileNotFoundError:
        raise ListError(f"{path} has no manifest.json: it is no export, or an incomplete one") from None
    except (ValueError, KeyError, TypeError):
        raise ListError(f"{path / MANIFEST} is not the manifest of an export") from None
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise ListError(f"{path} lacks {missing[0]}, which its manifest lists")
    return [path / name for name in names]


def open_reader(stream: BinaryIO, format_: str) -> RowReader:
    """Return the reader of a file. Raises `OperatorError` if it cannot be read."""
    if format_ == PARQUET:
        from ctms.imports.parquet import ParquetReader  # noqa: PLC0415  pyarrow is optional, and takes long to import

        return ParquetReader(stream)
    return CsvReader(stream) if format_ == CSV else NdjsonReader(stream)


def number(readers: Iterable[Iterable[Row | RowError]]) -> Iterator[tuple[int, Row | RowError]]:
    """Yield the rows of several files with their numbers."""
    return enumerate(chain.from_iterable(readers), 1)
