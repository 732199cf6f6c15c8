"""`/ctms/{email_id}/merge`: what it merges, refuses and leaves behind."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask

from ctms.database import pool
from ctms.suppression.fingerprints import fingerprints
from ctms.suppression.suppressions import suppress
from tests.api.test_history import create, events_of
from tests.contacts.factories import address, full, minimal
from tests.contacts.rows import execute, insert_contact
from tests.history.replay import replay, subscriptions
from tests.http import Answer, ApiClient, assert_error

EARLY, LATE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
UNKNOWN = str(uuid.uuid4())


def merge(api: ApiClient, target: str, source: str, **more: Any) -> Answer:
    """Merge a contact into another one, both given by their paths."""
    return api.post(f"{target}/merge", {"from": source.rpartition("/")[2], **more})


def merged(api: ApiClient, target: str, source: str) -> dict[str, Any]:
    """Merge, and return the result."""
    answer = merge(api, target, source)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def set_dates(path: str, created: datetime, updated: datetime) -> None:
    """Set the dates of the contact's newsletters."""
    execute(
        "UPDATE newsletters SET create_timestamp = :created, update_timestamp = :updated WHERE email_id = :id",
        created=created,
        updated=updated,
        id=path.rpartition("/")[2],
    )


class TestValues:
    def test_blanks_are_filled_and_the_target_wins(self, api: ApiClient) -> None:
        target = create(api, email={"primary_email": address(), "first_name": "Jane", "email_lang": "de"})
        body = full()
        body["email"] |= {"has_opted_out_of_email": False, "unsubscribe_reason": None, "double_opt_in": False}
        source = create(api, **body)

        result = merged(api, target, source)

        email = result["contact"]["email"]
        assert (email["first_name"], email["last_name"], email["email_lang"]) == ("Jane", "Doe", "de")
        assert email["basket_token"] == body["email"]["basket_token"]
        for part in ("amo", "fxa", "mofo"):
            assert result["contact"][part].items() >= body[part].items()
        assert {(one["part"], one["field"]) for one in result["filled"]} >= {("email", "sfdc_id"), ("fxa", "fxa_id")}
        assert result["conflicts"] == [
            {"part": "email", "field": "primary_email", "value": body["email"]["primary_email"]},
            {"part": "email", "field": "email_lang", "value": "fr"},
        ]

    def test_values_of_two_accounts_are_not_mixed(self, api: ApiClient) -> None:
        target = create(api, fxa={"fxa_id": f"one-{UNKNOWN}"})
        other = {"fxa_id": f"two-{UNKNOWN}", "primary_email": address(), "lang": "fr", "account_deleted": True}
        source = create(api, fxa=other)

        result = merged(api, target, source)

        account = result["contact"]["fxa"]
        assert (account["fxa_id"], account["lang"], account["account_deleted"]) == (f"one-{UNKNOWN}", None, False)
        assert account["primary_email"] == other["primary_email"], "it is an identity of the person"
        lost = {one["field"]: one["value"] for one in result["conflicts"] if one["part"] == "fxa"}
        assert lost == {"fxa_id": f"two-{UNKNOWN}", "lang": "fr", "account_deleted": True}

    def test_the_own_address_is_no_conflict_where_the_account_has_it(self, api: ApiClient) -> None:
        source_address = address()
        target = create(api, fxa={"primary_email": source_address.upper()})
        source = create(api, email={"primary_email": source_address})

        assert merged(api, target, source)["conflicts"] == []

    @pytest.mark.parametrize("spelling", ["INES@MÜNCHEN.example.com", "ines@xn--mnchen-3ya.example.com"])
    def test_a_confirmation_counts_for_the_same_address_only(self, api: ApiClient, spelling: str) -> None:
        target = f"/ctms/{insert_contact(primary_email=spelling)}"
        normal = "ines@münchen.example.com" if spelling.startswith("ines@xn") else "ines@xn--mnchen-3ya.example.com"
        same = f"/ctms/{insert_contact(primary_email=normal, double_opt_in=True)}"
        other = create(api, email={"primary_email": address(), "double_opt_in": True})

        assert merged(api, target, other)["contact"]["email"]["double_opt_in"] is False
        assert merged(api, target, same)["contact"]["email"]["double_opt_in"] is True

    def test_a_consent_of_a_sub_document_is_not_filled(self, api: ApiClient) -> None:
        target = create(api, amo={"username": "jane"})
        source = create(api, amo={"user_id": UNKNOWN, "email_opt_in": True})
        third = create(api)

        result = merged(api, target, source)

        assert result["contact"]["amo"]["user_id"] == UNKNOWN
        assert result["contact"]["amo"]["email_opt_in"] is False
        assert {"part": "amo", "field": "email_opt_in", "value": True} in result["conflicts"]
        assert merged(api, third, create(api, amo={"email_opt_in": True}))["contact"]["amo"]["email_opt_in"] is True

    def test_an_opt_out_stays_with_its_reason(self, api: ApiClient) -> None:
        out = {"has_opted_out_of_email": True, "unsubscribe_reason": "too many"}
        target = create(api, email={"primary_email": address(), "unsubscribe_reason": "old"})
        source = create(api, email={"primary_email": address(), **out})
        third = create(api)

        result = merged(api, target, source)

        assert result["contact"]["email"].items() >= out.items()
        assert merged(api, third, target)["contact"]["email"].items() >= out.items()
        assert [one["kind"] for one in events_of(api, third)] == ["global_opt_out"] * 3

    def test_a_sub_document_keeps_its_date(self, api: ApiClient) -> None:
        target, source = create(api), create(api, amo={"user_id": UNKNOWN})
        execute(
            "UPDATE amo SET create_timestamp = :early WHERE email_id = :id", early=EARLY, id=source.rpartition("/")[2]
        )

        contact = merged(api, target, source)["contact"]

        assert datetime.fromisoformat(contact["amo"]["create_timestamp"]) == EARLY
        assert contact["amo"]["update_timestamp"] == contact["email"]["update_timestamp"]


