"""The writers of a single contact. `removal`, which deletes, `merging`, `optouts` and `batches` are all others.

Each writer runs on a connection in pipeline mode, inside the caller's transaction, which the caller commits. The first
statement locks the contact's row of `emails`, so two writers of one contact take turns, and the later sees the result
of the earlier. The timestamp comes from the database's clock while the lock is held. All rows that a write changes get
the contact's `update_timestamp`. The same transaction adds the contact to the outbox.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import marshmallow as ma
import psycopg
from psycopg.types.json import Json

from ctms import addresses
from ctms.contacts import queries, statements
from ctms.contacts.documents import is_same_contact
from ctms.contacts.fields import LegacyAddress
from ctms.contacts.newsletter_rules import SubscriptionCheck, check_subscriptions
from ctms.contacts.parts import Identity
from ctms.contacts.registry import EMAIL, IDENTITIES, LISTS, SUB_DOCUMENTS
from ctms.contacts.schemas import DELETE, UNSUBSCRIBE
from ctms.contacts.stored_documents import store_written
from ctms.contacts.tombstones import unknown_contact
from ctms.contacts.waitlist_rules import waitlist_registry
from ctms.database.pool import Connection
from ctms.errors import Conflict, Invalid
from ctms.history.context import recorded_evidence
from ctms.outbox.changes import outbox
from ctms.suppression.check import SuppressionCheck

Values = Mapping[str, Any]

Precondition = Callable[[str | None], object]
"""Raises unless the contact may be written, given its document, None if it does not exist."""

UNIQUE_CONSTRAINTS = {
    constraint: name for name, identity in IDENTITIES.items() for constraint in identity.unique_constraints
}
"""The identity that each unique constraint protects."""


def _taken(identities: Iterable[Identity]) -> str:
    *names, last = (one.name for one in identities if one.unique_constraints and one.name != "email_id")
    return f"Contact with {', '.join(names)}{',' if len(names) > 1 else ''} or {last} already exists"


TAKEN_CREATE = "Contact already exists"
TAKEN_REPLACE = _taken(identity for identity in IDENTITIES.values() if identity.part is EMAIL)
TAKEN_CHANGE = _taken(IDENTITIES.values())

MAX_ATTEMPTS = 5
"""A conflicting contact may be deleted before it can be read or overwritten; the write is then retried."""


@dataclass(frozen=True)
class CreateResult:
    """The result of `create`: the contact's id and document, and whether it is new."""

    email_id: uuid.UUID
    document: str
    new: bool


def create(connection: Connection, contact: Values) -> CreateResult:
    """Create a contact from the values that `ContactSchema` loaded.

    Creating an identical contact again is not an error. Raises `Conflict` when its id or another identity is taken,
    `Forbidden` when an address is suppressed, and `marshmallow.ValidationError` when a newsletter takes no new
    subscriptions.
    """
    email = {**contact["email"], "email_id": contact["email"]["email_id"] or uuid.uuid4()}
    email_id: uuid.UUID = email["email_id"]
    row, parts = _row(email), _parts(contact)
    check = SuppressionCheck(connection, email["primary_email"], _account_address(contact))
    if _holders(connection, email) - {email_id}:
        check.raise_if_suppressed()
        raise Conflict(TAKEN_CREATE, "primary_email")
    with recorded_evidence(connection, _evidence(contact)), _unique_violations_as(TAKEN_CREATE):
        for _ in range(MAX_ATTEMPTS):
            created = connection.execute(statements.create(tuple(parts)), {**row, **_parameters(parts)})
            document = store_written(connection, email_id)
            (new,) = created.fetchone() or (0,)
            check.raise_if_suppressed()
            if new:
                check_subscriptions(contact["newsletters"], {})
                outbox().changed(connection, [email_id])
            if document is not None and (new or is_same_contact(document, contact)):
                return CreateResult(email_id, document, new=bool(new))
            taken = connection.execute(statements.TAKEN, row).fetchone()
            if taken and (document is not None or taken[0] != "email_id"):
                raise Conflict(TAKEN_CREATE, taken[0])
    raise Conflict(TAKEN_CREATE)


