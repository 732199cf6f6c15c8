"""Values that each type accepts, refuses and stores, tested over the API."""

from __future__ import annotations

import json
from typing import Any

import marshmallow as ma
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctms.contacts.fields import Boolean, Message, String, SubDocument, Subscriptions
from ctms.contacts.schemas import ContactPatchSchema, ContactSchema
from tests.contacts.factories import full, minimal
from tests.http import ApiClient, assert_error

TEXTS = [
    ("email", "sfdc_id", 255),
    ("email", "first_name", 255),
    ("email", "last_name", 255),
    ("email", "mailing_country", 255),
    ("email", "email_lang", 5),
    ("email", "unsubscribe_reason", None),
    ("amo", "add_on_ids", 500),
    ("amo", "display_name", 255),
    ("amo", "language", 5),
    ("amo", "location", 255),
    ("amo", "profile_url", 40),
    ("amo", "user_id", 40),
    ("amo", "username", 100),
    ("fxa", "fxa_id", 50),
    ("fxa", "primary_email", 255),
    ("fxa", "created_date", 50),
    ("fxa", "lang", 255),
    ("fxa", "first_service", 50),
    ("mofo", "mofo_email_id", 255),
    ("mofo", "mofo_contact_id", 255),
    ("newsletters", "name", 255),
    ("newsletters", "lang", 5),
    ("newsletters", "unsub_reason", None),
    ("waitlists", "name", 255),
    ("waitlists", "unsub_reason", None),
]
FLAGS = [
    ("email", "double_opt_in"),
    ("email", "has_opted_out_of_email"),
    ("amo", "email_opt_in"),
    ("amo", "user"),
    ("fxa", "account_deleted"),
    ("mofo", "mofo_relevant"),
    ("newsletters", "subscribed"),
    ("waitlists", "subscribed"),
]
YES: list[Any] = [True, "yes", "Y", "on", "t", "true", "TRUE", 1, "1", 1.0]
NO: list[Any] = [False, "no", "N", "off", "f", "false", "False", 0, "0"]
NOT_STORABLE = ["\0", "a\0b", "\ud800", "\udfff", "a\udc00b", "\ude00\ud83d"]


def with_value(group: str, field: str, value: Any) -> dict[str, Any]:
    """A contact with one value, which has to be unlike its default to be stored."""
    contact = minimal()
    if group in {"newsletters", "waitlists"}:
        return {**contact, group: [{"name": "a-name", field: value}]}
    contact.setdefault(group, {})[field] = value
    return contact


def place(group: str, field: str) -> list[str | int]:
    return ["body", group, 0, field] if group in {"newsletters", "waitlists"} else ["body", group, field]


def stored_value(contact: dict[str, Any], group: str, field: str) -> Any:
    found = contact[group]
    return (found[0] if isinstance(found, list) else found)[field]


@pytest.mark.parametrize(("group", "field", "max_length"), TEXTS)
class TestText:
    def test_as_long_as_its_column_in_characters(
        self, api: ApiClient, group: str, field: str, max_length: int | None
    ) -> None:
        text = "😀" * (max_length or 5000)

        created = api.post("/ctms", with_value(group, field, text))

        assert created.status_code == 201
        assert stored_value(created.json, group, field) == text

    def test_longer_is_refused_everywhere(self, api: ApiClient, group: str, field: str, max_length: int | None) -> None:
        if max_length is None:
            return
        contact = with_value(group, field, "secretive"[:1] * (max_length + 1))
        created = api.post("/ctms", full())
        contact["email"]["email_id"] = created.json["email"]["email_id"]
        path = created.headers["Location"]

        for refused in (api.post("/ctms", contact), api.put(path, contact), api.patch(path, contact)):
            body = assert_error(refused, 422, at=[place(group, field)])
            assert body["detail"][0]["type"] == "string_too_long"
        assert api.get(path).json == created.json

    def test_values_other_than_text_are_refused(
        self, api: ApiClient, group: str, field: str, max_length: int | None
    ) -> None:
        values: tuple[Any, ...] = (1, 1.5, True, [], {}, ["a"])
        for value in values:
            assert_error(api.post("/ctms", with_value(group, field, value)), 422, at=[place(group, field)])

    def test_values_that_postgresql_cannot_store_are_refused(
        self, api: ApiClient, group: str, field: str, max_length: int | None
    ) -> None:
        path = api.post("/ctms", minimal()).headers["Location"]
        for text in NOT_STORABLE:
            contact = with_value(group, field, text)
            assert_error(api.post("/ctms", contact), 422, at=[place(group, field)])
            contact["email"].pop("primary_email")
            assert_error(api.patch(path, contact), 422, at=[place(group, field)])


