"""The contract of waitlist rules."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import jsonschema_rs
import marshmallow as ma
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctms.hooks.registrations import Fields, Waitlist
from ctms.testing.contacts import contact_body
from ctms.testing.contracts.declared import declared
from ctms.testing.http import ApiClient, assert_error
from ctms.testing.isolation import no_io

UNKNOWN = "a_field_that_no_waitlist_has"

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


class WaitlistContract:
    """A contract to subclass for a waitlist's rules, with valid and invalid fields.

    `name` is the waitlist's, as the plugin declares it; for a pattern `example` is a matching name. `good` are fields
    that are accepted; `bad` are pairs of fields that are refused, and the names of the invalid ones. Each fault should
    have its own pair.
    """

    name: ClassVar[str]
    example: ClassVar[str | None] = None
    good: ClassVar[Sequence[Fields]]
    bad: ClassVar[Sequence[tuple[Fields, Iterable[str]]]]

    @pytest.fixture
    def waitlist(self, app: Flask) -> Waitlist:
        """Return the declaration."""
        found: Waitlist = declared(app, "ctms_waitlists", self.name)
        return found

    @property
    def a_name(self) -> str:
        """Return the name of a waitlist that the declaration applies to."""
        return self.example or self.name.replace("*", "example")

    def subscription(self, fields: Fields) -> dict[str, Any]:
        """Return a subscription to the waitlist."""
        return {"name": self.a_name, "fields": fields}

    def test_it_is_declared(self, waitlist: Waitlist) -> None:
        """Find the declaration, with a title."""
        assert isinstance(waitlist, Waitlist)
        assert waitlist.title.strip()

    def test_there_are_examples(self) -> None:
        """Require examples to test the rules with."""
        assert self.good, "say which fields are good"
        assert self.bad, "say which fields are bad; a waitlist that refuses nothing needs no rules"

    def test_good_fields_are_accepted(self, waitlist: Waitlist) -> None:
        """Return fields that can be stored, and that the rules accept again unchanged, as in every PUT."""
        for fields in self.good:
            _hold_stable(waitlist, _load(waitlist, fields))

    def test_bad_fields_are_refused(self, waitlist: Waitlist) -> None:
        """Name exactly the invalid fields in the errors."""
        for fields, at_fault in self.bad:
            assert set(_errors(waitlist, fields)) == set(at_fault), f"of {fields}"

    def test_unknown_fields_are_treated_as_declared(self, waitlist: Waitlist) -> None:
        """Keep, drop or refuse unknown fields, as declared with `unknown`."""
        fields = {**self.good[0], UNKNOWN: 1}
        if waitlist.unknown == "refuse":
            assert set(_errors(waitlist, fields)) == {UNKNOWN}, 'declared with unknown="refuse"'
        elif waitlist.unknown == "drop":
            assert UNKNOWN not in _load(waitlist, fields), 'declared with unknown="drop"'
        else:
            assert _load(waitlist, fields).get(UNKNOWN) == 1, 'declared with unknown="accept"'

    def test_the_rules_do_no_io(self, waitlist: Waitlist) -> None:
        """Do no I/O, since the rules run in requests, while the database waits."""
        for fields in (*self.good, *(fields for fields, _ in self.bad)):
            with no_io():
                _outcome(waitlist, fields)

    def test_any_object_is_accepted_or_refused(self, waitlist: Waitlist) -> None:
        """Return fields that can be stored, or name the invalid ones, whatever a client sends."""

        @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
        @given(self._objects(waitlist))
        def hold(fields: Fields) -> None:
            with no_io():
                found = _outcome(waitlist, fields)
            if isinstance(found, ma.ValidationError):
                _by_field(found)
            else:
                _hold_stable(waitlist, found)

        hold()

    def _objects(self, waitlist: Waitlist) -> st.SearchStrategy[Fields]:
        """Return a strategy for objects that resemble the good ones, and any others."""
        known = {name for fields in (*self.good, *(fields for fields, _ in self.bad)) for name in fields}
        schema = waitlist.schema() if isinstance(waitlist.schema, type) else waitlist.schema
        known |= set(schema.fields if schema else ())
        names = st.sampled_from(sorted(known)) | st.text() if known else st.text()
        changes = st.dictionaries(names, _JSON, max_size=4)
        return st.builds(lambda fields, changed: {**fields, **changed}, st.sampled_from([*self.good, {}]), changes)

    def test_the_json_schema_agrees(self, waitlist: Waitlist, api: ApiClient) -> None:
        """Allow in the JSON Schema of `/waitlists` what the rules accept."""
        (schema,) = [one["schema"] for one in api.get("/waitlists").json if one["name"] == waitlist.name]
        validator = jsonschema_rs.Draft202012Validator(schema, offline=True)
        for fields in self.good:
            assert [error.message for error in validator.iter_errors(fields)] == [], f"of {fields}"

    def test_good_fields_are_stored(
        self, waitlist: Waitlist, api: ApiClient, make_contact: Callable[..., dict[str, Any]]
    ) -> None:
        """Create and read a contact with the fields that the rules returned."""
        for fields in self.good:
            made = make_contact(waitlists=[self.subscription(fields)])
            found = api.get(f"/ctms/{made['email']['email_id']}").json
            assert [entry["fields"] for entry in found["waitlists"]] == [waitlist.load(copy.deepcopy(fields))]

    def test_bad_fields_are_a_422(self, waitlist: Waitlist, api: ApiClient) -> None:
        """Name the place of the error in the response."""
        for fields, at_fault in self.bad:
            answer = api.post("/ctms", contact_body(waitlists=[self.subscription(fields)]))
            body = assert_error(answer, 422)
            places = {tuple(problem["loc"][:5]) for problem in body["detail"]}
            assert places == {("body", "waitlists", 0, "fields", name) for name in at_fault}, f"of {fields}"


def _outcome(waitlist: Waitlist, fields: Fields) -> Fields | ma.ValidationError:
    """Return the result of the rules, or their validation error; any other exception fails the test."""
    try:
        found = waitlist.load(copy.deepcopy(fields))
    except ma.ValidationError as error:
        return error
    except Exception as error:
        raise AssertionError(f"the rules raise {type(error).__name__} ({error}) for {fields}") from error
    return found


def _load(waitlist: Waitlist, fields: Fields) -> Fields:
    found = _outcome(waitlist, fields)
    assert not isinstance(found, ma.ValidationError), f"{fields} are refused: {found}"
    return found


def _errors(waitlist: Waitlist, fields: Fields) -> Mapping[str, Any]:
    found = _outcome(waitlist, fields)
    assert isinstance(found, ma.ValidationError), f"{fields} are accepted"
    return _by_field(found)


def _by_field(error: ma.ValidationError) -> Mapping[str, Any]:
    messages = error.messages
    assert isinstance(messages, dict), f"name the invalid field: {messages}"
    assert ma.exceptions.SCHEMA not in messages, f"name the invalid field: {messages}"
    return messages


def _hold_stable(waitlist: Waitlist, found: Fields) -> None:
    stored = json.loads(json.dumps(found))
    assert stored == found, f"the rules return {found}, which JSON stores as {stored}"
    assert _load(waitlist, stored) == stored, f"the rules change what they returned: {found}"