def replace(
    connection: Connection, email_id: uuid.UUID, contact: Values, precondition: Precondition | None = None
) -> str:
    """Create the contact, or replace the existing one with its id, and return the document.

    Parts that the new contact also has keep their `create_timestamp` (the date of consent); other parts are deleted.
    Raises `Conflict` when another contact has one of its identities, `Forbidden` when an address is suppressed, and
    `marshmallow.ValidationError` when a newsletter takes no new subscriptions.
    """
    email = dict(contact["email"])
    check = SuppressionCheck(connection, email["primary_email"], _account_address(contact))
    if precondition is not None:
        precondition(lock(connection, email_id))
    subscriptions = SubscriptionCheck(connection, email_id, contact["newsletters"])
    _check_address(connection, email_id, email, TAKEN_REPLACE, is_new=True)
    row, parts = _row(email), _parts(contact)
    # A single `ON CONFLICT (email_id) DO UPDATE` fails (or deadlocks) when two transactions create the contact at once:
    # it handles a conflict of the id only, and another unique index may detect the conflict first.
    with recorded_evidence(connection, _evidence(contact)), _unique_violations_as(TAKEN_REPLACE):
        for _ in range(MAX_ATTEMPTS):
            inserted = connection.execute(statements.INSERT_EMAIL, row)
            overwritten = connection.execute(statements.OVERWRITE_EMAIL, row)
            connection.execute(statements.replace_parts(tuple(parts)), {"contact": email_id, **_parameters(parts)})
            document = store_written(connection, email_id)
            check.raise_if_suppressed()
            if document is not None and (inserted.rowcount or overwritten.rowcount):
                subscriptions.raise_if_refused()
                # Only with the contact's lock: its holder may be waiting for the same row of the outbox.
                outbox().changed(connection, [email_id])
                return document
            taken = connection.execute(statements.TAKEN, row).fetchone()
            if taken and taken[0] != "email_id":
                raise Conflict(TAKEN_REPLACE, taken[0])
    raise Conflict(TAKEN_REPLACE)


def update(connection: Connection, email_id: uuid.UUID, patch: Values, precondition: Precondition | None = None) -> str:
    """Update only the values that `ContactPatchSchema` loaded, and return the document.

    Raises `NotFound`, `Conflict` when another contact has one of the identities, and `Forbidden` when a new address is
    suppressed. Raises `marshmallow.ValidationError` when the rules of a new waitlist require fields that are missing,
    or when a newsletter takes no new subscriptions.
    """
    email = dict(patch.get("email", {}))
    email.pop("email_id", None)
    check = SuppressionCheck(connection, email.get("primary_email"), _account_address(patch))
    if precondition is not None:
        document = lock(connection, email_id)
        if document is None:
            raise unknown_contact(connection, email_id)
        precondition(document)
    subscriptions = SubscriptionCheck(connection, email_id, patch.get("newsletters"))
    new = {"waitlists": _new_waitlists(connection, email_id, patch.get("waitlists", ()))}
    _check_address(connection, email_id, email, TAKEN_CHANGE, is_new=False)
    with recorded_evidence(connection, _evidence(patch)), _unique_violations_as(TAKEN_CHANGE):
        updated = connection.execute(statements.update_email(tuple(email)), [*_row(email).values(), email_id])
        for name in SUB_DOCUMENTS:
            if name in patch:
                _change_group(connection, email_id, name, patch[name])
        for name in LISTS:
            if name in patch:
                _change_list(connection, email_id, name, patch[name], new.get(name, {}))
        outbox().changed(connection, [email_id])
        document = store_written(connection, email_id)
    if document is None or not updated.rowcount:  # no contact to update; one created since then is unchanged
        raise unknown_contact(connection, email_id)
    check.raise_if_suppressed()
    subscriptions.raise_if_refused()
    return document


def lock(connection: Connection, email_id: uuid.UUID) -> str | None:
    """Lock the contact until the transaction ends and return its document, None if it does not exist.

    A writer that stores addresses calls it after `SuppressionCheck`.
    """
    connection.execute(statements.LOCK, (email_id,))
    row = connection.execute(*queries.document(email_id)).fetchone()
    return row[0] if row else None


def _parts(contact: Values) -> dict[str, Any]:
    """Return the contact's sub-documents with values other than defaults, and its lists with entries."""
    groups = {name: contact[name] for name, group in SUB_DOCUMENTS.items() if not group.is_default(contact[name])}
    return groups | {name: contact[name] for name in LISTS if contact[name]}


def _parameters(parts: Values) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name, value in parts.items():
        prefix = statements.parameter(name)
        if name in SUB_DOCUMENTS:
            parameters |= {f"{prefix}{column}": given for column, given in value.items()}
        else:
            parameters[prefix] = Json(value)
    return parameters


def _change_group(connection: Connection, email_id: uuid.UUID, name: str, values: Values | str) -> None:
    if values == DELETE:
        connection.execute(statements.delete(name), (email_id,))
    elif isinstance(values, Mapping) and values:
        group = SUB_DOCUMENTS[name]
        _upsert(connection, email_id, name, {**group.defaults, **values}, tuple(values))
        if all(value == group.defaults[key] for key, value in values.items()):
            connection.execute(statements.delete_default(name), (email_id,))