@pytest.mark.parametrize("text", NOT_STORABLE)
@pytest.mark.parametrize(
    ("group", "field"), [("email", "primary_email"), ("newsletters", "source"), ("waitlists", "source")]
)
def test_addresses_and_urls_contain_only_storable_characters(api: ApiClient, group: str, field: str, text: str) -> None:
    value = f"a{text}b@example.com" if field == "primary_email" else f"https://example.com/{text}"

    assert_error(api.post("/ctms", with_value(group, field, value)), 422, at=[place(group, field)])


@pytest.mark.parametrize(("group", "field"), FLAGS)
class TestFlags:
    @pytest.mark.parametrize(("words", "meaning"), [(YES, True), (NO, False)])
    def test_many_words_mean_the_same(
        self, api: ApiClient, group: str, field: str, words: list[Any], meaning: bool
    ) -> None:
        for word in words:
            created = api.post("/ctms", with_value(group, field, word))
            assert created.status_code == 201, word
            assert stored_value(created.json, group, field) is meaning

    def test_anything_else_is_refused(self, api: ApiClient, group: str, field: str) -> None:
        values: list[Any] = ["", "maybe", 2, -1, 0.5, "1.0", None, [], {}, " true"]
        for value in values:
            assert_error(api.post("/ctms", with_value(group, field, value)), 422, at=[place(group, field)])


class TestChoices:
    @pytest.mark.parametrize("value", ["H", "T", "N", ""])
    def test_email_format(self, api: ApiClient, value: str) -> None:
        assert api.post("/ctms", minimal(email_format=value)).json["email"]["email_format"] == value

    @pytest.mark.parametrize(
        ("group", "field", "value"),
        [
            ("email", "email_format", "X"),
            ("email", "email_format", "h"),
            ("email", "email_format", None),
            ("newsletters", "format", "N"),
            ("newsletters", "format", ""),
            ("newsletters", "lang", "e"),
            ("newsletters", "lang", ""),
            ("newsletters", "name", None),
            ("waitlists", "name", ""),
            ("waitlists", "name", None),
        ],
    )
    def test_other_values_are_refused(self, api: ApiClient, group: str, field: str, value: Any) -> None:
        assert_error(api.post("/ctms", with_value(group, field, value)), 422, at=[place(group, field)])

    def test_the_limit_of_one_character_is_in_the_singular(self, api: ApiClient) -> None:
        refused = api.post("/ctms", with_value("waitlists", "name", ""))

        assert refused.json["detail"][0]["msg"] == "String should have at least 1 character"

    def test_a_newsletter_may_have_an_empty_name_and_no_language(self, api: ApiClient) -> None:
        created = api.post("/ctms", {**minimal(), "newsletters": [{"name": "", "lang": None}]})

        assert created.json["newsletters"][0].items() >= {"name": "", "lang": None}.items()


class TestUuids:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("email_id", "c6f9c8c0-0000-11ee-8000-000000000000"),
            ("email_id", "jane"),
            ("email_id", 17),
            ("basket_token", "jane"),
            ("basket_token", ""),
            ("basket_token", 17),
            ("basket_token", "0x00000000-0000-0000-0000-0000000000"),
            ("basket_token", "1_0000000000000000000000000000000"),
            ("basket_token", " 0000000000000000000000000000000"),
        ],
    )
    def test_invalid_values_are_refused(self, api: ApiClient, field: str, value: Any) -> None:
        assert_error(api.post("/ctms", minimal(**{field: value})), 422, at=[["body", "email", field]])

    def test_any_version_is_a_token_and_is_stored_in_one_form(self, api: ApiClient) -> None:
        created = api.post("/ctms", minimal(basket_token="C6F9C8C0000011EE8000000000000000"))

        assert created.json["email"]["basket_token"] == "c6f9c8c0-0000-11ee-8000-000000000000"


