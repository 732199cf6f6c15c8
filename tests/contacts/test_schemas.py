"""Contacts as a whole: required members, names, waitlists' rules, limits, and no repeated values."""

from __future__ import annotations

from typing import Any

import pytest

from ctms.contacts.fields import MAX_DEPTH, MAX_ENTRIES
from tests.contacts.factories import full, minimal
from tests.http import ApiClient, assert_error


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


class TestRequired:
    @pytest.mark.parametrize(
        ("contact", "at"),
        [
            ({}, ["body", "email"]),
            ({"email": None}, ["body", "email"]),
            ({"email": []}, ["body", "email"]),
            ({"email": {}}, ["body", "email", "primary_email"]),
            ({"email": {"primary_email": None}}, ["body", "email", "primary_email"]),
            ([], ["body"]),
            ("jane", ["body"]),
            (17, ["body"]),
        ],
    )
    def test_a_contact_has_an_address(self, api: ApiClient, contact: Any, at: list[str | int]) -> None:
        assert_error(api.post("/ctms", contact), 422, at=[at])

    @pytest.mark.parametrize("group", ["newsletters", "waitlists"])
    @pytest.mark.parametrize("method", ["post", "put", "patch"])
    def test_an_entry_has_a_name(self, api: ApiClient, group: str, method: str) -> None:
        contact = full()
        path = api.post("/ctms", contact).headers["Location"]
        body = {**contact, group: [{"name": "a"}, {}, {"name": "b"}]}

        refused = api.request(method.upper(), "/ctms" if method == "post" else path, json=body)

        assert assert_error(refused, 422, at=[["body", group, 1, "name"]])["detail"][0]["type"] == "missing"

    @pytest.mark.parametrize("group", ["newsletters", "waitlists"])
    @pytest.mark.parametrize("entry", [None, "hubs", 1, []])
    def test_an_entry_is_an_object(self, api: ApiClient, group: str, entry: Any) -> None:
        assert_error(api.post("/ctms", {**minimal(), group: [entry]}), 422, at=[["body", group, 0]])

    def test_all_problems_are_reported_at_once(self, api: ApiClient) -> None:
        contact = {"email": {"email_lang": "x" * 6}, "amo": {"user": "perhaps"}, "newsletters": [{"lang": 7}]}

        assert_error(
            api.post("/ctms", contact),
            422,
            at=[
                ["body", "email", "primary_email"],
                ["body", "email", "email_lang"],
                ["body", "amo", "user"],
                ["body", "newsletters", 0, "name"],
                ["body", "newsletters", 0, "lang"],
            ],
        )


class TestNames:
    @pytest.mark.parametrize("group", ["newsletters", "waitlists"])
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
    def test_names_are_unique(self, api: ApiClient, group: str, method: str) -> None:
        contact = full()
        created = api.post("/ctms", contact)
        body = {**contact, group: [{"name": "a"}, {"name": "b"}, {"name": "a", "subscribed": False}]}

        refused = api.request(method, "/ctms" if method == "POST" else created.headers["Location"], json=body)

        assert_error(refused, 422, at=[["body", group, 2, "name"]])
        assert api.get(created.headers["Location"]).json == created.json

    @pytest.mark.parametrize("group", ["newsletters", "waitlists"])
    def test_names_differ_by_case(self, api: ApiClient, group: str) -> None:
        created = api.post("/ctms", {**minimal(), group: [{"name": "a"}, {"name": "A"}]})

        assert [entry["name"] for entry in created.json[group]] == ["A", "a"]


