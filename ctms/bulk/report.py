"""The report of bulk work: a file for the operator with a line for each address, written during the work.

It contains addresses, so only its owner may read it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ctms.bulk.batches import ItemOutcome
from ctms.errors import ConflictError, OperatorError

CSV = ".csv"
JSON_LINES = ".jsonl"


class BulkReport:
    """A report with these columns, in CSV or JSON Lines by the suffix of its name.

    Raises `ConflictError` when the file exists, unless it is opened to append, and `OperatorError` when it cannot be
    written.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, append: bool) -> None:
        self._columns = columns
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (0 if append else os.O_EXCL)
        try:
            self._file = os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8", newline="")
            empty = self._without_torn_line(path) == 0
        except FileExistsError:
            raise ConflictError(f"{path} exists: name another file, or pass --append to add to it") from None
        except OSError as error:
            raise OperatorError(f"{path} cannot be written: {error.strerror}") from error
        self._rows = csv.writer(self._file, lineterminator="\n") if path.suffix.lower() == CSV else None
        self._new = empty
        self._written = False

    def write(self, outcomes: Iterable[Any]) -> None:
        """Write the outcomes of a batch, which have the columns as attributes, and flush them to the file."""
        if self._rows and self._new and not self._written:
            self._rows.writerow(self._columns)
        self._written = True
        for outcome in outcomes:
            values = [_value(outcome, column) for column in self._columns]
            if self._rows:
                self._rows.writerow([_in_csv(value) for value in values])
            else:
                self._file.write(json.dumps(dict(zip(self._columns, values, strict=True)), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file, and delete it if it is new and nothing was written."""
        self._file.close()
        if self._new and not self._written:
            self._path.unlink()

    def _without_torn_line(self, path: Path) -> int:
        """Truncate an incomplete last line, and return the length of the file."""
        size = os.fstat(self._file.fileno()).st_size
        with path.open("rb") as file:
            while size:
                start = max(0, size - 65536)
                file.seek(start)
                newline = file.read(size - start).rfind(b"\n")
                if newline >= 0:
                    size = start + newline + 1
                    break
                size = start
        self._file.truncate(size)
        return size


def _value(outcome: Any, column: str) -> Any:
    if isinstance(outcome, ItemOutcome) and column in {"address", "line"}:
        return getattr(outcome.item, column)
    value = getattr(outcome, column)
    return str(value) if column == "email_id" and value else value


def _in_csv(value: Any) -> Any:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