def _new_waitlists(connection: Connection, email_id: uuid.UUID, entries: list[Values] | str) -> dict[str, Values]:
    """Return, by name, the values for entries without fields if they are new: the result of their rules for no fields.

    The rules do not apply to stored entries.
    """
    new: dict[str, Values] = {}
    for index, entry in enumerate(entries if entries != UNSUBSCRIBE else ()):
        assert isinstance(entry, Mapping)  # noqa: S101
        name = entry["name"]
        if "fields" in entry or not entry.get("subscribed", True):
            continue
        try:
            new[name] = {"fields": waitlist_registry().validate(name, {})}
        except Exception as error:
            connection.execute(statements.LOCK, (email_id,))
            if connection.execute(statements.HAS_WAITLIST, (email_id, name)).fetchone():
                continue
            if isinstance(error, ma.ValidationError):
                raise ma.ValidationError({"waitlists": {index: {"fields": error.messages}}}) from error
            raise
    return new


def _change_list(
    connection: Connection, email_id: uuid.UUID, name: str, entries: list[Values] | str, new: Mapping[str, Values]
) -> None:
    if entries == UNSUBSCRIBE:
        connection.execute(statements.unsubscribe(name), (email_id,))
        return
    for entry in entries:
        assert isinstance(entry, Mapping)  # noqa: S101
        given = {column: value for column, value in entry.items() if column in LISTS[name].columns}
        whole = {**LISTS[name].defaults, **new.get(entry["name"], {}), **given}
        if whole["subscribed"]:
            _upsert(connection, email_id, name, whole, tuple(given))
        else:
            del given["name"]
            row = _row(given)
            connection.execute(statements.update_entry(name, tuple(row)), [*row.values(), email_id, entry["name"]])


def _upsert(connection: Connection, email_id: uuid.UUID, name: str, values: Values, given: tuple[str, ...]) -> None:
    connection.execute(statements.upsert(name, given), {**_row(values), "contact": email_id})


def _row(values: Values) -> dict[str, Any]:
    return {key: Json(value) if isinstance(value, dict) else value for key, value in values.items()}


def _account_address(contact: Values) -> str | None:
    account = contact.get("fxa")
    return account.get("primary_email") if isinstance(account, Mapping) else None


def _check_address(
    connection: Connection, email_id: uuid.UUID, email: dict[str, Any], detail: str, *, is_new: bool
) -> None:
    """Refuse an address that another contact has in a different spelling, and text that is not an address.

    Such text is accepted where it is already stored. Two contacts of an adopted database may have the same address;
    each then keeps its spelling, which replaces the one in `email`. `is_new` allows that the contact does not exist
    yet. Raises `Conflict`, `Invalid` and `NotFound`.
    """
    address = email.get("primary_email")
    others = _holders(connection, email) - {email_id}
    if not others and not isinstance(address, LegacyAddress):
        return
    row = connection.execute(statements.LOCK_ADDRESS, (email_id,)).fetchone()
    stored = row[0] if row else None
    if isinstance(address, LegacyAddress):
        if stored != address:
            raise Invalid([{"loc": ["body", "email", "primary_email"], **address.problem}])
    elif stored is not None and address is not None and addresses.is_same(stored, address):
        email["primary_email"] = stored
    elif stored is None and not is_new:
        raise unknown_contact(connection, email_id)
    else:
        raise Conflict(detail, "primary_email")


def _holders(connection: Connection, email: Values) -> set[uuid.UUID]:
    """Return the contacts with the address if it has several spellings, which the unique index does not cover."""
    address = email.get("primary_email")
    spelt = addresses.spellings(address) if address and not isinstance(address, LegacyAddress) else ()
    if len(spelt) < 2:
        return set()
    return {email_id for (email_id,) in connection.execute(statements.ids_by_address(len(spelt)), spelt).fetchall()}


def _evidence(contact: Values) -> dict[str, dict[str, Any]]:
    """Return the evidence in a request, by list and by the name of the entry."""
    given: dict[str, dict[str, Any]] = {}
    for name in LISTS:
        entries = contact.get(name)
        if isinstance(entries, list):
            found = {entry["name"]: entry["evidence"] for entry in entries if entry.get("evidence")}
            given |= {name: found} if found else {}
    return given


@contextmanager
def _unique_violations_as(detail: str) -> Iterator[None]:
    """Raise `Conflict` with this detail and the identity that another contact has."""
    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(detail, UNIQUE_CONSTRAINTS.get(error.diag.constraint_name or "")) from None
