"""Pending contacts are pushed: full batches, the newest state, each contact in its lane, only wanted ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import pytest

from ctms.database import pool
from ctms.hooks.receivers import ContactState
from ctms.outbox.changes import RESYNC, outbox
from ctms.plugins import Refused, TryLater
from ctms.testing import ApiClient
from tests.sync.working import Other, Worker, parked, row, rows, time_passes, waiting

Make = Callable[[int], list[str]]
Edit = Callable[[str, str], Any]
MakeContact = Callable[..., dict[str, Any]]


def sizes(other: Other) -> list[int]:
    return [len(call) for call in other.calls]


class TestBatches:
    def test_they_are_full_while_much_waits(self, other: Other, worker: Worker, make: Make) -> None:
        made = make(200)

        worker.push(max_batch=75)

        assert sizes(other) == [75, 75, 50]
        assert [one for call in other.calls for one in call] == made, "the oldest come first"

    def test_edits_have_priority_over_a_resync(self, other: Other, worker: Worker, make: Make) -> None:
        made = make(6)
        rows("UPDATE outbox SET priority = %s WHERE email_id = ANY(%s::uuid[])", RESYNC, made[:3])

        worker.push(max_batch=4)

        assert other.calls == [[*made[3:], made[0]], made[1:3]]

    def test_nothing_is_due(self, other: Other, worker: Worker, make: Make) -> None:
        make(2)
        rows("UPDATE outbox SET due_at = clock_timestamp() + interval '1 minute'")

        worker.push()

        assert other.calls == []

    def test_a_service_that_ends_begins_no_call(self, other: Other, worker: Worker, make: Make) -> None:
        made = make(4)
        other.answer = lambda _: worker.stopping.set()

        worker.push(max_batch=2)

        assert other.calls == [made[:2]]
        assert waiting() == made[2:], "the batch in flight is settled"

    def test_not_even_for_halves(self, other: Other, worker: Worker, make: Make) -> None:
        made = make(4)

        def fail(_: Any) -> None:
            worker.stopping.set()
            raise ValueError

        other.answer = fail
        worker.push()

        assert sizes(other) == [4]
        assert waiting() == made
        assert row("SELECT max(attempts) FROM outbox") == 0

    def test_a_lane_has_a_part_of_the_contacts_always_the_same(self, other: Other, worker: Worker, make: Make) -> None:
        made = make(200)
        lanes = []
        for lane in range(4):
            worker.push(lane=lane, concurrency=4, max_batch=1000)
            lanes.append({one for call in other.calls for one in call})
            other.calls.clear()

        assert set.union(*lanes) == set(made)
        assert sum(map(len, lanes)) == 200
        assert min(map(len, lanes)) > 20

        rows("INSERT INTO outbox SELECT 'other', c, 7, 0, now(), now(), 0, 0 FROM unnest(%s::uuid[]) c", list(lanes[2]))
        for lane in (0, 1, 3):
            worker.push(lane=lane, concurrency=4)
        assert other.calls == []
        worker.push(lane=2, concurrency=4)
        assert {one for call in other.calls for one in call} == lanes[2]


class TestStates:
    def test_a_document_is_the_one_that_the_api_gives(
        self, other: Other, worker: Worker, api: ApiClient, make_contact: MakeContact
    ) -> None:
        email_id = make_contact()["email"]["email_id"]

        worker.push()

        assert other.copies[email_id] == api.get(f"/ctms/{email_id}").json

    def test_a_contact_that_was_deleted_is_gone(
        self, other: Other, worker: Worker, api: ApiClient, make_contact: MakeContact
    ) -> None:
        email = make_contact()["email"]
        worker.push()

        assert api.delete(f"/ctms/{email['primary_email']}").status_code == 200
        worker.push()

        assert other.gone == [email["email_id"]]
        assert other.copies == {}
        assert waiting() == []

    def test_a_contact_edited_during_its_push_is_pushed_again(
        self, other: Other, worker: Worker, make: Make, edit: Edit
    ) -> None:
        made = make(2)
        edited: list[str] = []

        def edit_meanwhile(_: Any) -> None:
            if not edited:
                edited.append(made[0])
                edit(made[0], "Joan")
                worker.stopping.set()

        since = row("SELECT waiting_since FROM outbox WHERE email_id = %s", made[0])
        other.answer = edit_meanwhile
        worker.push()

        assert waiting() == made[:1]
        assert row("SELECT waiting_since > %s AND due_at <= clock_timestamp() FROM outbox", since)
        worker.stopping.clear()
        worker.push()
        assert other.calls == [made, made[:1]]
        assert other.copies[made[0]]["email"]["first_name"] == "Joan"
        assert waiting() == []

    @pytest.mark.parametrize("outcome", [TryLater(60), Refused("no")], ids=repr)
    def test_a_verdict_on_an_old_state_does_not_count_against_the_new_one(
        self, other: Other, worker: Worker, make: Make, edit: Edit, outcome: Any
    ) -> None:
        (email_id,) = make(1)
        edited: list[str] = []

        def edit_meanwhile(_: Any) -> Any:
            if edited:
                return None
            edited.append(email_id)
            edit(email_id, "Joan")
            return outcome

        other.answer = edit_meanwhile
        worker.push()

        assert len(other.calls) == 2
        assert parked() == {}
        assert waiting() == []

    def test_one_that_another_worker_pushed_meanwhile_is_pushed_once_more(
        self, other: Other, worker: Worker, make: Make
    ) -> None:
        (email_id,) = make(1)
        times: list[int] = []

        def another(_: Any) -> None:
            times.append(1)
            if len(times) == 1:
                rows("DELETE FROM outbox")

        other.answer = another
        worker.push()

        assert other.calls == [[email_id], [email_id]]
        assert waiting() == []


class TestKeys:
    def test_the_same_states_have_the_same_key(
        self, other: Other, worker: Worker, make_contact: MakeContact, edit: Edit
    ) -> None:
        ids = [make_contact()["email"]["email_id"] for _ in range(2)]

        def down(_: Any) -> None:
            raise ConnectionResetError

        other.answer = down
        worker.push()
        worker.push_later()
        whole = [key for key, call in zip(other.keys, other.calls, strict=True) if len(call) == 2]
        assert len(whole) == 2
        assert len(set(whole)) == 1
        assert len(set(other.keys)) == 3, "each half has its own"

        edit(ids[0], "Joan")
        other.keys.clear()
        worker.push_later()
        assert other.keys[0] not in whole

    def test_a_contact_that_is_gone_or_back_has_another(
        self, other: Other, worker: Worker, api: ApiClient, make_contact: MakeContact
    ) -> None:
        contact = make_contact()
        worker.push()
        api.delete(f"/ctms/{contact['email']['primary_email']}")
        worker.push()
        api.put(f"/ctms/{contact['email']['email_id']}", {"email": contact["email"]})
        worker.push()

        assert len(other.keys) == 3
        assert len(set(other.keys)) == 3


class TestSelection:
    """A backend hears only of contacts that it wants, and of those that it wants no more."""

    @pytest.fixture
    def email_id(self, make_contact: MakeContact) -> str:
        email_id: str = make_contact(newsletters=[{"name": "hubs"}])["email"]["email_id"]
        return email_id

    @pytest.mark.parametrize("options", [{"newsletters": ["hubs"]}, {"newsletters": ["x", "hubs"]}, {}], ids=str)
    def test_one_that_it_wants(self, other: Other, worker: Worker, email_id: str, options: Mapping[str, Any]) -> None:
        worker.push(**options)

        assert list(other.copies) == [email_id]

    @pytest.mark.parametrize(
        "options",
        [
            {"newsletters": ["x"]},
            {"waitlists": ["vpn"]},
            {"newsletters": ["hubs"], "waitlists": ["vpn"]},
            {"newsletters": ["hubs"], "wants": lambda _: False},
        ],
        ids=["newsletter", "waitlist", "both", "wants"],
    )
    def test_one_that_it_never_had_nor_wants_is_no_call(
        self, other: Other, worker: Worker, email_id: str, options: Mapping[str, Any]
    ) -> None:
        worker.push(**options)

        assert other.calls == []
        assert email_id not in waiting()
        assert worker.count("ctms_background_sync_total", status="done") == 1

    def test_one_that_it_wants_no_more_is_gone_once(
        self, other: Other, worker: Worker, api: ApiClient, edit: Edit, email_id: str
    ) -> None:
        worker.push(newsletters=["hubs"])
        assert list(other.copies) == [email_id]

        api.patch(f"/ctms/{email_id}", {"newsletters": [{"name": "hubs", "subscribed": False}]})
        worker.push(newsletters=["hubs"])
        assert other.gone == [email_id]

        edit(email_id, "Joan")
        worker.push(newsletters=["hubs"])
        assert len(other.calls) == 2

        api.patch(f"/ctms/{email_id}", {"newsletters": [{"name": "hubs", "subscribed": True}]})
        worker.push(newsletters=["hubs"])
        assert list(other.copies) == [email_id]

    def test_one_that_is_deleted_is_gone_though_it_was_not_there(
        self, other: Other, worker: Worker, api: ApiClient, make_contact: MakeContact, email_id: str
    ) -> None:
        never = make_contact(newsletters=[])["email"]
        worker.push(newsletters=["hubs"])
        address = row("SELECT primary_email FROM emails WHERE email_id = %s", email_id)

        for gone in (address, never["primary_email"]):
            assert api.delete(f"/ctms/{gone}").status_code == 200
        worker.push(newsletters=["hubs"])

        assert other.calls == [[email_id], [email_id, never["email_id"]]]
        assert other.gone == [email_id, never["email_id"]]
        assert rows("SELECT FROM outbox_mirrored") == []

    def test_a_contact_with_an_unsettled_push_is_pushed_as_gone(
        self, other: Other, worker: Worker, api: ApiClient, email_id: str
    ) -> None:
        def killed(_: Any) -> None:
            raise ConnectionResetError

        other.answer = killed
        worker.push(newsletters=["hubs"])

        other.answer = lambda _: None
        api.patch(f"/ctms/{email_id}", {"newsletters": "UNSUBSCRIBE"})
        time_passes()
        worker.push(newsletters=["hubs"])

        assert other.gone == [email_id]

    def test_one_about_which_it_cannot_decide_does_not_stop_the_others(
        self, other: Other, worker: Worker, make: Make
    ) -> None:
        made = make(3)

        def wants(document: Mapping[str, Any]) -> bool:
            return bool(document["email"]["email_id"] != made[1] or document["jane@example.com"])

        worker.push_later(5, wants=wants)

        assert set(other.copies) == {made[0], made[2]}
        assert parked() == {made[1]: "raised KeyError"}

    def test_the_selection_is_evaluated_at_the_push(
        self, other: Other, worker: Worker, api: ApiClient, email_id: str
    ) -> None:
        api.patch(f"/ctms/{email_id}", {"newsletters": "UNSUBSCRIBE"})

        worker.push(newsletters=["hubs"])

        assert other.calls == []


def test_an_unknown_contact_is_gone(other: Other, worker: Worker) -> None:
    with pool.writing() as connection:
        outbox().changed(connection, [uuid4()])

    worker.push()

    assert len(other.gone) == 1
    assert ContactState(other.gone[0], None).gone
