"""Erase contacts: one transaction deletes them, records the erasure, and queues it for other systems.

A transaction takes these steps in this order, which prevents deadlocks with writers of contacts:

1. `lock_addresses_to_forget`, which blocks writers of addresses that the erasure will suppress;
2. lock the contacts (`ctms.contacts.removal`);
3. `erase`.

An erasure of many contacts may take several transactions with one `ErasureRequest`: its record grows with each.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from uuid import UUID

from ctms.contacts import removal
from ctms.contacts.merged_addresses import MergedAddress
from ctms.contacts.removal import LockedContact
from ctms.database.pool import Connection
from ctms.erasure.handlers import handler_names
from ctms.erasure.models import ErasedAddress, Erasure, ErasureDeletion, ErasureHandler, ErasureTask
from ctms.outbox import deletions
from ctms.outbox.changes import outbox
from ctms.outbox.known import find_known
from ctms.outbox.lanes import BACKEND, HANDLER
from ctms.suppression.check import block_all_writers, block_writers
from ctms.suppression.fingerprints import fingerprints, require_key
from ctms.suppression.suppressions import SOURCE_ERASURE, suppress

ORIGIN_DELETE = "delete"
ORIGIN_API = "api"
ORIGIN_COMMAND = "command"


@dataclass(frozen=True, kw_only=True)
class ErasureRequest:
    """A requested erasure, with its requester (`client:<id>`, `operator:<user>`, `worker`) and its `origin`.

    `forget` also suppresses the addresses. `include_fxa` also erases the contacts that have an address only as their
    account address.
    """

    by: str
    origin: str
    forget: bool = False
    include_fxa: bool = False
    id: UUID = field(default_factory=uuid.uuid4)


# Upserts the record and inserts its fingerprints, and those of addresses that the contacts lost in merges. An existing
# record only has its counts increased, and follows more erasures.
_UPSERT_RECORD = f"""
    WITH record AS (
        INSERT INTO {Erasure.__tablename__} AS e
            (id, requested_at, requested_by, origin, forget, contacts, unknown, also_known_in, follows)
        SELECT %(id)s, clock_timestamp(), %(by)s, %(origin)s, %(forget)s, %(contacts)s, %(unknown)s, %(also)s, (
            SELECT array_agg(earlier.id ORDER BY earlier.id) FROM (
                SELECT DISTINCT erasure_id FROM {ErasedAddress.__tablename__}
                WHERE erasure_id <> %(id)s AND fingerprint = ANY(%(asked)b::bytea[] || ARRAY(
                    SELECT fingerprint FROM {MergedAddress.__tablename__} WHERE email_id = ANY(%(email_ids)s))
                )) AS earlier (id)
            WHERE EXISTS (SELECT FROM {ErasureTask.__tablename__} t WHERE t.erasure_id = earlier.id)
                OR EXISTS (SELECT FROM {ErasureDeletion.__tablename__} d WHERE d.erasure_id = earlier.id))
        ON CONFLICT (id) DO UPDATE SET
            contacts = e.contacts + excluded.contacts, unknown = e.unknown + excluded.unknown,
            also_known_in = e.also_known_in + excluded.also_known_in,
            follows = CASE WHEN excluded.follows IS NULL THEN e.follows
                ELSE ARRAY(SELECT DISTINCT one FROM unnest(e.follows || excluded.follows) AS one ORDER BY one) END
        RETURNING id)
    INSERT INTO {ErasedAddress.__tablename__} (fingerprint, erasure_id)
    SELECT f, record.id FROM record, (
        SELECT unnest(%(fingerprints)b::bytea[])
        UNION SELECT fingerprint FROM {MergedAddress.__tablename__} WHERE email_id = ANY(%(email_ids)s)) AS known (f)
    ON CONFLICT DO NOTHING"""

_UPSERT_HANDLERS = f"""
    INSERT INTO {ErasureHandler.__tablename__} AS h
        (erasure_id, handler, pending, done, verified, parked, started_at, changed_at)
    SELECT %s, name, %s, 0, 0, 0, clock_timestamp(), clock_timestamp() FROM unnest(%s::text[]) AS name ORDER BY name
    ON CONFLICT (erasure_id, handler) DO UPDATE SET
        pending = h.pending + excluded.pending, changed_at = excluded.changed_at"""

ERASE = "erase"
"""The first step of a task."""

_INSERT_TASKS = f"""
    INSERT INTO {ErasureTask.__tablename__}
        (erasure_id, handler, identities, step, waiting_since, due_at, attempts, failures)
    SELECT %s, name, identities::jsonb, '{ERASE}', moment, moment, 0, 0
    FROM unnest(%s::text[]) AS name, unnest(%s::text[]) AS identities, clock_timestamp() AS moment"""


_FIND_ERASED = f"""
    SELECT fingerprint FROM {ErasedAddress.__tablename__} WHERE fingerprint = ANY(%(asked)b)
    UNION ALL
    SELECT fingerprint FROM {MergedAddress.__tablename__}
    WHERE email_id = ANY(%(email_ids)s) AND fingerprint = ANY(%(asked)b)"""


def lock_addresses_to_forget(connection: Connection, request: ErasureRequest, addresses: Iterable[str] | None) -> None:
    """Block writers of `addresses` (None: any) until this transaction ends, if the erasure forgets them.

    Call it before the transaction locks a row. Raises `OperatorError` if the erasure forgets and no key is set.
    """
    if not request.forget:
        return
    require_key()
    if addresses is None or request.include_fxa:  # the other contacts and their addresses are not known yet
        block_all_writers(connection)
    else:
        block_writers(connection, _fingerprints(addresses))


def erase(
    connection: Connection,
    request: ErasureRequest,
    found: Sequence[LockedContact],
    *,
    unknown: int = 0,
    also_known_in: int = 0,
    addresses: Collection[str] = (),
    named: Collection[str] = (),
) -> None:
    """Delete the locked contacts, each of which is given once, and add them to the record of the erasure.

    Backends and deletion handlers are notified later, also those that only other processes have. `unknown` is the
    number of requested addresses or identities that match no contact, except addresses erased before. `also_known_in`
    is the number of other contacts that have an address as their account address. An erasure that forgets suppresses
    all requested `addresses`, even without a contact. It follows unfinished erasures of these, of the contacts'
    addresses, of those that they lost in merges, and of others that the request has `named`.
    """
    email_ids = [one.email_id for one in found]
    prints = _fingerprints(addresses_of(found))
    asked = {*prints, *chain.from_iterable(map(fingerprints().all_of, {*addresses, *named}))}
    # While the contacts exist: the record also gets the addresses that they lost in merges.
    write_record(
        connection, request, email_ids, unknown=unknown, also_known_in=also_known_in, prints=prints, asked=asked
    )
    if found:
        removal.delete(connection, found)
    if request.forget:
        primary = (one.addresses["primary_email"] for one in found)
        suppress(connection, _fingerprints([*primary, *addresses]), SOURCE_ERASURE)
    if not found:
        return
    known = find_known(connection)
    if names := sorted({*handler_names(), *known[HANDLER]}):
        connection.execute(_UPSERT_HANDLERS, (request.id, len(found), names))
        connection.execute(_INSERT_TASKS, (request.id, names, [one.identities for one in found]))
    deletions.add(connection, request.id, sorted({*outbox().names, *known[BACKEND]}), email_ids)


def write_record(
    connection: Connection,
    request: ErasureRequest,
    email_ids: Sequence[UUID],
    *,
    unknown: int = 0,
    also_known_in: int = 0,
    prints: Sequence[bytes] = (),
    asked: Collection[bytes] = (),
) -> None:
    """Create the record of the erasure of these contacts, or add its counts and fingerprints to the record.

    `prints` are the fingerprints of the contacts' addresses, `asked` those whose unfinished erasures it follows.
    """
    values = {
        "id": request.id,
        "by": request.by,
        "origin": request.origin,
        "forget": request.forget,
        "contacts": len(email_ids),
        "email_ids": list(email_ids),
        "unknown": unknown,
        "also": also_known_in,
        "fingerprints": list(prints),
        "asked": list(asked),
    }
    connection.execute(_UPSERT_RECORD, values)


def find_erased(
    connection: Connection, addresses: Collection[str], erased_now: Iterable[str], email_ids: Collection[UUID]
) -> set[str]:
    """Return the addresses that were erased before, or are erased now; none without a key.

    The latter are the addresses `erased_now` of the contacts `email_ids`, and those that these have lost in merges.
    """
    owners: dict[bytes, set[str]] = defaultdict(set)
    all_of = fingerprints().all_of
    for address in addresses:
        for one in all_of(address):
            owners[one].add(address)
    if not owners:
        return set()
    values = {"asked": list(owners), "email_ids": list(email_ids)}
    known = {bytes(one) for (one,) in connection.execute(_FIND_ERASED, values).fetchall()}
    return set().union(*(owners[one] for one in known.union(owners.keys() & _fingerprints(erased_now))))


def addresses_of(found: Iterable[LockedContact]) -> Iterable[str]:
    """Return the own and account addresses of the contacts."""
    return (address for one in found for address in one.addresses.values())


def _fingerprints(addresses: Iterable[str]) -> list[bytes]:
    """Return the distinct fingerprints of the addresses, sorted; none without a key."""
    of = fingerprints().of
    return sorted({found for address in addresses if (found := of(address)) is not None})
