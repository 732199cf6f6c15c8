"""Pushing contacts to a backend again: scanning them in batches, each in a separate transaction.

A scan may be interrupted and repeated: contacts are added to the outbox once. Contacts that are created or edited
during the scan are added by their writers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from ctms.addresses import comparison_key, expand_spellings
from ctms.database.pool import Connection
from ctms.outbox.changes import CHANGED, RESYNC, outbox
from ctms.search.conditions import Condition
from ctms.sync import mirrored, synchronised

BATCH = 2_000
"""Number of contacts that one transaction scans; writers of these contacts wait for it."""

# A batch is the scanned contacts, not the matching ones: so each statement takes about as long, whatever matches.
_PUT = f"""
    WITH looked AS MATERIALIZED (
        SELECT * FROM emails e WHERE {{range}} ORDER BY {{order}} LIMIT %(limit)s),
    put AS ({CHANGED.format(contacts="(SELECT e.email_id FROM looked e WHERE {which})")} RETURNING 1)
    SELECT e.email_id, e.update_timestamp, (SELECT count(*) FROM put)
    FROM looked e ORDER BY {{last}} LIMIT 1"""

_BY_ID = ("e.email_id > %(email_id)s", "e.email_id", "e.email_id DESC")
_BY_TIME = (
    "e.update_timestamp >= %(since)s AND (e.update_timestamp, e.email_id) > (%(update_timestamp)s, %(email_id)s)",
    "e.update_timestamp, e.email_id",
    "e.update_timestamp DESC, e.email_id DESC",
)
_FIRST_BY_ID = ("true", *_BY_ID[1:])
_FIRST_BY_TIME = ("e.update_timestamp >= %(since)s", *_BY_TIME[1:])

_ON_LIST = "EXISTS (SELECT FROM {table} l WHERE l.email_id = e.email_id AND l.name = %({kind})s)"

_OF_ADDRESSES = """
    SELECT g.position, e.email_id FROM unnest(%s::int[], %s::text[]) AS g (position, address)
    JOIN emails e ON lower(e.primary_email) = lower(g.address)"""


@dataclass(frozen=True)
class Selection:
    """The contacts to push: all, or those changed `since`, with a newsletter and a waitlist, and that match `where`."""

    since: datetime | None = None
    newsletter: str | None = None
    waitlist: str | None = None
    where: Condition | None = None


def resync(connection: Connection, backend: str, selection: Selection) -> Iterator[int]:
    """Add the contacts of a selection to the outbox for the backend; yield how many were added, batch by batch.

    Once all contacts are pending, the backend is recorded as synchronised. If all are selected and the backend has
    begun to select, unwanted contacts are pushed as gone.
    """
    if selection == Selection() and outbox().backends[backend].selects:
        for _ in mirrored.complete(connection, backend):
            yield 0
    lists = (("newsletters", "newsletter", selection.newsletter), ("waitlists", "waitlist", selection.waitlist))
    which = [_ON_LIST.format(table=table, kind=kind) for table, kind, name in lists if name is not None]
    conditions: dict[str, Any] = {}
    if selection.where is not None:
        # As in a search, planned for a single contact: the entries of all contacts are not read for each batch.
        matching, conditions = selection.where.bind_by_name("where_", datetime.now(UTC))
        which.append(f"EXISTS (SELECT FROM (SELECT WHERE {matching} OFFSET 0) matching)")
    values: dict[str, Any] = {
        **conditions,
        **{kind: name for _, kind, name in lists},
        "since": selection.since,
        "priority": RESYNC,
        "backends": [backend],
        "limit": BATCH,
    }
    walk = (_FIRST_BY_ID, _BY_ID) if selection.since is None else (_FIRST_BY_TIME, _BY_TIME)
    first, further = (
        _PUT.format(range=where, order=order, last=last, which=" AND ".join(which) or "true")
        for where, order, last in walk
    )
    sql = first
    while True:
        with connection.transaction():
            row = connection.execute(sql, values).fetchone()
            if row is None:
                if selection == Selection():
                    synchronised.record_resync(connection, backend)
                return
            values["email_id"], values["update_timestamp"], number = row
        yield number
        sql = further


def resync_addresses(connection: Connection, backend: str, addresses: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Add the contacts with these addresses to the outbox for the backend.

    Yields, batch by batch, how many were added and how many addresses have no contact.
    """
    addresses = iter(addresses)
    while batch := {comparison_key(address): address for address in islice(addresses, BATCH)}:
        with connection.transaction():
            rows = connection.execute(_OF_ADDRESSES, expand_spellings(batch.values())).fetchall()
            found = {email_id for _, email_id in rows}
            outbox().changed(connection, found, priority=RESYNC, backends=[backend])
        yield len(found), len(batch) - len({position for position, _ in rows})
