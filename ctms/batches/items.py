"""The items of a batch: which contact to write, how, and the result of each.

Items are validated without the database: as PATCH does for `update` and `upsert`, as POST does for `create`. An item of
`upsert` that meets no contact is completed with the defaults of POST (`complete`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import marshmallow as ma

from ctms.addresses import comparison_key, is_same
from ctms.batches.consent import ConsentRule
from ctms.contacts import fields
from ctms.contacts.fields import Fields, LegacyAddress, Message, StrictSchema, invalid
from ctms.contacts.problems import Problem, flatten, problem
from ctms.contacts.registry import EMAIL, IDENTITIES, LISTS, SUB_DOCUMENTS
from ctms.contacts.schemas import UNSUBSCRIBE, ContactPatchSchema, ContactSchema
from ctms.contacts.waitlist_rules import waitlist_registry

CREATE = "create"
UPDATE = "update"
UPSERT = "upsert"
MODES = (CREATE, UPDATE, UPSERT)

CREATED = "created"
UPDATED = "updated"
UNCHANGED = "unchanged"
CONFLICT = "conflict"
INVALID = "invalid"
SUPPRESSED = "suppressed"
NOT_FOUND = "not_found"
STATUSES = (CREATED, UPDATED, UNCHANGED, CONFLICT, INVALID, SUPPRESSED, NOT_FOUND)
STORED = frozenset({CREATED, UPDATED, UNCHANGED})
"""The statuses of items that did what they were to do."""

MAX_PROBLEMS = 20
"""Number of errors that a result names."""

Values = Mapping[str, Any]
Claim = tuple[str, str]
"""An identity and its value in the form in which values are compared."""


@dataclass(frozen=True)
class BatchItem:
    """A valid item: the identity that a contact must have (`match`), the mode, and the loaded contact or changes.

    `consent` is the rule for an item that does not come from the person; None: the item states what they want.
    """

    mode: str
    match: tuple[str, Any] | None
    values: Values
    if_match: str | None = None
    consent: ConsentRule | None = None

    @cached_property
    def claim(self) -> Claim | None:
        """The identity to match."""
        return None if self.match is None else claim(*self.match)

    @cached_property
    def identities(self) -> Mapping[Claim, Any]:
        """The identities in the contact, with their values."""
        return {claim(name, value): value for name, value in identities(self.values)}

    @cached_property
    def claims(self) -> Set[Claim]:
        """The identity to match, and those in the contact."""
        return self.identities.keys() | ({self.claim} if self.claim else set())


@dataclass(frozen=True)
class BatchResult:
    """The result of an item.

    `email_id` is the id of the item's contact, if there is one. `email_ids` are the ids of all contacts in a conflict.
    The places in `problems` start at the item. `merged_into` is the contact into which the requested one was merged.
    """

    status: str
    email_id: UUID | None = None
    problems: Sequence[Problem] = ()
    email_ids: Sequence[UUID] = ()
    merged_into: UUID | None = None


class BatchMatchSchema(StrictSchema):
    """Identity that the contact has: exactly one."""

    class Meta(StrictSchema.Meta):
        include: Fields = {  # noqa: RUF012
            name: fields.UUID() if one.is_uuid else fields.String(255, min_length=1) for name, one in IDENTITIES.items()
        }

    @ma.post_load
    def only_one(self, data: dict[str, Any], **_: Any) -> tuple[str, Any]:
        """Return the identity. Raises `marshmallow.ValidationError` unless there is exactly one."""
        if len(data) != 1:
            raise invalid(f"Exactly one of these is needed: {', '.join(IDENTITIES)}", "one_identity")
        [found] = data.items()
        return found


_IF_MATCH = (
    "`ETag` that the contact must still have (`*`: any), otherwise the item is a `conflict` with an error of the type"
    " `precondition_failed`. A weak tag (`W/`) never matches."
)


class BatchItemSchema(StrictSchema):
    """Contact to write."""

    match = fields.SubDocument(
        BatchMatchSchema, metadata={"description": "Required, except for `create`. A new contact gets the identity."}
    )
    mode = fields.String(
        choices=MODES,
        load_default=UPSERT,
        metadata={
            "description": "`create` is for new contacts, as `POST /ctms`; `update` for existing ones, as"
            " `PATCH /ctms/{email_id}`; `upsert` for both."
        },
    )
    contact = fields.SubDocument(ContactPatchSchema, required=True)
    if_match = fields.String(metadata={"description": _IF_MATCH})


_NO_MATCH = Message("Field required unless the mode is `create`", "missing")


class _Raw(fields.Field, ma.fields.Dict):
    default_error_messages = {"invalid": Message("Input should be a valid object", "dict_type")}  # noqa: RUF012


class _ItemSchema(BatchItemSchema):
    """An item whose contact is not loaded yet, because its schema depends on the mode."""

    contact = _Raw(required=True)  # type: ignore[assignment]

    @ma.post_load
    def require_match(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Require an identity to find the contact by, unless it is a new one."""
        if data["mode"] != CREATE and "match" not in data:
            raise ma.ValidationError({"match": [_NO_MATCH]})
        return data


