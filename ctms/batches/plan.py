"""What an item of a batch does, decided from the stored contacts: its result, and the change to write.

The decisions are those of `commands.create` and `commands.update`, from what `batch_matching` found, without further
queries. A change that would leave all stored values as they are is none: the contact is `unchanged`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import marshmallow as ma

from ctms import addresses
from ctms.batches.consent import ConsentRule
from ctms.batches.items import (
    CONFLICT,
    CREATE,
    CREATED,
    NOT_FOUND,
    SUPPRESSED,
    UNCHANGED,
    UPDATE,
    UPDATED,
    BatchItem,
    BatchResult,
    Claim,
    Values,
    complete,
    identities,
    legacy_message,
    refuse,
    taken,
    waitlist_defaults,
)
from ctms.contacts.documents import etag, is_equal, is_same_contact, needs_strong_tag, with_status
from ctms.contacts.fields import LegacyAddress, Message
from ctms.contacts.newsletter_rules import check_subscriptions
from ctms.contacts.problems import problem
from ctms.contacts.registry import ADDRESSES, EMAIL, IDENTITIES, LISTS, SUB_DOCUMENTS
from ctms.contacts.schemas import DELETE, UNSUBSCRIBE
from ctms.contacts.tombstones import UNKNOWN_CONTACT
from ctms.suppression.check import SUPPRESSED as IS_SUPPRESSED

_AMBIGUOUS = Message("Several contacts have this value", "ambiguous")
_UNIQUE = {name for name, one in IDENTITIES.items() if one.unique_constraints}


@dataclass(frozen=True)
class StoredContacts:
    """What is stored of that which the items of a batch concern.

    `holders` are the contacts with an identity, `documents` those of the locked contacts, and `merged` the contacts
    that requested ids were merged into. `suppressed` has the comparison keys of suppressed addresses in the batch.
    """

    holders: Mapping[Claim, Set[UUID]]
    documents: Mapping[UUID, str]
    merged: Mapping[UUID, UUID]
    suppressed: Set[str]


@dataclass
class Change:
    """The rows to write of a contact: the given columns of each part.

    A sub-document may be `DELETE`, a list `UNSUBSCRIBE`.
    """

    email_id: UUID
    is_new: bool
    email: dict[str, Any]
    groups: dict[str, Values | str] = field(default_factory=dict)
    lists: dict[str, Sequence[Values] | str] = field(default_factory=dict)


Decision = tuple[BatchResult, Change | None]


def decide(item: BatchItem, found: StoredContacts) -> Decision:
    """Return the result of an item and the change that it makes, None if it writes nothing."""
    try:
        if item.mode == CREATE:
            return _create(item, found)
        matched = found.holders.get(item.claim, frozenset()) if item.claim else frozenset()
        if len(matched) > 1:
            assert item.match is not None  # noqa: S101  something matched
            return _conflict([problem(["match", item.match[0]], _AMBIGUOUS)], matched)
        for email_id in matched:
            if email_id in found.documents:
                return _update(item, found, email_id)
        return _missing(item, found)
    except ma.ValidationError as error:
        return refuse(error.messages), None


def _create(item: BatchItem, found: StoredContacts) -> Decision:
    """Create a contact, or find the same one stored."""
    matched = found.holders.get(item.claim, frozenset()) if item.claim else frozenset()
    names, holders = _others(item.values, found, None)
    involved = matched | holders
    email_id = next(iter(involved)) if len(involved) == 1 else None
    document = found.documents.get(email_id) if email_id else None
    if not _is_match(item.if_match, document):
        return _failed_precondition(item, email_id)
    if _is_suppressed(item.values, found):
        return _suppressed(email_id)
    if not involved:
        return _new(item.values, item.consent)
    own = item.values[EMAIL.name]["email_id"]
    if document is not None and own in {None, email_id} and is_same_contact(document, item.values):
        return BatchResult(UNCHANGED, email_id), None
    if names or item.match is None:
        return _conflict(taken(names), involved)
    return _conflict([problem(["match", item.match[0]], Message("Another contact has this value", "taken"))], involved)


def _missing(item: BatchItem, found: StoredContacts) -> Decision:
    """Decide about an item that matches no contact."""
    address = item.values.get(EMAIL.name, {}).get("primary_email")
    if isinstance(address, LegacyAddress):  # it may stay where it is stored, but is stored nowhere
        raise ma.ValidationError({"contact": {"email": {"primary_email": [legacy_message(address)]}}})
    assert item.match is not None  # noqa: S101  required for these modes
    name, value = item.match
    merged_into = found.merged.get(value) if name == "email_id" else None
    unknown = problem(
        ["match", name], Message(UNKNOWN_CONTACT if name == "email_id" else "No contact has this value", "not_found")
    )
    if item.mode == UPDATE:
        return BatchResult(NOT_FOUND, problems=[unknown], merged_into=merged_into), None
    if merged_into is not None:
        merged = problem(["match", name], Message("The contact was merged into another one", "merged"))
        return BatchResult(CONFLICT, problems=[merged], email_ids=[merged_into], merged_into=merged_into), None
    if item.if_match is not None:
        return _failed_precondition(item, None)
    contact = complete(item)
    if _is_suppressed(contact, found):
        return _suppressed(None)
    names, holders = _others(contact, found, None)
    if holders:
        return _conflict(taken(names), holders)
    return _new(contact, item.consent)


def _update(item: BatchItem, found: StoredContacts, email_id: UUID) -> Decision:
    """Change a stored contact."""
    document = found.documents[email_id]
    if not _is_match(item.if_match, document):
        return _failed_precondition(item, email_id)
    stored = json.loads(document)
    email = dict(item.values.get(EMAIL.name, {}))
    _keep_address(email, stored[EMAIL.name]["primary_email"], found, email_id)
    values: Values = {**item.values, EMAIL.name: email}
    names, others = _others(values, found, email_id)
    if others:
        return _conflict(taken(names), {email_id, *others}, email_id)
    if email.pop("email_id", email_id) != email_id:
        raise ma.ValidationError({"contact": {"email": {"email_id": [Message("cannot change email_id", "email_id")]}}})
    if _is_suppressed(item.values, found):
        return _suppressed(email_id)
    if item.consent is not None:
        values = item.consent.apply(values, stored)
    _check_newsletters(values, stored["newsletters"])
    change = _change(email_id, values, stored)
    if change is None:
        return BatchResult(UNCHANGED, email_id), None
    return BatchResult(UPDATED, email_id), change


def _keep_address(email: dict[str, Any], stored: str, found: StoredContacts, email_id: UUID) -> None:
    """Remove an address that stays as it is stored, and refuse other text that is not an address.

    Two contacts of an adopted database may have the same address; each then keeps its spelling.
    """
    address = email.get("primary_email")
    if address is None:
        return
    if isinstance(address, LegacyAddress):
        if address != stored:
            raise ma.ValidationError({"contact": {"email": {"primary_email": [legacy_message(address)]}}})
        del email["primary_email"]
    elif addresses.is_same(stored, address) and _holders(found, "primary_email", address) - {email_id}:
        del email["primary_email"]


def _holders(found: StoredContacts, name: str, value: Any) -> Set[UUID]:
    key = addresses.comparison_key(value) if name in ADDRESSES else str(value)
    return found.holders.get((name, key), frozenset())


def _others(values: Values, found: StoredContacts, email_id: UUID | None) -> tuple[list[str], Set[UUID]]:
    """Return the identities that other contacts have though only one may, and these contacts."""
    names: list[str] = []
    others: set[UUID] = set()
    for name, value in identities(values):
        if name in _UNIQUE and (holders := _holders(found, name, value) - {email_id}):
            names.append(name)
            others |= holders
    return names, others


def _is_match(if_match: str | None, document: str | None) -> bool:
    if if_match is None:
        return True
    if document is None:
        return False
    tags = _tags(if_match)
    current = etag(with_status(document).encode())
    return "*" in tags or f'"{current}"' in tags or current in tags


def _tags(if_match: str) -> list[str]:
    return [tag.strip() for tag in if_match.split(",")]


def _is_suppressed(values: Values, found: StoredContacts) -> bool:
    return any(
        name in ADDRESSES and addresses.comparison_key(value) in found.suppressed for name, value in identities(values)
    )


def _suppressed(email_id: UUID | None) -> Decision:
    found = problem(["contact"], Message(IS_SUPPRESSED, "suppressed"))
    return BatchResult(SUPPRESSED, email_id, [found]), None


def _failed_precondition(item: BatchItem, email_id: UUID | None) -> Decision:
    is_weak = item.if_match is not None and any(tag.startswith("W/") for tag in _tags(item.if_match))
    message = needs_strong_tag("if_match") if is_weak else "The contact has changed"
    found = problem(["if_match"], Message(message, "precondition_failed"))
    return BatchResult(CONFLICT, email_id, [found]), None


def _conflict(problems: Sequence[Any], involved: Set[UUID], email_id: UUID | None = None) -> Decision:
    return BatchResult(CONFLICT, email_id, problems, sorted(involved)), None


def _check_newsletters(values: Values, stored: Sequence[Values]) -> None:
    """Raise `marshmallow.ValidationError` if a newsletter takes no new subscriptions."""
    try:
        check_subscriptions(values.get("newsletters"), {entry["name"]: entry["subscribed"] for entry in stored})
    except ma.ValidationError as error:
        raise ma.ValidationError({"contact": error.messages}) from error


def _new(contact: Values, consent: ConsentRule | None) -> Decision:
    _check_newsletters(contact, ())
    if consent is not None:
        contact = consent.apply_to_new(contact)
    email_id = contact[EMAIL.name]["email_id"] or uuid.uuid4()
    email = {**contact[EMAIL.name], "email_id": email_id}
    groups = {name: contact[name] for name, group in SUB_DOCUMENTS.items() if not group.is_default(contact[name])}
    lists = {name: contact[name] for name in LISTS if contact[name]}
    return BatchResult(CREATED, email_id), Change(email_id, True, email, groups, lists)


def _change(email_id: UUID, values: Values, stored: Values) -> Change | None:
    """Return the change of a stored contact, None if the stored values are those given."""
    email = values[EMAIL.name]
    differs = any(not is_equal(EMAIL.fields[name], value, stored[EMAIL.name][name]) for name, value in email.items())
    change = Change(email_id, False, email)
    for name in SUB_DOCUMENTS:
        if group := values.get(name):
            change.groups[name] = group
            differs = differs or _group_differs(name, group, stored[name])
    for name in LISTS:
        if not (given := values.get(name)):
            continue
        known = {entry["name"]: entry for entry in stored[name]}
        if given == UNSUBSCRIBE:
            change.lists[name] = given
            differs = differs or any(entry["subscribed"] is not False for entry in known.values())
            continue
        entries = [_entry(name, index, entry, known) for index, entry in enumerate(given)]
        if written := [entry for entry in entries if entry is not None]:
            change.lists[name] = written
            differs = differs or any(_entry_differs(name, entry, known.get(entry["name"])) for entry in written)
    return change if differs else None


def _group_differs(name: str, group: Values | str, stored: Values) -> bool:
    part = SUB_DOCUMENTS[name]
    given = part.defaults if group == DELETE else group
    assert isinstance(given, Mapping)  # noqa: S101
    return any(not is_equal(part.fields[column], value, stored[column]) for column, value in given.items())


def _entry(name: str, index: int, entry: Values, known: Mapping[str, Any]) -> Values | None:
    """Return the entry to write: none that is unknown and not subscribed, and a new one with what its rules add."""
    if entry["name"] in known:
        return entry
    if not entry.get("subscribed", True):
        return None
    if name == "waitlists" and "fields" not in entry:
        return {**entry, "fields": waitlist_defaults(index, entry["name"])}
    return entry


def _entry_differs(name: str, entry: Values, stored: Values | None) -> bool:
    if stored is None or entry.get("evidence"):
        return True
    part = LISTS[name]
    return any(
        not is_equal(part.fields[column], value, stored[column])
        for column, value in entry.items()
        if column in part.columns
    )
