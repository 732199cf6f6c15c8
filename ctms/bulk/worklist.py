"""The work list of bulk work: the entries of lists, in a temporary table of the connection that does the work.

The database compares them with contacts through its indexes, removes duplicates and returns them in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from ctms.addresses import comparison_key, spellings
from ctms.bulk.entries import Entry, resolve_entries
from ctms.contacts.registry import ADDRESSES, EMAIL
from ctms.database.pool import Connection

CHUNK = 20_000
"""The number of entries that one transaction loads."""

_GIVEN = "pg_temp.bulk_given"
_ONCE = "pg_temp.bulk_once"
_WORK = "pg_temp.bulk_work"

_PREPARE = (
    f"DROP TABLE IF EXISTS {_GIVEN}, {_ONCE}, {_WORK}",
    """CREATE TEMPORARY TABLE bulk_given (
        number bigint GENERATED ALWAYS AS IDENTITY, line bigint, address text, at timestamptz, reason text,
        problem text, key text, spellings text[])""",
)

# `key` is the comparison key, sorted by bytes, which is fast and sufficient to find duplicates. `spellings` is set for
# an address with several spellings.
_DEDUPE = f"""
    CREATE TEMPORARY TABLE bulk_once AS
    SELECT DISTINCT ON (key COLLATE "C", CASE WHEN key IS NULL THEN number END) *
    FROM {_GIVEN}
    ORDER BY key COLLATE "C", CASE WHEN key IS NULL THEN number END, at DESC NULLS LAST, number %s"""

# In the physical order of the contacts, so that batches touch few pages, which is twice as fast. The entries of one
# contact are ordered by precedence. Entries without a contact, including bad lines, keep the order of the lists.
_SETTLE = f"""
    CREATE TEMPORARY TABLE bulk_work AS
    SELECT row_number() OVER (
            ORDER BY p.place, CASE WHEN p.place IS NOT NULL THEN o.at END DESC NULLS LAST,
                CASE WHEN p.place IS NOT NULL THEN o.number END %s, o.number) AS number,
        o.line, o.address, o.at, o.reason, o.problem, p.place IS NOT NULL AS known
    FROM {_ONCE} o LEFT JOIN (SELECT number, min(place) AS place FROM (%s) f GROUP BY number) p USING (number)"""

# `lower` follows the database's locale, as the indexes do.
_SPELT = f"""(
    SELECT number, lower(address) AS lowered FROM {_ONCE} WHERE spellings IS NULL
    UNION ALL SELECT number, lower(spelling) FROM {_ONCE}, unnest(spellings) AS spelling) o"""
_OWN, *_OTHERS = (
    f"""
    SELECT o.number, e.ctid AS place
    FROM {_SPELT} JOIN {one.part.table} {one.part.alias} ON lower({one.sql}) = o.lowered
    {"" if one.part is EMAIL else "JOIN emails e USING (email_id)"}"""
    for one in ADDRESSES.values()
)

_FINISH = (
    f"DROP TABLE {_GIVEN}, {_ONCE}",
    "CREATE UNIQUE INDEX bulk_work_number ON bulk_work (number)",
    "ANALYZE bulk_work",
)

_COPY = f"COPY {_GIVEN} (line, address, at, reason, problem, key, spellings) FROM STDIN"
_NEXT = (
    f"SELECT number, line, address, at, reason, problem, known FROM {_WORK} WHERE number > %s ORDER BY number LIMIT %s"
)


_COUNT = f"""
    SELECT count(*), count(problem), count(*) FILTER (WHERE known), count(address) - count(at) FROM {_WORK}"""


class WorkItem(NamedTuple):
    """An entry of the work list: an address, with the time and reason of an opt-out, or the problem with the line.

    `known` is False if no contact had the address when the list was loaded.
    """

    number: int
    line: int | None
    address: str | None
    at: datetime | None
    reason: str | None
    problem: str | None
    known: bool = True


def _compared(address: str | None) -> tuple[str | None, list[str] | None]:
    """Return the comparison key of an address, and its spellings unless it is the only one."""
    if address is None:
        return None, None
    spelt = spellings(address)
    return comparison_key(address), None if tuple(spelt) == (address,) else list(spelt)


class WorkList:
    """The work list of a connection, which exists until the connection is closed."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.read = 0
        """The number of entries read."""
        self.total = 0
        """The number of items left after removing duplicates."""
        self.problems = 0
        """The number of items that are lines with a problem."""
        self.known = 0
        """The number of items whose address a contact has."""
        self.undated = 0
        """The number of items with an address but no date."""
        for statement in _PREPARE:
            connection.execute(statement)

    @property
    def duplicates(self) -> int:
        """The number of entries that repeat an address."""
        return self.read - self.total

    def load(self, entries: Iterable[Entry], on_progress: Callable[[int], None]) -> None:
        """Resolve and load the entries; call `on_progress(read)` after each chunk. Raises `ListError`."""
        entries = iter(entries)
        while chunk := list(islice(entries, CHUNK)):
            with self._without_statement_timeout():
                self._copy(resolve_entries(self.connection, chunk))
            self.read += len(chunk)
            on_progress(self.read)

    def _copy(self, entries: Iterable[Entry]) -> None:
        with self.connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for line, address, at, reason, problem, _ in entries:
                copy.write_row((line, address, at, reason, problem, *_compared(address)))

    def finalize(self, *, of_accounts: bool = False, last_wins: bool = False) -> None:
        """Remove duplicates and order the items; call it once, after loading.

        Of the entries with one address, the one with the latest time stays, else the first, or with `last_wins` the
        last. An address is known when a contact has it, or with `of_accounts` also when its account has it. Entries of
        one contact are ordered by precedence.
        """
        connection = self.connection
        order = "DESC" if last_wins else "ASC"
        with self._without_statement_timeout():
            connection.execute("SET LOCAL work_mem = '64MB'")
            connection.execute(_DEDUPE % order)
            connection.execute("ANALYZE bulk_once")
            connection.execute(_SETTLE % (order, " UNION ALL ".join((_OWN, *_OTHERS)) if of_accounts else _OWN))
            for statement in _FINISH:
                connection.execute(statement)
            counted = connection.execute(_COUNT).fetchone()
        self.total, self.problems, self.known, self.undated = counted or (0, 0, 0, 0)

    def batches(self, size: int) -> Iterator[list[WorkItem]]:
        """Yield the items in batches of `size`."""
        after = 0
        while found := self.connection.execute(_NEXT, (after, size)).fetchall():
            yield list(map(WorkItem._make, found))
            after = found[-1][0]

    @contextmanager
    def _without_statement_timeout(self) -> Iterator[None]:
        """Run a transaction without a statement timeout; it must not lock rows that others use."""
        with self.connection.transaction():
            self.connection.execute("SET LOCAL statement_timeout = 0")
            yield
