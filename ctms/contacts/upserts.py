"""Create or replace a contact by its address, the natural key; `batches` has the upsert that updates partially."""

from __future__ import annotations

import uuid
from typing import Any

from ctms.addresses import is_same, spellings
from ctms.contacts import commands, statements
from ctms.contacts.commands import CreateResult, Precondition, Values
from ctms.database.pool import Connection
from ctms.errors import Conflict, Invalid
from ctms.suppression.check import SuppressionCheck

OTHER_ADDRESS = "primary_email in query must match primary_email in contact"


def replace_by_address(
    connection: Connection, address: str, contact: Values, precondition: Precondition | None = None
) -> CreateResult:
    """Replace the contact with the address, in any spelling, or create it.

    Raises `Invalid` if the contact has another address or id, `Conflict` when another contact has one of its
    identities or several have the address, `Forbidden` when an address is suppressed, and
    `marshmallow.ValidationError` when a newsletter takes no new subscriptions.
    """
    email = contact["email"]
    if not is_same(address, email["primary_email"]):
        raise Invalid(OTHER_ADDRESS)
    # Before the contact is locked; the writers check it.
    SuppressionCheck(connection, email["primary_email"], (contact["fxa"] or {}).get("primary_email"))
    for _ in range(commands.MAX_ATTEMPTS):
        email_id = _lock(connection, address)
        if precondition is not None:
            precondition(None if email_id is None else commands.lock(connection, email_id))
        if email_id is not None:
            if email["email_id"] not in {None, email_id}:
                raise Invalid("cannot change email_id")
            whole = {**contact, "email": {**email, "email_id": email_id}}
            return CreateResult(email_id, commands.replace(connection, email_id, whole), new=False)
        try:
            return commands.create(connection, contact)
        except Conflict as error:
            if error.extra.get("field") != "primary_email":
                raise
        # Created by another transaction since; it is replaced now.
    raise Conflict(commands.TAKEN_REPLACE, "primary_email")


def _lock(connection: Connection, address: str) -> uuid.UUID | None:
    """Lock the contact with the address and return its id, None if there is none."""
    spelt = spellings(address)
    rows: list[Any] = connection.execute(statements.ids_by_address(len(spelt)), spelt).fetchall()
    if len(rows) > 1:
        raise Conflict(commands.TAKEN_REPLACE, "primary_email")
    for (email_id,) in rows:
        locked = connection.execute(statements.LOCK_ADDRESS, (email_id,)).fetchone()
        if locked is not None and is_same(locked[0], address):
            return email_id  # type: ignore[no-any-return]
    return None