class TestWaitlistRules:
    @pytest.mark.parametrize(
        ("name", "fields"),
        [
            ("relay", {}),
            ("relay", {"geo": "fr"}),
            ("relay", {"geo": None}),
            ("vpn", {"geo": "fr", "platform": "ios"}),
            ("vpn", {"platform": None}),
            ("relay-phone", {"geo": "fr", "anything": [1]}),
            ("other", {"": {"deep": [1, 2.5, None, True, "x"]}, "geo": "x" * 100}),
        ],
    )
    def test_taken(self, api: ApiClient, name: str, fields: dict[str, Any]) -> None:
        created = api.post("/ctms", {**minimal(), "waitlists": [{"name": name, "fields": fields}]})

        assert created.status_code == 201, created.text
        assert created.json["waitlists"][0]["fields"] == fields

    @pytest.mark.parametrize("method", ["POST", "PATCH"])
    @pytest.mark.parametrize(
        ("name", "fields", "field"),
        [
            ("relay", {"geo": "fr", "platform": "ios"}, "platform"),
            ("relay", {"geo": "x" * 101}, "geo"),
            ("relay", {"geo": 7}, "geo"),
            ("vpn", {"geo": "fr", "colour": "red"}, "colour"),
            ("vpn", {"platform": "x" * 101}, "platform"),
            ("vpn", {"platform": ["ios"]}, "platform"),
            ("other", {"geo": "x" * 101}, "geo"),
            ("other", {"platform": {}}, "platform"),
        ],
    )
    def test_refused(self, api: ApiClient, method: str, name: str, fields: dict[str, Any], field: str) -> None:
        path = api.post("/ctms", minimal()).headers["Location"]
        body = {"waitlists": [{"name": name, "fields": fields}]}

        refused = api.patch(path, body) if method == "PATCH" else api.post("/ctms", {**minimal(), **body})

        assert_error(refused, 422, at=[["body", "waitlists", 0, "fields", field]])

    @pytest.mark.parametrize("fields", [None, [], "x", 7, True])
    def test_fields_are_an_object(self, api: ApiClient, fields: Any) -> None:
        contact = {**minimal(), "waitlists": [{"name": "w", "fields": fields}]}

        assert_error(api.post("/ctms", contact), 422, at=[["body", "waitlists", 0, "fields"]])

    @pytest.mark.parametrize("fields", [{"a": "\0"}, {"a\0": 1}, {"a": [{"b": "\ud800"}]}, {"a": {"\udc00": 1}}])
    def test_fields_contain_only_values_that_postgresql_can_parse(self, api: ApiClient, fields: Any) -> None:
        contact = {**minimal(), "waitlists": [{"name": "w", "fields": fields}]}

        assert_error(api.post("/ctms", contact), 422, at=[["body", "waitlists", 0, "fields"]])

    def test_fields_nest_up_to_a_limit(self, api: ApiClient) -> None:
        def answer(levels: int) -> int:
            contact = {**minimal(), "waitlists": [{"name": "w", "fields": nested(levels)}]}
            return api.post("/ctms", contact).status_code

        assert answer(MAX_DEPTH) == 201
        assert answer(MAX_DEPTH + 1) == 422

    def test_numbers_in_fields_come_back_as_they_were_or_are_refused(self, api: ApiClient) -> None:
        fields = {"big": 10**400, "small": -1.5e-300, "zero": 0, "float": 1.0}

        created = api.post("/ctms", {**minimal(), "waitlists": [{"name": "w", "fields": fields}]})

        assert created.json["waitlists"][0]["fields"] == fields
        huge = '{"email": {"primary_email": "huge@example.com"}, "waitlists": [{"name": "w", "fields": {"n": 1e999}}]}'
        refused = api.request("POST", "/ctms", data=huge, content_type="application/json")
        assert_error(refused, 422, at=[["body", "waitlists", 0, "fields"]])


class TestLimits:
    @pytest.mark.parametrize("group", ["newsletters", "waitlists"])
    def test_a_list_has_a_limit(self, api: ApiClient, group: str) -> None:
        def send(entries: int) -> Any:
            return api.post("/ctms", {**minimal(), group: [{"name": f"n{number}"} for number in range(entries)]})

        assert len(send(MAX_ENTRIES).json[group]) == MAX_ENTRIES
        assert_error(send(MAX_ENTRIES + 1), 422, at=[["body", group]])

    def test_as_many_changes_at_once(self, api: ApiClient) -> None:
        created = api.post("/ctms", minimal())
        entries = [{"name": f"n{number:04}"} for number in range(MAX_ENTRIES)]

        changed = api.patch(created.headers["Location"], {"newsletters": entries})

        assert [entry["name"] for entry in changed.json["newsletters"]] == [entry["name"] for entry in entries]


class TestNoEcho:
    SECRET = "Jane.Private"

    @pytest.mark.parametrize(
        "contact",
        [
            {"email": {"primary_email": f"{SECRET}@"}},
            {"email": {"primary_email": "a@example.com", "email_id": SECRET, "basket_token": SECRET}},
            {"email": {"primary_email": "a@example.com", "email_lang": SECRET, "email_format": SECRET}},
            {"email": {"primary_email": "a@example.com", "double_opt_in": SECRET}},
            {"email": SECRET, "amo": SECRET, "newsletters": SECRET, "waitlists": [SECRET]},
            {"email": {"primary_email": "a@example.com"}, "amo": {"last_login": SECRET, "language": SECRET}},
            {"email": {"primary_email": "a@example.com"}, "newsletters": [{"name": SECRET}, {"name": SECRET}]},
            {"email": {"primary_email": "a@example.com"}, "newsletters": [{"name": "n", "source": SECRET}]},
            {"email": {"primary_email": "a@example.com"}, "waitlists": [{"name": "w", "fields": SECRET}]},
            {"email": {"primary_email": "a@example.com"}, "waitlists": [{"name": "vpn", "fields": {"geo": [SECRET]}}]},
            SECRET,
            [SECRET],
        ],
    )
    def test_errors_do_not_repeat_values(self, api: ApiClient, contact: Any) -> None:
        refused = api.post("/ctms", contact)

        assert_error(refused, 422)
        assert self.SECRET not in refused.text

    @pytest.mark.parametrize("path", [f"/ctms/{SECRET}", f"/identity/{SECRET}", f"/ctms?email_id={SECRET}"])
    def test_nor_do_paths_and_queries(self, api: ApiClient, path: str) -> None:
        refused = api.get(path)

        assert_error(refused, 422)
        assert self.SECRET not in refused.text

    def test_bodies_without_json_are_not_repeated(self, api: ApiClient) -> None:
        body = f'{{"email": "{self.SECRET}'

        refused = api.request("POST", "/ctms", data=body, content_type="application/json")

        assert_error(refused, 422)
        assert self.SECRET not in refused.text
