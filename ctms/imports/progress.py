"""The rows of an import that an earlier run has stored, as its report says."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ctms.batches.items import STORED
from ctms.bulk.report import CSV
from ctms.errors import ListError
from ctms.imports.mapping import Row, RowError


class StoredRows:
    """The numbers of stored rows, a byte for each row of the file. Raises `ListError` if it is no report."""

    def __init__(self, report: Path) -> None:
        self._stored = bytearray()
        self.skipped = 0
        """Number of rows skipped so far."""
        try:
            with report.open(encoding="utf-8", newline="") as file:
                lines: Iterable[Mapping[str, Any]]
                lines = csv.DictReader(file) if report.suffix.lower() == CSV else map(json.loads, file)
                for line in lines:
                    if line["outcome"] in STORED:
                        self._add(int(line["row"]))
        except (ValueError, KeyError, TypeError):
            raise ListError(f"{report} is not the report of an import") from None

    def _add(self, number: int) -> None:
        if number >= len(self._stored):
            self._stored.extend(bytes(number + 1 - len(self._stored)))
        self._stored[number] = True

    def skip(self, found: Iterable[tuple[int, Row | RowError]]) -> Iterator[tuple[int, Row | RowError]]:
        """Yield the rows that are not stored."""
        for number, row in found:
            if number < len(self._stored) and self._stored[number]:
                self.skipped += 1
            else:
                yield number, row