_COLUMNS = {
    part: [(one.column, name) for name, one in IDENTITIES.items() if one.part.name == part]
    for part in {one.part.name: None for one in IDENTITIES.values()}
}
_ITEM = _ItemSchema()
_CONTACT = ContactSchema()
_PATCH = ContactPatchSchema()
_OTHER_VALUE = Message("A new contact must have the value that is matched", "match_mismatch")
_REQUIRED = Message("Field required", "missing")


def claim(name: str, value: Any) -> Claim:
    """Return an identity in the form in which values are compared."""
    return name, comparison_key(value) if IDENTITIES[name].is_address else str(value)


def identities(values: Values) -> Iterator[tuple[str, Any]]:
    """Yield the identities in a loaded contact, or in changes, with their values."""
    for part, columns in _COLUMNS.items():
        group = values.get(part)
        if isinstance(group, Mapping):
            for column, name in columns:
                if (value := group.get(column)) is not None:
                    yield name, value


def parse_item(raw: Any, consent: ConsentRule | None = None) -> BatchItem | BatchResult:
    """Validate an item; return the item, with the rule for its consents, or its result if it is invalid."""
    try:
        item = _ITEM.load(raw)
        match, mode, contact = item.get("match"), item["mode"], item["contact"]
        values = _load_new(contact, match) if mode == CREATE else _load(_PATCH, contact)
    except ma.ValidationError as error:
        return refuse(error.messages)
    return BatchItem(mode, match, values, item.get("if_match"), consent)


def refuse(messages: Any) -> BatchResult:
    """Return the result of an invalid item."""
    found = list(flatten(messages))
    return BatchResult(INVALID, problems=found[:MAX_PROBLEMS])


def complete(item: BatchItem) -> Values:
    """Return the whole contact that an item of `upsert` creates: its values, the matched identity, and defaults.

    Raises `marshmallow.ValidationError`.
    """
    given = item.values
    contact: dict[str, Any] = {EMAIL.name: {**EMAIL.defaults, **given.get(EMAIL.name, {})}}
    for name, part in SUB_DOCUMENTS.items():
        group = given.get(name)
        contact[name] = {**part.defaults, **group} if isinstance(group, Mapping) else None
    for name, part in LISTS.items():
        entries = given.get(name, ())
        contact[name] = [] if entries == UNSUBSCRIBE else [{**part.defaults, **entry} for entry in entries]
    assert item.match is not None  # noqa: S101  required for this mode
    name, value = item.match
    one = IDENTITIES[name]
    group = contact[one.part.name]
    if group is None or group.get(one.column) is None:
        try:
            loaded = one.part.fields[one.column].deserialize(str(value))
        except ma.ValidationError as error:
            raise ma.ValidationError({"match": {name: error.messages}}) from error
        contact[one.part.name] = {**(group or one.part.defaults), one.column: loaded}
    elif not _is_same(name, value, group[one.column]):
        raise ma.ValidationError({"match": {name: [_OTHER_VALUE]}})
    if contact[EMAIL.name].get("primary_email") is None:
        raise ma.ValidationError({"contact": {EMAIL.name: {"primary_email": [_REQUIRED]}}})
    _apply_waitlist_rules(given.get("waitlists", ()), contact["waitlists"])
    return contact


def _apply_waitlist_rules(given: Any, entries: Sequence[dict[str, Any]]) -> None:
    """Apply the rules to the entries without fields, which were not validated with the changes."""
    for index, entry in enumerate(entries):
        if "fields" not in given[index]:
            entry["fields"] = waitlist_defaults(index, entry["name"])


def waitlist_defaults(index: int, name: str) -> Any:
    """Return the fields of a new waitlist without fields. Raises `marshmallow.ValidationError` with their place."""
    try:
        return waitlist_registry().validate(name, {})
    except ma.ValidationError as error:
        raise ma.ValidationError({"contact": {"waitlists": {index: {"fields": error.messages}}}}) from error


def legacy_message(address: LegacyAddress) -> Message:
    """Return the reason why the text is not an address."""
    return Message(address.problem["msg"], address.problem["type"])


def place(name: str) -> tuple[str, ...]:
    """Return the place of an identity in an item."""
    one = IDENTITIES[name]
    return ("contact", one.part.name, one.column)


def taken(names: Sequence[str]) -> list[Problem]:
    """Return the errors for identities that other contacts have."""
    return [problem(place(name), Message("Another contact has this value", "taken")) for name in names]


def _load(schema: ma.Schema, contact: Any) -> Values:
    try:
        loaded: Values = schema.load(contact)
    except ma.ValidationError as error:
        raise ma.ValidationError({"contact": error.messages}) from error
    return loaded


def _load_new(contact: Values, match: tuple[str, Any] | None) -> Values:
    """Load a new contact, with the matched identity if its own is absent."""
    if match is None:
        return _load(_CONTACT, contact)
    name, value = match
    one = IDENTITIES[name]
    group = contact.get(one.part.name)
    if group is None or (isinstance(group, dict) and group.get(one.column) is None):
        contact = {**contact, one.part.name: {**(group or {}), one.column: str(value)}}
    loaded = _load(_CONTACT, contact)
    if not _is_same(name, value, loaded[one.part.name][one.column]):
        raise ma.ValidationError({"match": {name: [_OTHER_VALUE]}})
    return loaded


def _is_same(name: str, value: Any, other: Any) -> bool:
    return is_same(value, other) if IDENTITIES[name].is_address else str(value) == str(other)
