"""`POST /ctms/batch`: what each item does."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from flask import Flask

from ctms.contacts.newsletter_rules import NewsletterRegistry
from ctms.database import pool
from ctms.hooks.plugin import Plugin, Registered
from ctms.plugins import Newsletter
from ctms.suppression.fingerprints import fingerprints
from ctms.suppression.suppressions import suppress
from tests.api.batching import by_address, by_id, create, problem, read, results, statuses
from tests.api.test_history import events_of
from tests.contacts.factories import address, full, minimal
from tests.contacts.rows import LONG_AGO, count, execute, insert_contact, set_back
from tests.http import ApiClient, assert_error


class TestCreate:
    def test_a_new_contact_has_the_defaults_of_post(self, api: ApiClient) -> None:
        contact = full()

        [result] = results(api, {"mode": "create", "contact": contact})

        assert result["status"] == "created"
        assert result["email_id"] == contact["email"]["email_id"]
        assert api.post("/ctms", contact).status_code == 200, "it is the same as by POST"

    def test_the_matched_identity_is_that_of_the_new_contact(self, api: ApiClient) -> None:
        wanted = address()

        [result] = results(api, {"match": {"fxa_id": wanted}, "mode": "create", "contact": minimal()})

        assert read(api, result["email_id"])["fxa"]["fxa_id"] == wanted

    def test_the_same_contact_again_is_unchanged(self, api: ApiClient) -> None:
        contact = full()
        email_id = create(api, contact)["email"]["email_id"]
        del contact["email"]["email_id"]

        [result] = results(api, {"mode": "create", "contact": contact})

        assert (result["status"], result["email_id"]) == ("unchanged", email_id)

    def test_another_contact_with_the_address_is_a_conflict(self, api: ApiClient) -> None:
        stored = create(api)["email"]

        [result] = results(api, {"mode": "create", "contact": minimal(primary_email=stored["primary_email"].upper())})

        assert result["status"] == "conflict"
        assert result["email_ids"] == [stored["email_id"]]
        assert problem(result) == (["contact", "email", "primary_email"], "taken")


class TestUpdate:
    def test_only_what_is_given_changes(self, api: ApiClient) -> None:
        before = create(api)
        change = {
            "email": {"first_name": None},
            "amo": {"user": False},
            "fxa": "DELETE",
            "newsletters": [{"name": "new"}, {"name": "never", "subscribed": False}],
            "waitlists": "UNSUBSCRIBE",
        }

        assert statuses(api, by_id(before["email"]["email_id"], change, mode="update")) == ["updated"]

        after = read(api, before["email"]["email_id"])
        assert after["email"]["first_name"] is None
        assert after["email"]["last_name"] == before["email"]["last_name"]
        assert after["amo"] == {**before["amo"], "user": False, "update_timestamp": after["amo"]["update_timestamp"]}
        assert not any(after["fxa"].values())
        assert {one["name"] for one in after["newsletters"]} == {one["name"] for one in before["newsletters"]} | {"new"}
        assert not any(one["subscribed"] for one in after["waitlists"])

    def test_all_rows_of_a_change_have_one_time(self, api: ApiClient) -> None:
        email_id = create(api)["email"]["email_id"]
        set_back(email_id)

        results(api, by_id(email_id, {"mofo": {"mofo_relevant": False}, "newsletters": [{"name": "new"}]}))

        after = read(api, email_id)
        moment = after["email"]["update_timestamp"]
        assert moment > LONG_AGO
        entries = {one["name"]: one for one in after["newsletters"]}
        assert entries.pop("new")["create_timestamp"] == moment
        assert {one["update_timestamp"] for one in entries.values()} == {LONG_AGO}
        assert execute("SELECT update_timestamp = :moment FROM mofo WHERE email_id = :id", moment=moment, id=email_id)

    def test_an_unchanged_contact_keeps_its_time(self, api: ApiClient) -> None:
        contact = full()
        email_id = create(api, contact)["email"]["email_id"]
        set_back(email_id)
        before = read(api, email_id)

        assert statuses(api, by_id(email_id, contact), by_id(email_id)) == ["unchanged"] * 2
        assert read(api, email_id) == before

    def test_new_evidence_is_a_change(self, api: ApiClient) -> None:
        ids = [create(api, minimal())["email"]["email_id"] for _ in range(3)]
        items = [by_id(one, {"newsletters": [{"name": "a", "evidence": {"form": one}}]}) for one in ids]
        items[1]["contact"]["newsletters"] += [{"name": "b"}]

        assert statuses(api, *items) == ["updated"] * 3
        assert statuses(api, *items) == ["updated"] * 3

        for email_id in ids:
            events = [one for one in events_of(api, f"/ctms/{email_id}") if one["name"] == "a"]
            assert [one["action"] for one in events] == ["subscribed", "changed"]
            assert [one["evidence"] for one in events] == [{"form": email_id}] * 2
        [other] = [one for one in events_of(api, f"/ctms/{ids[1]}") if one["name"] == "b"][:1]
        assert other["evidence"] is None

    def test_a_group_of_defaults_is_removed(self, api: ApiClient) -> None:
        email_id = create(api, {**minimal(), "mofo": {"mofo_relevant": True}})["email"]["email_id"]

        assert statuses(api, by_id(email_id, {"mofo": {"mofo_relevant": False}})) == ["updated"]
        assert count("mofo", email_id) == 0

    def test_an_unknown_contact_is_not_found(self, api: ApiClient) -> None:
        [result] = results(api, by_address(address(), mode="update"))

        assert (result["status"], result["email_id"]) == ("not_found", None)
        assert problem(result) == (["match", "primary_email"], "not_found")

    def test_the_id_cannot_be_changed(self, api: ApiClient) -> None:
        email_id = create(api)["email"]["email_id"]

        [result] = results(api, by_id(email_id, {"email": {"email_id": str(uuid.uuid4())}}))

        assert result["status"] == "invalid"
        assert problem(result) == (["contact", "email", "email_id"], "email_id")

    def test_text_that_is_no_address_may_stay_where_it_is_stored(self, api: ApiClient) -> None:
        email_id = insert_contact(primary_email="no address")

        [kept, changed, new] = results(
            api,
            by_id(email_id, {"email": {"primary_email": "no address", "first_name": "Jane"}}),
            by_id(email_id, {"email": {"primary_email": "still no address"}}),
            by_address("no address at all"),
        )

        assert kept["status"] == "updated"
        assert (changed["status"], new["status"]) == ("invalid", "invalid")
        assert problem(new) == (["match", "primary_email"], "email_parsing")

    def test_two_contacts_of_an_adopted_database_keep_their_spellings(self, api: ApiClient) -> None:
        domains = ("müller.example", "xn--mller-kva.example")
        one, two = (insert_contact(primary_email=f"jane@{domain}") for domain in domains)

        [found, kept] = results(
            api,
            by_address("jane@müller.example"),
            by_id(two, {"email": {"primary_email": "jane@müller.example", "first_name": "Jane"}}),
        )

        assert found["status"] == "conflict"
        assert found["email_ids"] == sorted([one, two])
        assert problem(found) == (["match", "primary_email"], "ambiguous")
        assert kept["status"] == "updated"
        assert read(api, two)["email"]["primary_email"] == "jane@xn--mller-kva.example"

    def test_rules_of_a_waitlist_apply_to_new_entries_only(self, api: ApiClient) -> None:
        contact = create(api, {**minimal(), "waitlists": [{"name": "vpn", "fields": {"geo": "fr"}}]})
        email_id = contact["email"]["email_id"]

        [stored, invalid] = results(
            api,
            by_id(email_id, {"waitlists": [{"name": "vpn", "source": "https://example.com/"}]}),
            by_id(email_id, {"waitlists": [{"name": "vpn", "fields": {"seats": 1}}]}),
        )

        assert stored["status"] == "updated"
        assert problem(invalid)[0] == ["contact", "waitlists", 0, "fields", "seats"]
        assert read(api, email_id)["vpn_waitlist"] == {"geo": "fr", "platform": None}


class TestUpsert:
    def test_it_creates_then_updates_then_finds_nothing_to_do(self, api: ApiClient) -> None:
        wanted = address()

        created, updated, unchanged = results(
            api,
            by_address(wanted, {"newsletters": [{"name": "a"}]}),
            by_address(wanted.upper(), {"newsletters": [{"name": "b"}]}),
            by_address(wanted, {"newsletters": [{"name": "a", "subscribed": True}]}),
        )

        assert [one["status"] for one in (created, updated, unchanged)] == ["created", "updated", "unchanged"]
        assert created["email_id"] == updated["email_id"] == unchanged["email_id"]
        document = read(api, created["email_id"])
        assert document["email"]["primary_email"] == wanted
        assert [one["name"] for one in document["newsletters"]] == ["a", "b"]

    def test_a_new_contact_needs_an_address(self, api: ApiClient) -> None:
        [result] = results(api, {"match": {"fxa_id": address()}, "contact": {}})

        assert result["status"] == "invalid"
        assert problem(result) == (["contact", "email", "primary_email"], "missing")

    def test_a_new_contact_has_the_value_that_was_matched(self, api: ApiClient) -> None:
        other = address()

        upsert, new = results(api, by_address(address(), minimal()), by_address(other, minimal(), mode="create"))

        for result in (upsert, new):
            assert result["status"] == "invalid"
            assert problem(result) == (["match", "primary_email"], "match_mismatch")

    def test_the_address_can_change(self, api: ApiClient) -> None:
        before, after = address(), address()
        email_id = create(api, minimal(primary_email=before))["email"]["email_id"]

        moved, found, new = results(
            api,
            by_address(before, {"email": {"primary_email": after}}),
            by_address(after, {"email": {"first_name": "Jane"}}),
            by_address(before, {"email": {"first_name": "Joan"}}),
        )

        assert [one["status"] for one in (moved, found, new)] == ["updated", "updated", "created"]
        assert moved["email_id"] == found["email_id"] == email_id != new["email_id"]
        assert read(api, email_id)["email"]["first_name"] == "Jane"

    def test_words_for_stored_values_mean_nothing_for_a_new_contact(self, api: ApiClient) -> None:
        contact = {"amo": "DELETE", "newsletters": "UNSUBSCRIBE", "waitlists": [{"name": "vpn"}]}

        [result] = results(api, by_address(address(), contact))

        assert result["status"] == "created"
        assert [one["fields"] for one in read(api, result["email_id"])["waitlists"]] == [{}]

    def test_a_merged_contact_is_named_and_does_not_come_back(self, api: ApiClient) -> None:
        target, source = (create(api, minimal())["email"]["email_id"] for _ in range(2))
        assert api.post(f"/ctms/{target}/merge", {"from": source}).status_code == 200

        update, upsert = results(api, by_id(source, mode="update"), by_id(source, minimal()))

        assert (update["status"], upsert["status"]) == ("not_found", "conflict")
        assert update["merged_into"] == upsert["merged_into"] == target
        assert problem(upsert) == (["match", "email_id"], "merged")


class TestConflicts:
    @pytest.mark.parametrize("name", ["primary_email", "basket_token", "fxa_id", "mofo_email_id"])
    def test_two_identities_that_name_two_contacts(self, api: ApiClient, name: str) -> None:
        one, other = create(api), create(api)
        part = {"fxa_id": "fxa", "mofo_email_id": "mofo"}.get(name, "email")
        ids = [document["email"]["email_id"] for document in (one, other)]

        [result, new] = results(
            api,
            by_id(ids[0], {part: {name: other[part][name]}}),
            by_address(address(), {part: {name: other[part][name]}}) if name != "primary_email" else by_id(ids[0]),
        )

        assert result["status"] == "conflict"
        assert result["email_id"] == ids[0]
        assert result["email_ids"] == sorted(ids)
        assert problem(result) == (["contact", part, name], "taken")
        assert new["status"] == ("unchanged" if name == "primary_email" else "conflict")
        assert read(api, ids[0]) == api.get(f"/ctms/{ids[0]}").json

    def test_several_contacts_with_a_shared_identity(self, api: ApiClient) -> None:
        ids = [create(api, minimal(sfdc_id="shared"))["email"]["email_id"] for _ in range(2)]

        [result] = results(api, {"match": {"sfdc_id": "shared"}, "contact": {}})

        assert result["status"] == "conflict"
        assert result["email_ids"] == sorted(ids)


class TestIfMatch:
    def test_the_state_must_be_the_one_named(self, api: ApiClient) -> None:
        email_id = create(api)["email"]["email_id"]
        tag = api.get(f"/ctms/{email_id}").headers["ETag"]
        change = {"email": {"first_name": "Joan"}}

        first, late, weak, stranger = results(
            api,
            by_id(email_id, change, if_match=tag),
            by_id(email_id, {"email": {"first_name": "Late"}}, if_match=tag),
            by_id(email_id, change, if_match=f"W/{tag}"),
            by_address(address(), if_match="*"),
        )

        assert first["status"] == "updated"
        for result in (late, weak, stranger):
            assert result["status"] == "conflict"
            assert problem(result) == (["if_match"], "precondition_failed")
        assert weak["errors"][0]["msg"].startswith("if_match needs a strong tag")
        assert "strong" not in late["errors"][0]["msg"]
        assert read(api, email_id)["email"]["first_name"] == "Joan"
        assert statuses(api, by_id(email_id, change, if_match="*")) == ["unchanged"]


class TestNewsletters:
    def test_new_subscriptions_to_others_are_refused(self, app: Flask, api: ApiClient, monkeypatch: Any) -> None:
        email_id = create(api, {**minimal(), "newsletters": [{"name": "old"}]})["email"]["email_id"]
        weekly = Registered(Plugin("plugin", "package", "1"), Newsletter(slug="weekly", title="Weekly"))
        monkeypatch.setitem(app.extensions, "ctms.newsletter_registry", NewsletterRegistry([weekly], "enforce"))
        both = {"newsletters": [{"name": "weekly"}, {"name": "other"}]}

        stored, changed, new, created = results(
            api,
            by_id(email_id, {"newsletters": [{"name": "old", "format": "T"}, {"name": "weekly"}]}),
            by_id(email_id, both),
            by_address(address(), both),
            {"mode": "create", "contact": {**minimal(), **both}},
        )

        assert stored["status"] == "updated"
        for result in (changed, new, created):
            assert result["status"] == "invalid"
            assert problem(result) == (["contact", "newsletters", 1, "name"], "newsletter_unknown")
        text = address()
        answer = api.put("/ctms", {**minimal(primary_email=text), **both}, query_string={"primary_email": text})
        assert_error(answer, 422, at=[["body", "newsletters", 1, "name"]])


class TestSuppression:
    @pytest.mark.usefixtures("erasure_key")
    def test_a_suppressed_address_is_not_stored(self, api: ApiClient) -> None:
        wanted, email_id = address(), create(api, minimal())["email"]["email_id"]
        with pool.writing() as connection:
            suppress(connection, fingerprints().all_of(wanted), "command")

        found = results(
            api,
            by_address(wanted.upper()),
            {"mode": "create", "contact": minimal(primary_email=wanted)},
            by_id(email_id, {"email": {"primary_email": wanted}}),
            by_id(email_id, {"fxa": {"primary_email": wanted}}),
            by_address(address(), {"fxa": {"primary_email": wanted}}),
            by_address(wanted, mode="update"),
        )

        assert [one["status"] for one in found] == ["suppressed"] * 5 + ["not_found"]
        assert wanted not in json.dumps(found)
