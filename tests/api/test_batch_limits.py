"""`POST /ctms/batch`: its limits, `atomic`, and the number of statements."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.api.batching import by_address, by_id, create, problem, results, send, statuses
from tests.contacts.factories import address, full, minimal
from tests.http import ApiClient, assert_error


class TestLimits:
    def test_an_invalid_item_names_its_place_and_disturbs_no_other(self, api: ApiClient) -> None:
        found = results(
            api,
            by_address(address()),
            "no object",
            None,
            {},
            {"match": {}, "contact": {}},
            {"match": {"primary_email": address(), "fxa_id": "x"}, "contact": {}},
            by_address(address(), mode="replace"),
            by_address(address(), []),
            by_address(address(), ifmatch="*"),
            {"match": {"email_id": "x"}, "contact": {}},
            {"match": {"shoe_size": "x"}, "contact": {}},
            by_address(address(), {"email": {"first_name": 1}}),
            by_address("jane"),
            by_address(address(), {"newsletters": [{"name": "a"}, {"name": "a"}]}),
            by_address(f"{'x' * 300}@example.com"),
            {"match": {"fxa_id": "x" * 51}, "contact": minimal()},
        )

        assert [one["status"] for one in found] == ["created"] + ["invalid"] * 15
        assert all(error["loc"][:3] == ["body", "items", one["index"]] for one in found for error in one["errors"])
        assert [problem(found[index])[0] for index in (1, 5, 8, 11, 12, 13, 15)] == [
            [],
            ["match"],
            ["ifmatch"],
            ["contact", "email", "first_name"],
            ["match", "primary_email"],
            ["contact", "newsletters", 1, "name"],
            ["match", "fxa_id"],
        ]

    def test_the_number_of_items(self, api: ApiClient) -> None:
        item = by_address(address(), mode="update")

        assert_error(send(api), 422, at=[["body", "items"]])
        assert_error(send(api, *[item] * 1001), 422, at=[["body", "items"]])
        assert statuses(api, *[item] * 1000) == ["not_found"] * 1000

    @pytest.mark.parametrize("body", [{}, {"items": {}}, {"items": None}, [], {"items": [{}], "atomic": True}])
    def test_a_body_that_is_no_batch(self, api: ApiClient, body: Any) -> None:
        assert_error(api.post("/ctms/batch", body), 422)

    def test_the_body_may_be_larger_than_that_of_a_contact(self, api: ApiClient) -> None:
        item = by_address(address(), {"email": {"unsubscribe_reason": "x" * 500_000}}, mode="update")

        assert statuses(api, *[item] * 4) == ["not_found"] * 4
        assert_error(send(api, *[item] * 22), 413)
        assert_error(api.post("/ctms", {"email": {"primary_email": address(), "first_name": "x" * 2_000_000}}), 413)

    @pytest.mark.parametrize("levels", range(900, 1000, 9))
    def test_nested_bodies(self, api: ApiClient, levels: int) -> None:
        item = f'{{"match": {{"sfdc_id": "x"}}, "mode": "update", "contact": {{"x": {"[" * levels}{"]" * levels}}}}}'
        headers = {"Idempotency-Key": "key"}

        answer = api.post(
            "/ctms/batch", data=f'{{"items": [{item}]}}', content_type="application/json", headers=headers
        )

        assert answer.status_code in {207, 422}

    def test_it_needs_the_permission(self, make_client: Any) -> None:
        assert_error(send(make_client("view_contacts"), by_address(address())), 403)

    def test_no_error_repeats_a_value(self, api: ApiClient) -> None:
        found = results(
            api, by_address("secret value"), by_address(address(), {"email": {"email_lang": "secret value"}})
        )

        assert "secret" not in json.dumps(found)


class TestAtomic:
    def test_it_stores_all(self, api: ApiClient) -> None:
        assert statuses(api, by_address(address()), by_address(address()), atomic=True) == ["created"] * 2

    @pytest.mark.parametrize("bad", ["invalid", "conflict", "not_found"])
    def test_it_stores_nothing_if_an_item_fails(self, api: ApiClient, bad: str) -> None:
        wanted, stored = address(), create(api)["email"]
        item = {
            "invalid": by_address("no address"),
            "conflict": {"mode": "create", "contact": minimal(primary_email=stored["primary_email"])},
            "not_found": by_address(address(), mode="update"),
        }[bad]

        answer = send(api, by_address(wanted), item, by_address(address()), atomic=True)

        body = assert_error(answer, 409, "Nothing was stored: 1 item cannot be stored")
        assert [(one["index"], one["status"]) for one in body["items"]] == [(1, bad)]
        assert api.get(f"/ctms?primary_email={wanted}").json == []


def test_the_number_of_statements_does_not_depend_on_the_number_of_items(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    execute_really = psycopg.Connection.execute

    def note(connection: Any, query: Any, *arguments: Any, **words: Any) -> Any:
        sent.append(query)
        return execute_really(connection, query, *arguments, **words)

    bad = address()

    def count_for(number: int) -> int:
        new = [by_address(address(), {**full(), "email": {}}) for _ in range(number)]
        stored = [
            by_id(create(api)["email"]["email_id"], {"amo": {"user": False}, "fxa": "DELETE"}) for _ in range(number)
        ]
        refused = [by_address(bad, mode="update"), by_address("x")] * number
        sent.clear()
        found = statuses(api, *new, *stored, *refused)
        assert found == ["created"] * number + ["updated"] * number + ["not_found", "invalid"] * number
        return len(sent)

    monkeypatch.setattr(psycopg.Connection, "execute", note)

    assert count_for(2) == count_for(20) < 40
