"""The writers of one contact; `removal` deletes contacts, `optouts` opts many out, and nothing else writes them.

Each runs on a connection in pipeline mode, inside the caller's transaction, and leaves the commit to it. The first
statement locks the contact's row of `emails`, so two writers of one contact take turns and the later one sees
what the earlier one did. Time is the database's, read while the lock is held; the rows that a write touches all
carry the `update_timestamp` of the contact. The same transaction notes that backends must hear of it (`outbox`).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import marshmallow as ma
import psycopg
from psycopg.types.json import Json

from ctms import addresses
from ctms.contacts import queries, statements
from ctms.contacts.documents import same_contact
from ctms.contacts.fields import LegacyAddress
from ctms.contacts.schemas import DELETE, UNSUBSCRIBE
from ctms.contacts.statements import GROUPS, LISTS
from ctms.contacts.waitlists import waitlists
from ctms.errors import Conflict, Invalid, NotFound
from ctms.outbox.changes import outbox
from ctms.pool import Connection
from ctms.suppression.check import SuppressionCheck

Values = Mapping[str, Any]

UNIQUE = {
    "emails_pkey": "email_id",
    "emails_primary_email_key": "primary_email",
    "idx_email_primary_unique_email_lower": "primary_email",
    "emails_basket_token_key": "basket_token",
    "fxa_fxa_id_key": "fxa_id",
    "mofo_mofo_email_id_key": "mofo_email_id",
}
"""Which identity each unique constraint protects."""

UNKNOWN = "Unknown email_id"
TAKEN_CREATE = "Contact already exists"
TAKEN_REPLACE = "Contact with primary_email or basket_token already exists"
TAKEN_CHANGE = "Contact with primary_email, basket_token, mofo_email_id, or fxa_id already exists"

ATTEMPTS = 5
"""A contact that stood in the way may be deleted before it can be read or overwritten; then there is room for ours."""


@dataclass(frozen=True)
class Created:
    """What `create` answers: the contact's id and document, and whether it is new."""

    email_id: uuid.UUID
    document: str
    new: bool


def create(connection: Connection, contact: Values) -> Created:
    """Create a contact from what `ContactSchema` loaded.

    The very same contact again is no error. Raises `Conflict` when its id or another identity is taken, `Forbidden`
    when an address is suppressed.
    """
    email = {**contact["email"], "email_id": contact["email"]["email_id"] or uuid.uuid4()}
    email_id: uuid.UUID = email["email_id"]
    row, parts = _row(email), _parts(contact)
    check = SuppressionCheck(connection, email["primary_email"], _account_address(contact))
    if _holders(connection, email) - {email_id}:
        check.raise_if_suppressed()
        raise Conflict(TAKEN_CREATE, "primary_email")
    try:
        for _ in range(ATTEMPTS):
            created = connection.execute(statements.create(tuple(parts)), {**row, **_parameters(parts)})
            document = _find(connection, email_id)
            (new,) = created.fetchone() or (0,)
            check.raise_if_suppressed()
            if new:
                outbox().changed(connection, [email_id])
            if document is not None and (new or same_contact(document, contact)):
                return Created(email_id, document, new=bool(new))
            taken = connection.execute(statements.TAKEN, row).fetchone()
            if taken and (document is not None or taken[0] != "email_id"):
                raise Conflict(TAKEN_CREATE, taken[0])
    except psycopg.errors.UniqueViolation as error:
        raise _conflict(error, TAKEN_CREATE) from None
    raise Conflict(TAKEN_CREATE)


def replace(connection: Connection, email_id: uuid.UUID, contact: Values) -> str:
    """Create the contact or put it in the place of the one before; returns its document.

    What the new contact names keeps its `create_timestamp` (the date of consent), the rest is removed.
    Raises `Conflict` when an identity is another contact's, `Forbidden` when its address is suppressed.
    """
    email = dict(contact["email"])
    check = SuppressionCheck(connection, email["primary_email"], _account_address(contact))
    _check_address(connection, email_id, email, TAKEN_REPLACE, is_new=True)
    row, parts = _row(email), _parts(contact)
    # `ON CONFLICT (email_id) DO UPDATE` would be one statement, and fail (or deadlock) where two make the contact at
    # once: it forgives a clash of the id only, and another unique index may be the first to see it.
    try:
        for _ in range(ATTEMPTS):
            made = connection.execute(statements.INSERT_EMAIL, row)
            overwritten = connection.execute(statements.OVERWRITE_EMAIL, row)
            connection.execute(statements.replace_parts(tuple(parts)), {"contact": email_id, **_parameters(parts)})
            document = _find(connection, email_id)
            check.raise_if_suppressed()
            if document is not None and (made.rowcount or overwritten.rowcount):
                # Not before the contact is ours: who holds it waits for the same row of the outbox.
                outbox().changed(connection, [email_id])
                return document
            taken = connection.execute(statements.TAKEN, row).fetchone()
            if taken and taken[0] != "email_id":
                raise Conflict(TAKEN_REPLACE, taken[0])
    except psycopg.errors.UniqueViolation as error:
        raise _conflict(error, TAKEN_REPLACE) from None
    raise Conflict(TAKEN_REPLACE)


