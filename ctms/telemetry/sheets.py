"""Sheets: files that hold answered requests until they are told of, and outlive the process that writes them.

A sheet is memory (`mmap`): numbers that say how much of it is written, then records of one size, then what like answers
share, as lines of JSON; a record names its answer by the number of the line. What is written counts only once the
number in front says so, and a number is never seen half changed, so a process may be killed at any moment.
"""

from __future__ import annotations

import json
import logging
import os
import struct
from collections.abc import Iterator
from mmap import mmap
from pathlib import Path

from ctms.telemetry.requests import REQUEST_ID_LENGTH, Answer, AuthFailure, Finished, TokenFailure

logger = logging.getLogger(__name__)

_NUMBER = struct.Struct("=Q")
_RECORD = struct.Struct(f"=ddddI{REQUEST_ID_LENGTH + 1}p")
"""When it was answered, how long it took, waited to read and to write (-1: did not), which answer, the request's id."""
_NEVER = -1.0

_RECORDS_END, _ANSWERS_END, _TIMES_CLEARED = (number * _NUMBER.size for number in range(3))
_RECORDS = 3 * _NUMBER.size
RECORDS = 2000
_ANSWERS = _RECORDS + RECORDS * _RECORD.size
_SIZE = _ANSWERS + (1 << 18)


class Sheet:
    """One sheet. Not for several threads at a time."""

    def __init__(self, file: Path) -> None:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _SIZE)
            self._map = mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        try:
            self._answers = list(self._read_answers())
            self.read()
        except (ValueError, TypeError, LookupError, struct.error):
            logger.warning("a file of requests cannot be read, and is begun anew")
            self._map[:_RECORDS] = bytes(_RECORDS)
            self._answers = []
        self._numbers = {answer: number for number, answer in enumerate(self._answers)}
        self._end = max(self._written(_RECORDS_END), _RECORDS)

    def write(self, finished: Finished) -> bool:
        """Write a request down; False when there is no room."""
        answer, seconds, request_id, at, read, write = finished
        number = self._numbers.get(answer)
        if number is None and (number := self._learn(answer)) is None:
            return False
        end = self._end + _RECORD.size
        if end > _ANSWERS:
            return False
        _RECORD.pack_into(
            self._map,
            self._end,
            at,
            seconds,
            _NEVER if read is None else read,
            _NEVER if write is None else write,
            number,
            request_id.encode(),
        )
        _NUMBER.pack_into(self._map, _RECORDS_END, end)
        self._end = end
        return True

    def read(self) -> list[Finished]:
        """Return what is written, in that order."""
        written = self._map[_RECORDS : max(self._written(_RECORDS_END), _RECORDS)]
        return [
            Finished(
                self._answers[number],
                seconds,
                request_id.decode(),
                at,
                None if read == _NEVER else read,
                None if write == _NEVER else write,
            )
            for at, seconds, read, write, number, request_id in _RECORD.iter_unpack(written)
        ]

    def clear(self) -> None:
        """Forget the requests; the answers, too, when their room is half used."""
        _NUMBER.pack_into(self._map, _RECORDS_END, 0)
        _NUMBER.pack_into(self._map, _TIMES_CLEARED, self._written(_TIMES_CLEARED) + 1)
        self._end = _RECORDS
        if self._written(_ANSWERS_END) > (_ANSWERS + _SIZE) // 2:
            _NUMBER.pack_into(self._map, _ANSWERS_END, 0)
            self._answers.clear()
            self._numbers.clear()

    @staticmethod
    def waits_since(file: Path) -> int | None:
        """Return what will differ once that which waits in another process's sheet is told; None when nothing waits."""
        try:
            with file.open("rb") as sheet:
                head = sheet.read(_RECORDS)
        except FileNotFoundError:  # a new run has just begun
            return None
        if len(head) < _RECORDS or _NUMBER.unpack_from(head, _RECORDS_END)[0] <= _RECORDS:
            return None
        return int(_NUMBER.unpack_from(head, _TIMES_CLEARED)[0])

    def _written(self, of: int) -> int:
        (end,) = _NUMBER.unpack_from(self._map, of)
        return int(end)

    def _learn(self, answer: Answer) -> int | None:
        line = json.dumps(answer).encode() + b"\n"
        start = max(self._written(_ANSWERS_END), _ANSWERS)
        end = start + len(line)
        if end > _SIZE:
            return None
        self._map[start:end] = line
        _NUMBER.pack_into(self._map, _ANSWERS_END, end)
        self._answers.append(answer)
        self._numbers[answer] = number = len(self._answers) - 1
        return number

    def _read_answers(self) -> Iterator[Answer]:
        for line in self._map[_ANSWERS : max(self._written(_ANSWERS_END), _ANSWERS)].splitlines():
            *known, auth_fail, token_fail = json.loads(line)
            causes = auth_fail and AuthFailure(auth_fail), token_fail and TokenFailure(token_fail)
            yield Answer._make((*known, *causes))
