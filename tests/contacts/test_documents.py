"""The rendering of contacts: waitlists of old clients, invalid stored values, times, order."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import pytest

from ctms.clients.access import with_caller
from ctms.contacts import queries
from ctms.contacts.stored_documents import STORE_WRITTEN
from tests.contacts.factories import full, minimal
from tests.contacts.rows import execute, insert, insert_contact
from tests.http import ApiClient, assert_error

ODD_FIELDS = [
    '{"geo": "\\u0000"}',
    '{"\\u0000": 1, "geo": "fr"}',
    '{"geo": "\\ud83d"}',
    '{"geo": "\\ude00"}',
    '{"geo": "\\ude00\\ud83d"}',
    '["geo", "fr"]',
    '"geo"',
    "17",
    "null",
    '{"geo": ["fr"], "platform": {"os": 1}}',
    '{"geo": 7}',
]


def waitlists_of(api: ApiClient, *waitlists: dict[str, Any]) -> Any:
    created = api.post("/ctms", {**minimal(), "waitlists": list(waitlists)})
    assert created.status_code == 201, created.text
    return created.json


class TestOldWaitlists:
    def test_vpn_is_the_subscribed_waitlist_vpn(self, api: ApiClient) -> None:
        vpn = {"name": "vpn", "fields": {"geo": "fr", "platform": "ios,mac"}}

        assert waitlists_of(api, vpn)["vpn_waitlist"] == {"geo": "fr", "platform": "ios,mac"}
        assert waitlists_of(api, {**vpn, "subscribed": False})["vpn_waitlist"] == {"geo": None, "platform": None}
        assert waitlists_of(api, {"name": "vpn"})["vpn_waitlist"] == {"geo": None, "platform": None}
        assert waitlists_of(api, {**vpn, "name": "vpn2"})["vpn_waitlist"] == {"geo": None, "platform": None}

    def test_relay_is_the_first_geo_in_the_order_of_names(self, api: ApiClient) -> None:
        found = waitlists_of(
            api,
            {"name": "relay-z", "fields": {"geo": "zz"}},
            {"name": "relay-b", "fields": {"geo": "bb"}},
            {"name": "relay", "fields": {}},
            {"name": "relay-a", "fields": {"geo": "aa"}, "subscribed": False},
            {"name": "a-relay", "fields": {"geo": "no"}},
        )

        assert found["relay_waitlist"] == {"geo": "bb"}

    def test_without_a_geo_relay_is_empty(self, api: ApiClient) -> None:
        found = waitlists_of(api, {"name": "relay", "fields": {"geo": None}}, {"name": "relay-b", "fields": {"x": 1}})

        assert found["relay_waitlist"] == {"geo": None}

    def test_geo_is_shown_whatever_its_letters(self, api: ApiClient) -> None:
        geo = '"quoted" \\u0000 \\ 😀 \u2028'

        found = waitlists_of(api, {"name": "vpn", "fields": {"geo": geo}}, {"name": "relay", "fields": {"geo": geo}})

        assert found["vpn_waitlist"]["geo"] == found["relay_waitlist"]["geo"] == geo


class TestOrderAndTimes:
    @pytest.mark.parametrize("name", ["newsletters", "waitlists"])
    def test_lists_are_sorted_by_name_and_not_by_language(self, api: ApiClient, name: str) -> None:
        names = ["b", "B", "a-1", "a1", "Z", "é", "_x", "😀"]

        created = api.post("/ctms", {**minimal(), name: [{"name": entry} for entry in names]}).json

        assert [entry["name"] for entry in created[name]] == sorted(names)

    def test_times_are_iso_8601_in_utc_with_six_decimals(self, api: ApiClient) -> None:
        email_id = insert_contact(create_timestamp="2021-02-03 04:05:06+02", update_timestamp="2021-02-03 04:05:06.07Z")
        insert("amo", email_id=email_id, user=True, last_login="2021-02-03")

        contact = api.get(f"/ctms/{email_id}").json

        assert contact["email"]["create_timestamp"] == "2021-02-03T02:05:06.000000+00:00"
        assert contact["email"]["update_timestamp"] == "2021-02-03T04:05:06.070000+00:00"
        assert contact["amo"]["last_login"] == "2021-02-03"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", contact["amo"]["create_timestamp"])


class TestOddStoredValues:
    """Values that the API refuses but other programs stored are returned unchanged and cause no error."""

    @pytest.fixture(params=["token", "nulls", "address", "url", "fxa", *ODD_FIELDS])
    def odd(self, request: pytest.FixtureRequest) -> str:
        email_id = insert_contact(first_name="Odd", update_timestamp="2021-01-01T00:00:00Z")
        change = {
            "token": "UPDATE emails SET basket_token = 'no-uuid' WHERE email_id = :id",
            "nulls": "UPDATE emails SET double_opt_in = NULL, has_opted_out_of_email = NULL, email_format = NULL"
            " WHERE email_id = :id",
            "address": "UPDATE emails SET primary_email = 'Jane, at home' WHERE email_id = :id",
            "url": "INSERT INTO newsletters (email_id, name, source, format, lang) VALUES (:id, '', 'here', 'X', 'x')",
            "fxa": "INSERT INTO fxa (email_id, fxa_id, primary_email) VALUES (:id, repeat('f', 200), 'nobody')",
        }.get(request.param)
        if change:
            execute(change, id=email_id)
        else:
            for name in ("vpn", "relay", "relay-b", "other"):
                insert("waitlists", email_id=email_id, name=name, subscribed=True, fields=request.param)
        return email_id

    def test_it_is_readable_as_one_or_in_a_list(self, api: ApiClient, odd: str) -> None:
        before = insert_contact(first_name="Odd", update_timestamp="2020-12-31T23:59:59Z")
        after = insert_contact(first_name="Odd", update_timestamp="2021-01-01T00:00:01Z")

        alone = api.get(f"/ctms/{odd}")
        page = api.get("/updates", query_string={"start": "2020-12-31T00:00:00Z", "end": "2021-01-02T00:00:00Z"})

        assert alone.status_code == page.status_code == 200
        ids = [contact["email"]["email_id"] for contact in page.json["items"]]
        assert ids == [before, odd, after]
        assert page.json["items"][1] == {key: value for key, value in alone.json.items() if key != "status"}
        assert api.get("/ctms", query_string={"email_id": odd}).json == [page.json["items"][1]]
        assert api.get(f"/identity/{odd}").status_code == 200

    def test_stored_nulls_are_read_as_defaults(self, api: ApiClient) -> None:
        email_id = api.post("/ctms", {**minimal(), "newsletters": [{"name": "weekly"}]}).json["email"]["email_id"]
        before = api.get(f"/ctms/{email_id}").json
        execute("UPDATE emails SET email_format = NULL, double_opt_in = NULL WHERE email_id = :id", id=email_id)
        execute("UPDATE newsletters SET format = NULL, subscribed = NULL WHERE email_id = :id", id=email_id)

        read = api.get(f"/ctms/{email_id}").json

        assert read == before
        assert api.put(f"/ctms/{email_id}", read).status_code == 201

    def test_it_is_changeable_replaceable_and_deletable(self, api: ApiClient, odd: str) -> None:
        changed = api.patch(
            f"/ctms/{odd}",
            {
                "email": {"first_name": "Even"},
                "amo": {"user": True},
                "newsletters": "UNSUBSCRIBE",
                "waitlists": "UNSUBSCRIBE",
            },
        )
        assert changed.status_code == 200
        assert changed.json["email"]["first_name"] == "Even"
        same = api.put(f"/ctms/{odd}", minimal(email_id=odd, primary_email=changed.json["email"]["primary_email"]))
        assert same.status_code == 201
        assert api.delete(f"/ctms/{same.json['email']['primary_email']}").status_code == 200

    def test_a_null_boolean_reads_as_its_default(self, api: ApiClient) -> None:
        email_id = insert_contact(double_opt_in=None, has_opted_out_of_email=None)
        insert("amo", email_id=email_id, user=None, email_opt_in=None)
        insert("fxa", email_id=email_id, account_deleted=None)
        insert("mofo", email_id=email_id, mofo_relevant=None)
        insert("newsletters", email_id=email_id, name="n", subscribed=None)

        contact = api.get(f"/ctms/{email_id}").json

        assert contact["email"]["double_opt_in"] is contact["email"]["has_opted_out_of_email"] is False
        assert contact["amo"]["user"] is contact["amo"]["email_opt_in"] is False
        assert contact["fxa"]["account_deleted"] is contact["mofo"]["mofo_relevant"] is False
        assert contact["newsletters"][0]["subscribed"] is True

    def test_a_null_boolean_is_irrelevant_to_the_foundation(self, api: ApiClient) -> None:
        email_id = insert_contact(update_timestamp="2021-01-01T00:00:00Z")
        insert("mofo", email_id=email_id, mofo_relevant=None, mofo_contact_id="c")
        query = {"start": "2021-01-01T00:00:00Z", "end": "2021-01-01T00:00:01Z"}

        assert api.get("/updates", query_string={**query, "mofo_relevant": "true"}).json["items"] == []
        assert len(api.get("/updates", query_string={**query, "mofo_relevant": "false"}).json["items"]) == 1

    @pytest.mark.parametrize("fields", ODD_FIELDS)
    def test_fields_are_shown_as_they_are_stored(self, api: ApiClient, fields: str) -> None:
        email_id = insert_contact()
        insert("waitlists", email_id=email_id, name="vpn", subscribed=True, fields=fields)

        assert api.get(f"/ctms/{email_id}").json["waitlists"][0]["fields"] == json.loads(fields)

    def test_the_same_contact_is_recognised_beside_odd_values(self, api: ApiClient) -> None:
        contact = full()
        api.post("/ctms", contact)
        execute("UPDATE emails SET basket_token = 'odd' WHERE email_id = :id", id=contact["email"]["email_id"])

        assert_error(api.post("/ctms", contact), 409, "Contact already exists")


def test_the_most_frequent_statements_are_converted_once() -> None:
    """Longer ones would be converted at each request (`compact`)."""
    address = {"primary_email": "somebody@example.com"}
    reads = (
        queries.document(uuid4()),
        queries.documents(address),
        queries.stored_document(uuid4()),
        queries.stored_documents(address),
    )

    for sql in (*(with_caller(query.sql) for query in reads), queries.document(uuid4()).sql, STORE_WRITTEN):
        assert len(sql) <= 4096