class TestSubscriptions:
    @pytest.mark.parametrize(
        ("own", "other", "state"),
        [
            ((True, EARLY), (False, LATE), False),
            ((False, EARLY), (True, LATE), True),
            ((True, LATE), (False, EARLY), True),
            ((False, LATE), (True, EARLY), False),
            ((True, LATE), (False, LATE), False),
            ((False, LATE), (True, LATE), False),
        ],
    )
    def test_the_latest_decision_counts(
        self, api: ApiClient, own: tuple[bool, datetime], other: tuple[bool, datetime], state: bool
    ) -> None:
        paths: list[str] = []
        for subscribed, updated in (own, other):
            reason = None if subscribed else f"reason of {len(paths)}"
            entry = {"name": "a", "subscribed": subscribed, "unsub_reason": reason, "lang": f"l{len(paths)}"}
            paths.append(create(api, newsletters=[entry]))
            set_dates(paths[-1], EARLY, updated)

        result = merged(api, paths[0], paths[1])

        (entry,) = result["contact"]["newsletters"]
        counting = 0 if own[0] == state else 1
        assert (entry["subscribed"], entry["lang"]) == (state, f"l{counting}")
        assert entry["unsub_reason"] == (None if state else f"reason of {counting}")
        decided_by = paths[counting].rpartition("/")[2]
        assert result["subscriptions"] == [
            {"part": "newsletters", "name": "a", "decided_by": decided_by, "subscribed": state}
        ]
        history = events_of(api, paths[0])
        assert replay(history) == {paths[0].rpartition("/")[2]: subscriptions(result["contact"])}

    def test_times_of_decisions_survive_for_the_next_merge(self, api: ApiClient) -> None:
        first, second, third = (create(api, newsletters=[{"name": "a", "subscribed": s}]) for s in (False, True, False))
        for path, updated in ((first, EARLY), (second, EARLY.replace(month=2)), (third, LATE)):
            set_dates(path, EARLY, updated)

        assert merged(api, first, second)["contact"]["newsletters"][0]["subscribed"] is True
        assert merged(api, first, third)["contact"]["newsletters"][0]["subscribed"] is False

    def test_the_fields_of_a_waitlist_are_those_of_the_decision(self, api: ApiClient) -> None:
        target, source = (create(api, waitlists=[{"name": "w", "fields": {"n": n}}]) for n in (1, 2))

        assert merged(api, target, source)["contact"]["waitlists"][0]["fields"] == {"n": 2}

    def test_a_consent_date_is_the_first_of_the_same_state(self, api: ApiClient) -> None:
        target, source = create(api, newsletters=[{"name": "a"}]), create(api, newsletters=[{"name": "a"}])
        set_dates(target, LATE, LATE)
        set_dates(source, EARLY, EARLY)

        (entry,) = merged(api, target, source)["contact"]["newsletters"]

        assert datetime.fromisoformat(entry["create_timestamp"]) == EARLY
        assert datetime.fromisoformat(entry["update_timestamp"]) == LATE

    def test_many_entries(self, api: ApiClient) -> None:
        names = [f"n{number}" for number in range(250)]
        target = create(api, newsletters=[{"name": name} for name in names[:200]])
        source = create(api, newsletters=[{"name": name, "subscribed": False} for name in names[50:]])

        contact = merged(api, target, source)["contact"]

        assert {one["name"]: one["subscribed"] for one in contact["newsletters"]} == {
            name: number < 50 for number, name in enumerate(names)
        }
        history = events_of(api, target)
        assert replay(history) == {target.rpartition("/")[2]: subscriptions(contact)}


