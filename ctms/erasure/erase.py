"""Erasing: contacts are deleted, and in the same transaction it is written down who must hear of it and that it was.

The steps of a transaction, in this order, which keeps it from waiting in a circle with those who write contacts:

1. `hold`, which where the addresses are to be forgotten keeps writers of them waiting;
2. lock the contacts (`ctms.contacts.removal`);
3. `erase`.

An erasure of many contacts may take several transactions with one `Order`: its record grows with each.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ctms.contacts import removal
from ctms.contacts.removal import LockedContact
from ctms.erasure.handlers import handlers
from ctms.erasure.models import ErasedAddress, Erasure, ErasureHandler, ErasureTask
from ctms.outbox import deletions
from ctms.outbox.changes import outbox
from ctms.pool import Connection
from ctms.suppression.check import block_all_writers, block_writers
from ctms.suppression.fingerprints import fingerprints, require_key
from ctms.suppression.suppressions import SOURCE_ERASURE, suppress

BY_DELETE = "delete"
BY_API = "api"
BY_COMMAND = "command"


@dataclass(frozen=True, kw_only=True)
class Order:
    """An erasure that was asked for: by whom (`client:<id>`, `operator:<user>`), and by which way (`origin`).

    With `forget` the addresses are suppressed, too; with `include_fxa` the contacts are erased that carry an address as
    that of their account.
    """

    by: str
    origin: str
    forget: bool = False
    include_fxa: bool = False
    id: UUID = field(default_factory=uuid.uuid4)


# The record and the fingerprints in one statement. Of a record that is there only the numbers grow.
_RECORD = f"""
    WITH record AS (
        INSERT INTO {Erasure.__tablename__} AS e
            (id, requested_at, requested_by, origin, forget, contacts, unknown, also_known_in)
        VALUES (%(id)s, clock_timestamp(), %(by)s, %(origin)s, %(forget)s, %(contacts)s, %(unknown)s, %(also)s)
        ON CONFLICT (id) DO UPDATE SET
            contacts = e.contacts + excluded.contacts, unknown = e.unknown + excluded.unknown,
            also_known_in = e.also_known_in + excluded.also_known_in
        RETURNING id)
    INSERT INTO {ErasedAddress.__tablename__} (fingerprint, erasure_id)
    SELECT f, record.id FROM record, unnest(%(fingerprints)s::bytea[]) AS f
    ON CONFLICT DO NOTHING"""

_ASK_HANDLERS = f"""
    INSERT INTO {ErasureHandler.__tablename__} AS h
        (erasure_id, handler, pending, done, verified, parked, started_at, changed_at)
    SELECT %s, name, %s, 0, 0, 0, clock_timestamp(), clock_timestamp() FROM unnest(%s::text[]) AS name ORDER BY name
    ON CONFLICT (erasure_id, handler) DO UPDATE SET
        pending = h.pending + excluded.pending, changed_at = excluded.changed_at"""

ERASE = "erase"
"""The first step of a task."""

_TASKS = f"""
    INSERT INTO {ErasureTask.__tablename__}
        (erasure_id, handler, identities, step, waiting_since, due_at, attempts, failures)
    SELECT %s, name, identities::jsonb, '{ERASE}', moment, moment, 0, 0
    FROM unnest(%s::text[]) AS name, unnest(%s::text[]) AS identities, clock_timestamp() AS moment"""


_FIND_ERASED = f"SELECT fingerprint FROM {ErasedAddress.__tablename__} WHERE fingerprint = ANY(%s)"


def hold(connection: Connection, order: Order, addresses: Iterable[str] | None) -> None:
    """Where `addresses` (None: any) are to be forgotten, let nobody write them before this transaction ends.

    To be called before the transaction locks a row. Raises `OperatorError` when they are to be forgotten and there is
    no key.
    """
    if not order.forget:
        return
    require_key()
    if addresses is None or order.include_fxa:  # whose addresses the others have is not known yet
        block_all_writers(connection)
    else:
        block_writers(connection, _fingerprints(addresses))


def erase(
    connection: Connection,
    order: Order,
    found: Sequence[LockedContact],
    *,
    unknown: int = 0,
    also_known_in: int = 0,
    addresses: Collection[str] = (),
) -> None:
    """Delete the locked contacts, each of which comes once, and add them to the record of the erasure.

    Backends and deletion handlers hear of it, later. `unknown` counts what was asked for and named nobody, but for
    addresses that were erased before; `also_known_in` other contacts that carry an address as that of their account. Of
    an erasure that forgets, `addresses` that were asked for are suppressed though they may be nobody's.
    """
    email_ids = [one.email_id for one in found]
    if found:
        removal.delete(connection, found)
    prints = _fingerprints(_addresses_of(found))
    write_record(connection, order, contacts=len(found), unknown=unknown, also_known_in=also_known_in, prints=prints)
    if order.forget:
        primary = (one.primary_email for one in found)
        suppress(connection, _fingerprints([*primary, *addresses]), SOURCE_ERASURE)
    names = handlers().names
    if found and names:
        connection.execute(_ASK_HANDLERS, (order.id, len(found), names))
        connection.execute(_TASKS, (order.id, names, [one.identities for one in found]))
    outbox().changed(connection, email_ids)
    deletions.add(connection, order.id, outbox().names, email_ids)
    if found and names:
        handlers().wake(connection)


def write_record(
    connection: Connection,
    order: Order,
    *,
    contacts: int,
    unknown: int = 0,
    also_known_in: int = 0,
    prints: Sequence[bytes] = (),
) -> None:
    """Make the record of the erasure, or add these numbers and fingerprints to it."""
    values = {
        "id": order.id,
        "by": order.by,
        "origin": order.origin,
        "forget": order.forget,
        "contacts": contacts,
        "unknown": unknown,
        "also": also_known_in,
        "fingerprints": list(prints),
    }
    connection.execute(_RECORD, values)


def find_erased(connection: Connection, addresses: Collection[str], found: Iterable[LockedContact]) -> set[str]:
    """Return those of the addresses that were erased before, or that the contacts `found` have; none without a key."""
    owners = {one: address for address in addresses for one in fingerprints().all_of(address)}
    if not owners:
        return set()
    known = {bytes(one) for (one,) in connection.execute(_FIND_ERASED, (list(owners),)).fetchall()}
    return {owners[one] for one in known.union(owners.keys() & _fingerprints(_addresses_of(found)))}


def _addresses_of(found: Iterable[LockedContact]) -> Iterable[str]:
    for one in found:
        yield one.primary_email
        if one.fxa_primary_email:
            yield one.fxa_primary_email


def _fingerprints(addresses: Iterable[str]) -> list[bytes]:
    """Return the fingerprints of the addresses, each once, in an order that all share; none without a key."""
    return sorted({found for address in addresses if (found := fingerprints().of(address)) is not None})
