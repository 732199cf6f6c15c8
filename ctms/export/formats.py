"""The formats of an export: what the database sends for them, and how that becomes a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ctms.contacts.sparse import Selection, all_fields
from ctms.contacts.stored_documents import contact_document
from ctms.export.files import HashedFile
from ctms.export.rendering import CopyStatement, column_names, join_documents
from ctms.search.conditions import Condition

NDJSON, CSV, PARQUET = "ndjson", "csv", "parquet"
FORMATS = (NDJSON, CSV, PARQUET)
ZSTD, UNCOMPRESSED = "zstd", "none"
COMPRESSIONS = (ZSTD, UNCOMPRESSED)

_LEVEL = 3
_BLOCK = 1024 * 1024


class Writer(Protocol):
    """A writer of one file."""

    def write(self, block: Any) -> None:
        """Write a block that `encode` returned."""

    def close(self) -> None:
        """Write the end of the file, which stays open."""


class Format(Protocol):
    """A format of an export. `block` is the number of bytes of rows that make a block."""

    suffix: str
    block: int

    def statement(self, condition: Condition | None, values: Sequence[Any]) -> CopyStatement:
        """Return the statement whose rows the format takes."""

    def encode(self, rows: Sequence[bytes]) -> Any:
        """Return the rows as a block. Blocks of several threads may be encoded at the same time."""

    def open(self, file: HashedFile) -> Writer:
        """Begin a file."""


class _TextWriter:
    def __init__(self, file: HashedFile, header: bytes, *, compressed: bool) -> None:
        self._file: Any = file
        if compressed:
            import zstandard  # noqa: PLC0415  the API, which exports nothing itself, does without

            compressor = zstandard.ZstdCompressor(_LEVEL, write_checksum=True)
            self._file = compressor.stream_writer(file, closefd=False)  # type: ignore[arg-type]
        self._compressed = compressed
        self._file.write(header)

    def write(self, block: bytes) -> None:
        self._file.write(block)

    def close(self) -> None:
        if self._compressed:
            self._file.close()


class _TextFormat:
    block = _BLOCK

    def __init__(self, name: str, selection: Selection | None, compression: str) -> None:
        self._name = name
        self._selection = selection or all_fields()
        self._whole = selection is None
        self._compressed = compression == ZSTD
        self.suffix = f".{name}.zst" if self._compressed else f".{name}"

    def statement(self, condition: Condition | None, values: Sequence[Any]) -> CopyStatement:
        csv = self._name == CSV
        document = contact_document() if self._whole and not csv else None
        return CopyStatement(self._selection, condition, values, csv, document)

    def encode(self, rows: Sequence[bytes]) -> bytes:
        return b"".join(rows) if self._name == CSV else join_documents(rows)

    def open(self, file: HashedFile) -> _TextWriter:
        header = ",".join(column_names(self._selection)) + "\n" if self._name == CSV else ""
        return _TextWriter(file, header.encode(), compressed=self._compressed)


def make_format(name: str, selection: Selection | None, compression: str) -> Format:
    """Return the format for the selected fields (None: all). Raises `OperatorError` if it needs a missing package."""
    if name == PARQUET:
        from ctms.export.parquet import ParquetFormat  # noqa: PLC0415  pyarrow is optional, and takes long to import

        return ParquetFormat(selection or all_fields(), compressed=compression == ZSTD)
    return _TextFormat(name, selection, compression)
