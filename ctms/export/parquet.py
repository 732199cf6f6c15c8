"""Parquet: a column for each part, a sub-document as a struct, a list as a list of structs, each with typed members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import marshmallow as ma

from ctms.contacts import fields
from ctms.contacts.registry import PARTS
from ctms.contacts.sparse import Selection
from ctms.errors import OperatorError
from ctms.export.files import HashedFile
from ctms.export.rendering import CopyStatement, join_documents
from ctms.search.conditions import Condition

try:
    import pyarrow as pa
    from pyarrow import json as arrow_json
    from pyarrow import parquet
except ImportError as missing:
    raise OperatorError("Parquet requires pyarrow: install ctms[parquet]") from missing

# A block becomes a row group: small ones compress and read badly, large ones take memory.
_BLOCK = 16 * 1024 * 1024


class ParquetFormat:
    """The format of Parquet files, which are compressed column by column."""

    suffix = ".parquet"
    block = _BLOCK

    def __init__(self, selection: Selection, *, compressed: bool) -> None:
        self._selection = selection
        self._compression = "zstd" if compressed else "none"
        self.schema = pa.schema([_column(name, members) for name, members in selection.items()])

    def statement(self, condition: Condition | None, values: Sequence[Any]) -> CopyStatement:
        """Return the statement whose rows the format takes."""
        return CopyStatement(self._selection, condition, values, for_arrow=True)

    def encode(self, rows: Sequence[bytes]) -> pa.Table:
        """Return the rows as a table."""
        text = join_documents(rows)
        return arrow_json.read_json(
            pa.BufferReader(text),
            # One thread, because several connections encode at the same time; one block, because a contact must not
            # be longer than a block.
            arrow_json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            arrow_json.ParseOptions(explicit_schema=self.schema, unexpected_field_behavior="error"),
        )

    def open(self, file: HashedFile) -> _ParquetWriter:
        """Begin a file."""
        return _ParquetWriter(file, self.schema, self._compression)


class _ParquetWriter:
    def __init__(self, file: HashedFile, schema: pa.Schema, compression: str) -> None:
        self._writer = parquet.ParquetWriter(file, schema, compression=compression)

    def write(self, block: pa.Table) -> None:
        self._writer.write_table(block, row_group_size=block.num_rows)

    def close(self) -> None:
        self._writer.close()


def _column(name: str, members: Sequence[str]) -> pa.Field:
    part = PARTS[name]
    inner = pa.struct([pa.field(member, _type(part.fields[member])) for member in members])
    return pa.field(name, pa.list_(inner) if part.many else inner)


def _type(field: ma.fields.Field[Any]) -> pa.DataType:
    match field:
        case fields.Timestamp():
            return pa.timestamp("us", tz="UTC")
        case fields.Date():
            return pa.date32()
        case fields.Boolean():
            return pa.bool_()
    return pa.string()
