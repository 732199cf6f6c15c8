"""Reader of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, BinaryIO

from ctms.errors import ListError, OperatorError
from ctms.imports.mapping import Row, RowError

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as missing:
    raise OperatorError("Parquet requires pyarrow: install ctms[parquet]") from missing

_BATCH = 1000


class ParquetReader:
    """A reader of a Parquet file; its values are as JSON has them. Raises `ListError`."""

    def __init__(self, stream: BinaryIO) -> None:
        try:
            self._file = parquet.ParquetFile(stream, pre_buffer=False)
        except (pa.ArrowException, OSError):
            raise ListError("it is not a Parquet file, or a damaged one") from None
        self.columns: Sequence[str] = self._file.schema_arrow.names

    def __iter__(self) -> Iterator[Row | RowError]:
        """Yield the rows."""
        try:
            for batch in self._file.iter_batches(_BATCH, use_threads=False):
                for row in batch.to_pylist():
                    yield _plain(row)
        except (pa.ArrowException, OSError):
            raise ListError("the Parquet file is damaged") from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value
