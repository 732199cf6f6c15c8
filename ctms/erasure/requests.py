"""Erasing what one request names: in one transaction, and only once, however often it is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from ctms.addresses import comparison_key
from ctms.bulk.entries import make_entry, resolve_entries
from ctms.contacts import accounts, removal
from ctms.contacts.registry import ADDRESSES
from ctms.contacts.tombstones import find_merged_into
from ctms.database.pool import Connection
from ctms.erasure.erase import ErasureRequest, addresses_of, erase, find_erased, lock_addresses_to_forget
from ctms.erasure.models import Erasure
from ctms.errors import Invalid
from ctms.suppression.fingerprints import fingerprints

OTHER_REQUEST = "Idempotency-Key was used for another request"

Identities = Mapping[str, Any]


class InvalidAddressesError(Exception):
    """A request contains text that is neither an address nor that of a contact.

    `problems` has for each the position in the request, the identity's name, and the reason.
    """

    def __init__(self, problems: Sequence[tuple[int, str, str]]) -> None:
        super().__init__(len(problems))
        self.problems = problems


class Result(NamedTuple):
    """The result of a request: the record's id, the number of contacts, and the number of items without a contact.

    An address that was erased before is not among the latter. `also_known_in` counts other contacts that have one of
    the addresses as their account address.
    """

    id: UUID
    contacts: int
    unknown: int
    also_known_in: int | None


_BEGIN = f"""
    INSERT INTO {Erasure.__tablename__}
        (id, requested_at, requested_by, origin, forget, contacts, unknown, also_known_in, request_key, request_digest)
    VALUES (%s, clock_timestamp(), %s, %s, %s, 0, 0, 0, %s, %s)
    ON CONFLICT (request_key) DO NOTHING RETURNING id"""
_EARLIER = f"""
    SELECT id, contacts, unknown, also_known_in, request_digest FROM {Erasure.__tablename__} WHERE request_key = %s"""


def erase_requested(
    connection: Connection, request: ErasureRequest, wanted: Sequence[Identities], key: str | None
) -> Result:
    """Erase the contacts that match all identities of one of `wanted`, in the caller's transaction.

    With the `key` (`Idempotency-Key`) of an earlier request of the same caller it returns that request's result, and
    waits for one in progress. Raises `Invalid` if the earlier request was different, and `InvalidAddressesError`.
    """
    if key:
        earlier = _begin(connection, request, wanted, key)
        if earlier is not None:
            return earlier
    wanted = _settled(connection, wanted)
    addresses = {one["primary_email"] for one in wanted if "primary_email" in one}
    by_address = all(map(_is_address, wanted))
    asked = list(_once(wanted))  # before others have to wait: this computes the spellings
    lock_addresses_to_forget(connection, request, addresses if by_address else None)
    if request.include_fxa:  # all at once, in one order: later locks then find them locked
        others = [*accounts.find(connection, list(addresses), ()).values(), *_find_merged(connection, asked).values()]
        removal.lock_matching(connection, [*asked, *({"email_id": one} for ids in others for one in ids)])
    matching = removal.lock_matching(connection, asked)
    contacts = {one.email_id: one for match in matching for one in match}
    own = _distinct([*addresses, *(one.addresses["primary_email"] for one in contacts.values())])
    also, named = 0, set()
    if request.include_fxa:
        for position, kept in removal.lock_found(connection, lambda: _find_merged(connection, asked)).items():
            matching[position] += kept
            contacts |= {one.email_id: one for one in kept}
        for position, carriers in accounts.lock(connection, own, contacts).items():
            named.add(comparison_key(own[position]))
            contacts |= {one.email_id: one for one in carriers}
    else:
        others = [*accounts.find(connection, own, contacts).values(), *_find_merged(connection, asked).values()]
        also = len(set().union(*others) - contacts.keys())
    missing = [one for one, match in zip(asked, matching, strict=True) if not match]
    missing = [one for one in missing if not (_is_address(one) and comparison_key(one["primary_email"]) in named)]
    before = find_erased(
        connection,
        {one[name] for one in missing for name in one.keys() & ADDRESSES.keys()},
        addresses_of(contacts.values()),
        contacts,
    )
    unknown = sum(not (one.keys() <= ADDRESSES.keys() and before.issuperset(one.values())) for one in missing)
    erase(
        connection,
        request,
        list(contacts.values()),
        unknown=unknown,
        also_known_in=also,
        addresses=addresses,
        named={one[name] for one in wanted for name in one.keys() & ADDRESSES.keys()},
    )
    return Result(request.id, len(contacts), unknown, also)


def _find_merged(connection: Connection, asked: Sequence[Identities]) -> dict[int, set[UUID]]:
    """Return the contacts that those requested only by their id were merged into, by the position in the request."""
    positions = {UUID(str(one["email_id"])): at for at, one in enumerate(asked) if one.keys() == {"email_id"}}
    found = find_merged_into(connection, positions) if positions else {}
    return {positions[old]: {kept} for old, kept in found.items()}


def _is_address(one: Identities) -> bool:
    """Return whether only an address is requested."""
    return one.keys() == {"primary_email"}


def _settled(connection: Connection, wanted: Sequence[Identities]) -> Sequence[Identities]:
    """Return what is wanted with its addresses resolved as in a list.

    Only once it is known that the request is no repetition: legacy addresses do not match a contact any more after it
    was erased.
    """
    places = [(position, name) for position, one in enumerate(wanted) for name in sorted(one.keys() & ADDRESSES.keys())]
    entries = resolve_entries(connection, (make_entry(None, wanted[position][name]) for position, name in places))
    problems = [(*place, entry.problem) for place, entry in zip(places, entries, strict=True) if entry.problem]
    if problems:
        raise InvalidAddressesError(problems)
    found = [dict(one) for one in wanted]
    for (position, name), entry in zip(places, entries, strict=True):
        found[position][name] = entry.address
    return found


def _begin(connection: Connection, request: ErasureRequest, wanted: Sequence[Identities], key: str) -> Result | None:
    """Create the record of the erasure, or return the result of an earlier request with the same key."""
    of_text = fingerprints().of_text
    text = f"{request.by}\n{key}"
    # Without our key: the clients' random keys reveal nothing, but the requested values would.
    request_key = of_text("Idempotency-Key", text) or hashlib.sha256(text.encode()).digest()
    more = ["include_fxa"] if request.include_fxa else []
    digest = of_text("request", json.dumps([request.forget, *map(_plain, wanted), *more]))
    values = (request.id, request.by, request.origin, request.forget, request_key, digest)
    if connection.execute(_BEGIN, values).fetchone():
        return None
    row = connection.execute(_EARLIER, (request_key,)).fetchone()
    assert row is not None  # noqa: S101  it stood in the way
    *result, known = row
    if known is not None and digest is not None and bytes(known) != digest:
        raise Invalid(OTHER_REQUEST)
    return Result(*result)


def _once(wanted: Iterable[Identities]) -> Iterable[Identities]:
    """Yield each wanted item once: spellings of an address are equal."""
    return {
        tuple((name, comparison_key(text) if name in ADDRESSES else text) for name, text in _plain(one)): one
        for one in wanted
    }.values()


def _distinct(addresses: Iterable[str]) -> list[str]:
    return list({comparison_key(address): address for address in addresses}.values())


def _plain(identities: Identities) -> list[tuple[str, str]]:
    return sorted((name, str(value)) for name, value in identities.items())
