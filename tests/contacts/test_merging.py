"""Merges of random pairs: nothing of either contact is lost, and nobody has more consent than before."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctms.addresses import is_same
from ctms.contacts.registry import IDENTITIES, LISTS
from tests.api.test_history import events_of
from tests.contacts.factories import full
from tests.contacts.rows import execute
from tests.history.replay import replay, subscriptions
from tests.http import ApiClient

EXAMPLES = int(os.environ.get("CTMS_TEST_EXAMPLES", "40"))
SOME = st.sampled_from("abcd")
DAY = st.integers(0, 3).map(lambda days: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=days))
KINDS = {"newsletters": "newsletter", "waitlists": "waitlist"}
KEPT = "primary_email", "email_id"

entries = st.dictionaries(SOME, st.tuples(st.booleans(), DAY, DAY), max_size=4)
changes = st.lists(st.tuples(st.sampled_from(["put", "patch"]), st.dictionaries(SOME, st.booleans())), max_size=2)
members = st.sets(st.sampled_from(["amo", "fxa", "mofo"]))
blank = st.sets(
    st.sampled_from([
        "basket_token", "sfdc_id", "first_name", "has_opted_out_of_email", "unsubscribe_reason", "double_opt_in",
        "fxa_id", "user_id", "mofo_email_id", "mofo_contact_id", "email_opt_in", "fxa.primary_email",
    ])
)  # fmt: skip
contacts = st.tuples(blank, members, entries, entries, changes)
Drawn = tuple[set[str], set[str], dict[str, Any], dict[str, Any], list[tuple[str, dict[str, bool]]]]


def create(api: ApiClient, drawn: Drawn) -> str:
    """Create a contact with a past, and return its id."""
    without, parts, newsletters, waitlists, past = drawn
    body = full(newsletters=[{"name": name} for name in newsletters], waitlists=[{"name": name} for name in waitlists])
    for part in ("email", "amo", "fxa", "mofo"):
        names = {name.rpartition(".")[2] for name in without if "." not in name or name.startswith(f"{part}.")}
        kept = {name: value for name, value in body[part].items() if name not in names or name in KEPT}
        body[part] = kept if part == "email" or part in parts else None
        if part == "fxa" and body[part] and "fxa.primary_email" in without:
            del body[part]["primary_email"]
    email = api.post("/ctms", body).json["email"]
    email_id: str = email["email_id"]
    for method, states in past:
        change = {"newsletters": [{"name": name, "subscribed": state} for name, state in states.items()]}
        if method == "put":
            assert api.put(f"/ctms/{email_id}", {**body, **change}).status_code == 201
        else:
            assert api.patch(f"/ctms/{email_id}", change).status_code == 200
    stored = api.get(f"/ctms/{email_id}").json
    for table, drawn_entries in (("newsletters", newsletters), ("waitlists", waitlists)):
        for name in {entry["name"] for entry in stored[table]} & drawn_entries.keys():
            subscribed, created, updated = drawn_entries[name]
            execute(
                f"UPDATE {table} SET subscribed = :subscribed, create_timestamp = :created, update_timestamp = :updated"
                " WHERE email_id = :id AND name = :name",
                id=email_id, name=name, subscribed=subscribed, created=created, updated=updated,
            )  # fmt: skip
    return email_id


def by_name(contact: dict[str, Any], part: str) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in contact[part]}


def identities(contact: dict[str, Any]) -> dict[str, Any]:
    """Return the identities that the contact has."""
    found = {name: contact[one.part.name][one.column] for name, one in IDENTITIES.items()}
    return {name: value for name, value in found.items() if value}


def expected(mine: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Return the state of the later decision; of two at once, the unsubscription."""
    found = [entry for entry in (mine, other) if entry is not None]
    latest = max(entry["update_timestamp"] for entry in found)
    return all(entry["subscribed"] for entry in found if entry["update_timestamp"] == latest)


def dates(entry: dict[str, Any] | None) -> set[datetime]:
    return {datetime.fromisoformat(entry["create_timestamp"])} if entry else set()