class TestDays:
    def test_a_date(self, api: ApiClient) -> None:
        created = api.post("/ctms", {**minimal(), "amo": {"last_login": "2020-02-29"}})

        assert created.json["amo"]["last_login"] == "2020-02-29"

    @pytest.mark.parametrize(
        "value", ["2021-02-29", "0000-01-01", "20200101", "2020-1-1", "today", 0, "", "٢٠٢٠-01-01"]
    )
    def test_invalid_values_are_refused(self, api: ApiClient, value: Any) -> None:
        assert_error(
            api.post("/ctms", {**minimal(), "amo": {"last_login": value}}), 422, at=[["body", "amo", "last_login"]]
        )


class TestSources:
    @pytest.mark.parametrize("group", ["newsletters", "waitlists"])
    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            ("http://Example.com", "http://example.com/"),
            ("https://example.com:443/a/../b", "https://example.com/b"),
            ("HTTPS://bücher.example/ä?ö#ü", "https://xn--bcher-kva.example/%C3%A4?%C3%B6#%C3%BC"),
            ("https://example.com/A b", "https://example.com/A%20b"),
            ("custom:Thing", "custom:Thing"),
        ],
    )
    def test_the_normal_form_is_stored(self, api: ApiClient, group: str, given: str, stored: str) -> None:
        created = api.post("/ctms", with_value(group, "source", given))

        assert created.json[group][0]["source"] == stored

    @pytest.mark.parametrize("group", ["newsletters", "waitlists"])
    @pytest.mark.parametrize("value", ["/path", "example.com", "", "http://", "http://a b/", 17, "http://[::1/"])
    def test_relative_urls_are_refused(self, api: ApiClient, group: str, value: Any) -> None:
        answer = api.post("/ctms", with_value(group, "source", value))

        (problem,) = assert_error(answer, 422, at=[["body", group, 0, "source"]])["detail"]
        if isinstance(value, str):
            assert problem["msg"] == "Input should be an absolute URL, as in https://example.com/"
            assert problem["type"] == "url_parsing"


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = sorted(
    {case[1] for case in TEXTS}
    | {case[1] for case in FLAGS}
    | {"source", "fields", "format", "last_login", "email_format"}
)


@given(
    contact=st.fixed_dictionaries(
        {},
        optional={
            name: JUNK
            | st.dictionaries(st.sampled_from(MEMBERS), JUNK, max_size=4)
            | st.lists(st.dictionaries(st.sampled_from(MEMBERS), JUNK, max_size=4), max_size=3)
            for name in ("email", "amo", "fxa", "mofo", "newsletters", "waitlists")
        },
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_is_stored_or_refused(api: ApiClient, contact: dict[str, Any]) -> None:
    body = minimal()
    created = api.post("/ctms", {**contact, **body})
    assert created.status_code in {201, 422}, created.text
    path = api.post("/ctms", minimal()).headers["Location"]
    assert api.patch(path, contact).status_code in {200, 422}
    json.loads(api.get(path).text)


@pytest.mark.parametrize("schema", [ContactSchema, ContactPatchSchema])
def test_every_text_of_a_contact_is_tested_here(schema: type[ContactSchema] | type[ContactPatchSchema]) -> None:
    """Ensure that the limits of a new member are tested."""
    known = {(group, field) for group, field, *_ in [*TEXTS, *FLAGS]}
    apart = {"primary_email", "email_format", "format", "source"}
    for name, group in schema().fields.items():
        inner = group.inner if isinstance(group, Subscriptions) else group
        assert isinstance(inner, SubDocument)
        for field_name, field in inner.schema.load_fields.items():
            if type(field) in {String, Boolean} and field_name not in apart:
                assert (name, field_name) in known


def test_a_message_that_a_validator_formats_keeps_its_type() -> None:
    too_long = ma.validate.Length(max=3, error=Message("At most {max} characters", "too_long"))

    with pytest.raises(ma.ValidationError) as failure:
        too_long("four")

    message: Any = failure.value.messages[0]
    assert (message, message.type) == ("At most 3 characters", "too_long")