def change(connection: Connection, email_id: uuid.UUID, patch: Values) -> str:
    """Change what `ContactPatchSchema` loaded, and nothing else; returns the document.

    Raises `NotFound`, `Conflict` when an identity is another contact's, `Forbidden` when its new address is
    suppressed, or `marshmallow.ValidationError` when a waitlist is new and its rules demand fields that are not given.
    """
    email = dict(patch.get("email", {}))
    email.pop("email_id", None)
    check = SuppressionCheck(connection, email.get("primary_email"), _account_address(patch))
    new = {"waitlists": _new_waitlists(connection, email_id, patch.get("waitlists", ()))}
    _check_address(connection, email_id, email, TAKEN_CHANGE, is_new=False)
    try:
        updated = connection.execute(statements.update_email(tuple(email)), [*_row(email).values(), email_id])
        for name in GROUPS:
            if name in patch:
                _change_group(connection, email_id, name, patch[name])
        for name in LISTS:
            if name in patch:
                _change_list(connection, email_id, name, patch[name], new.get(name, {}))
        outbox().changed(connection, [email_id])
        document = _document(connection, email_id)
    except psycopg.errors.UniqueViolation as error:
        raise _conflict(error, TAKEN_CHANGE) from None
    if not updated.rowcount:  # there was no contact; one that came since then was not changed
        raise NotFound(UNKNOWN)
    check.raise_if_suppressed()
    return document


def lock(connection: Connection, email_id: uuid.UUID) -> str | None:
    """Lock the contact until the transaction ends and return its document; None when there is no such contact."""
    connection.execute(statements.LOCK, (email_id,))
    return _find(connection, email_id)


def _parts(contact: Values) -> dict[str, Any]:
    """Return the groups and lists of the contact that say something."""
    groups = {name: contact[name] for name, group in GROUPS.items() if not group.says_nothing(contact[name])}
    return groups | {name: contact[name] for name in LISTS if contact[name]}


def _parameters(parts: Values) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for name, value in parts.items():
        prefix = statements.parameter(name)
        if name in GROUPS:
            parameters |= {f"{prefix}{column}": given for column, given in value.items()}
        else:
            parameters[prefix] = Json(value)
    return parameters


def _change_group(connection: Connection, email_id: uuid.UUID, name: str, values: Values | str) -> None:
    if values == DELETE:
        connection.execute(statements.delete(name), (email_id,))
    elif isinstance(values, Mapping) and values:
        group = GROUPS[name]
        _upsert(connection, email_id, name, {**group.defaults, **values}, tuple(values))
        if all(value == group.defaults[key] for key, value in values.items()):
            connection.execute(statements.delete_default(name), (email_id,))


def _new_waitlists(connection: Connection, email_id: uuid.UUID, entries: list[Values] | str) -> dict[str, Values]:
    """Return what entries without fields get if they are new, by name: what their rules make of no fields.

    The rules have no say about what is stored already.
    """
    new: dict[str, Values] = {}
    for index, entry in enumerate(entries if entries != UNSUBSCRIBE else ()):
        assert isinstance(entry, Mapping)  # noqa: S101
        name = entry["name"]
        if "fields" in entry or not entry.get("subscribed", True):
            continue
        try:
            new[name] = {"fields": waitlists().validate(name, {})}
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
        whole = {**LISTS[name].defaults, **new.get(entry["name"], {}), **entry}
        if whole["subscribed"]:
            _upsert(connection, email_id, name, whole, tuple(entry))
        else:
            given = _row({key: value for key, value in entry.items() if key != "name"})
            connection.execute(statements.update_entry(name, tuple(given)), [*given.values(), email_id, entry["name"]])


def _upsert(connection: Connection, email_id: uuid.UUID, name: str, values: Values, given: tuple[str, ...]) -> None:
    connection.execute(statements.upsert(name, given), {**_row(values), "contact": email_id})


def _row(values: Values) -> dict[str, Any]:
    return {key: Json(value) if isinstance(value, dict) else value for key, value in values.items()}


def _document(connection: Connection, email_id: uuid.UUID) -> str:
    document = _find(connection, email_id)
    if document is None:
        raise NotFound(UNKNOWN)
    return document


def _find(connection: Connection, email_id: uuid.UUID) -> str | None:
    row = connection.execute(*queries.document(email_id)).fetchone()
    return row[0] if row else None


def _account_address(contact: Values) -> str | None:
    account = contact.get("fxa")
    return account.get("primary_email") if isinstance(account, Mapping) else None


def _check_address(
    connection: Connection, email_id: uuid.UUID, email: dict[str, Any], detail: str, *, is_new: bool
) -> None:
    """Refuse an address that another contact has in another spelling, and one that is none.

    The latter may stay where it is stored already. Two contacts of an adopted database may have one address: then
    each keeps the spelling that it has, and `email` is changed to it. `is_new` when the contact need not exist yet.
    Raises `Conflict`, `Invalid`, `NotFound`.
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
        raise NotFound(UNKNOWN)
    else:
        raise Conflict(detail, "primary_email")


def _holders(connection: Connection, email: Values) -> set[uuid.UUID]:
    """Return the contacts that have the address, if it has several spellings: the unique index only knows one."""
    address = email.get("primary_email")
    spelt = addresses.spellings(address) if address and not isinstance(address, LegacyAddress) else ()
    if len(spelt) < 2:
        return set()
    return {email_id for (email_id,) in connection.execute(statements.ids_by_address(len(spelt)), spelt).fetchall()}


def _conflict(error: psycopg.errors.UniqueViolation, detail: str) -> Conflict:
    return Conflict(detail, UNIQUE.get(error.diag.constraint_name or ""))