class TestHistory:
    def test_it_moves_and_names_the_contact_that_it_happened_to(self, api: ApiClient) -> None:
        target, source = create(api, newsletters=[{"name": "a"}]), create(api, waitlists=[{"name": "b"}])
        (before,) = events_of(api, source)

        merged(api, target, source)

        _, moved, merging = events_of(api, target)
        source_id, target_id = source.rpartition("/")[2], target.rpartition("/")[2]
        assert moved == {**before, "email_id": target_id, "merged_from": source_id}
        assert (merging["action"], merging["subscribed"], merging["merged_from"]) == ("changed", True, None)
        assert merging["actor"] == "client:id_test"
        assert merging["evidence"]["merged_from"] == source_id
        assert merging["evidence"]["target"] is None
        assert merging["evidence"]["source"].keys() == {"subscribed", "create_timestamp", "update_timestamp"}

    def test_a_later_removal_of_the_source_does_not_end_a_subscription_of_the_target(self, api: ApiClient) -> None:
        target, source = (create(api, newsletters=[{"name": "a"}]) for _ in range(2))
        email = api.get(source).json["email"]
        assert api.put(source, {"email": email}).status_code == 201

        contact = merged(api, target, source)["contact"]

        history = events_of(api, target)
        assert replay(history) == {target.rpartition("/")[2]: subscriptions(contact)}
        assert [one["subscribed"] for one in history] == [True, True, None, True]

    def test_a_source_that_opted_in_again_does_not_end_an_opt_out_of_the_target(self, api: ApiClient) -> None:
        target = create(api, email={"primary_email": address(), "has_opted_out_of_email": True})
        source = create(api, email={"primary_email": address(), "has_opted_out_of_email": True})
        api.patch(source, {"email": {"has_opted_out_of_email": False}})

        contact = merged(api, target, source)["contact"]

        assert contact["email"]["has_opted_out_of_email"] is True
        last = events_of(api, target)[-1]
        assert (last["kind"], last["action"], last["subscribed"]) == ("global_opt_out", "changed", False)

    def test_it_goes_with_the_merged_contact(self, api: ApiClient) -> None:
        target, source = create(api, newsletters=[{"name": "a"}]), create(api, newsletters=[{"name": "b"}])
        contact = merged(api, target, source)["contact"]

        api.delete(f"/ctms/{contact['email']['primary_email']}")

        ids = [path.rpartition("/")[2] for path in (target, source)]
        assert execute("SELECT count(*) FROM subscription_events WHERE email_id::text = ANY(:ids)", ids=ids) == 0
        assert_error(api.get(source), 404, "Unknown email_id")


class TestRefused:
    def test_into_itself(self, api: ApiClient) -> None:
        path = create(api)

        answer = merge(api, path, path)

        assert (answer.status_code, answer.json["detail"][0]["loc"]) == (422, ["body", "from"])

    def test_unknown_contacts(self, api: ApiClient) -> None:
        path = create(api)

        assert merge(api, path, UNKNOWN).json == {"detail": "Unknown email_id", "field": "from"}
        assert merge(api, f"/ctms/{UNKNOWN}", path).json == {"detail": "Unknown email_id"}

    @pytest.mark.parametrize("body", [{}, {"from": "1"}, {"from": UNKNOWN, "dryrun": True}, {"from": None}, []])
    def test_a_bad_body(self, api: ApiClient, body: Any) -> None:
        assert api.post(f"{create(api)}/merge", body).status_code == 422

    def test_only_in_the_state_that_if_match_names(self, api: ApiClient) -> None:
        target, source = create(api), create(api)
        tag = api.get(target).headers["ETag"]
        api.patch(target, {"email": {"first_name": "Jane"}})
        body = {"from": source.rpartition("/")[2]}

        assert api.post(f"{target}/merge", body, headers={"If-Match": tag}).status_code == 412
        assert api.get(source).status_code == 200
        tag = api.get(target).headers["ETag"]
        assert api.post(f"{target}/merge", body, headers={"If-Match": tag}).status_code == 200

    @pytest.mark.usefixtures("erasure_key")
    def test_a_suppressed_address_does_not_move(self, app: Flask, api: ApiClient) -> None:
        suppressed = address()
        target, source = create(api), create(api, fxa={"primary_email": suppressed})
        has_one = create(api, fxa={"primary_email": address()})
        with app.app_context(), pool.writing() as connection:
            suppress(connection, [fingerprints().of(suppressed) or b""], "test")

        assert_error(merge(api, target, source), 403, "Address is suppressed")
        assert api.get(source).status_code == 200
        assert merge(api, has_one, source).status_code == 200, "the address does not move"

    def test_without_the_permission_nothing_is_merged(
        self, api: ApiClient, make_client: Callable[..., ApiClient]
    ) -> None:
        target, source = create(api), create(api)
        editor = make_client("view_contacts", "manage_contacts", "delete_contacts")

        assert_error(merge(editor, target, source), 403, "Permission(s) required: merge_contacts")
        assert merge(make_client("merge_contacts"), target, source).status_code == 200

    def test_minimal_contacts(self, api: ApiClient) -> None:
        result = merged(api, create(api, **minimal()), create(api))

        assert (result["filled"], result["subscriptions"], len(result["conflicts"])) == ([], [], 1)