def check_merge(
    before: list[dict[str, Any]], after: dict[str, Any], merged: dict[str, Any], history: list[Any]
) -> None:
    mine, other = before
    for part in LISTS:
        of_mine, of_other, of_both = by_name(mine, part), by_name(other, part), by_name(after, part)
        assert of_both.keys() == of_mine.keys() | of_other.keys()
        for name, entry in of_both.items():
            assert entry["subscribed"] == expected(of_mine.get(name), of_other.get(name))
            events = [one for one in history if (one["kind"], one["name"]) == (KINDS[part], name)]
            evidence = json.dumps([one["evidence"] for one in events])
            for date in dates(of_mine.get(name)) | dates(of_other.get(name)):
                assert date in dates(entry) or f'"{date.isoformat()}"' in evidence
            same = [e for e in (of_mine.get(name), of_other.get(name)) if e and e["subscribed"] == entry["subscribed"]]
            assert dates(entry) == {min(date for e in same for date in dates(e))}
            assert entry["update_timestamp"] in {e["update_timestamp"] for e in same}
        decided = {one["name"]: one["subscribed"] for one in merged["subscriptions"] if one["part"] == part}
        assert decided == {name: of_both[name]["subscribed"] for name in of_other}

    kept, lost = identities(after), {(one["part"], one["field"]): one["value"] for one in merged["conflicts"]}
    assert kept.items() >= identities(mine).items()
    for name, value in identities(other).items():
        one = IDENTITIES[name]
        assert name == "email_id" or kept[name] == value or lost[one.part.name, one.column] == value

    was_out = [contact["email"]["has_opted_out_of_email"] for contact in before]
    assert after["email"]["has_opted_out_of_email"] == any(was_out)
    reasons = [contact["email"]["unsubscribe_reason"] for contact, out in zip(before, was_out, strict=True) if out]
    assert after["email"]["unsubscribe_reason"] or not any(reasons)
    assert after["email"]["double_opt_in"] == mine["email"]["double_opt_in"]
    has_amo = any(value not in {None, False} for name, value in mine["amo"].items() if "timestamp" not in name)
    assert after["amo"]["email_opt_in"] == (mine if has_amo else other)["amo"]["email_opt_in"]
    assert not is_same(other["email"]["primary_email"], after["email"]["primary_email"])


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(drawn=st.lists(contacts, min_size=3, max_size=3), into_merged=st.booleans())
def test_random_pairs(api: ApiClient, drawn: list[Drawn], into_merged: bool) -> None:
    first, second, third = (create(api, one) for one in drawn)
    pairs = [(first, second), (first, third) if into_merged else (third, first)]
    for target, source in pairs:
        before = [api.get(f"/ctms/{email_id}").json for email_id in (target, source)]
        histories = [events_of(api, f"/ctms/{email_id}") for email_id in (target, source)]
        preview = api.post(f"/ctms/{target}/merge", {"from": source, "dry_run": True}).json
        assert [api.get(f"/ctms/{email_id}").json for email_id in (target, source)] == before
        assert [events_of(api, f"/ctms/{email_id}") for email_id in (target, source)] == histories

        merged = api.post(f"/ctms/{target}/merge", {"from": source}).json

        after = api.get(f"/ctms/{target}").json
        assert {**merged["contact"], "status": "ok"} == after
        for answer in (preview, merged):
            answer["contact"]["email"]["update_timestamp"] = answer["dry_run"] = None
            answer["contact"]["amo"]["update_timestamp"] = None
        assert preview == merged
        history = events_of(api, f"/ctms/{target}")
        check_merge(before, after, merged, history)
        ids = {event["event_id"] for event in history}
        assert ids >= {event["event_id"] for events in histories for event in events}
        assert replay(history) == ({target: subscriptions(after)} if history else {})
        gone = api.get(f"/ctms/{source}")
        assert (gone.status_code, gone.json) == (404, {"detail": "Unknown email_id", "merged_into": target})
