"""A run of the rules: what it erases, keeps and records."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flask import Flask

from ctms.addresses import comparison_key
from ctms.database import pool
from ctms.retention import runs
from ctms.retention.candidates import Scan
from ctms.retention.policy import ANONYMISE
from ctms.retention.run import InterruptedRunError, RetentionOutcome, database_time
from tests.contacts.factories import full, minimal
from tests.erasure.handlers import Handlers
from tests.erasure.listed import erasure_key
from tests.http import ApiClient
from tests.retention.rules import COUNTRY, left, make, policy, rule, run
from tests.sync.working import PLUGIN, row, rows

__all__ = ["erasure_key"]

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture
def ctms_plugins() -> Iterable[object]:
    return ["default_waitlist", Handlers(), PLUGIN]


def test_matching_contacts_are_erased_as_usual_and_others_stay(api: ApiClient) -> None:
    contact = full(email=full()["email"] | {"mailing_country": COUNTRY})
    gone = api.post("/ctms", contact).json["email"]["email_id"]
    other = api.post("/ctms", full()).json["email"]["email_id"]
    rows("DELETE FROM outbox")

    result = run(policy(), by="worker")

    assert (result.outcome, result.numbers["erased"]) == (runs.DONE, 1)
    assert (api.get(f"/ctms/{gone}").status_code, api.get(f"/ctms/{other}").status_code) == (404, 200)
    (erasure,) = rows("SELECT id, requested_by, origin, forget, contacts, unknown, also_known_in FROM erasures")
    assert erasure[1:] == ("worker", "retention:old", False, 1, 0, 0)
    assert rows("SELECT handler, identities ->> 'fxa_id' FROM erasure_tasks WHERE erasure_id = %s", erasure[0]) == [
        (name, contact["fxa"]["fxa_id"]) for name in ("crm", "other", "shop")
    ]
    assert rows("SELECT backend, email_id::text FROM outbox") == [("other", gone)]
    assert rows("SELECT backend, email_id::text FROM erasure_deletions") == [("other", gone)]
    assert api.get(f"/erasures/{erasure[0]}").json["origin"] == "retention:old"


def test_each_rule_has_an_erasure_and_the_first_that_matches_applies() -> None:
    first, second = make(3, double_opt_in=True), make(2)

    result = run(policy(rule("confirmed", double_opt_in=True), rule("all"), rule("never", has_fxa=True)), batch_size=2)

    assert rows("SELECT origin, contacts FROM erasures ORDER BY origin") == [
        ("retention:all", 2),
        ("retention:confirmed", 3),
    ]
    assert result.found.due == {"confirmed": 3, "all": 2}
    assert left([*first, *second]) == set()


def test_a_contact_with_the_longest_rule_name_is_erased() -> None:
    make()

    run(policy(rule("x" * 40)))

    assert rows("SELECT origin FROM erasures") == [f"retention:{'x' * 40}"]


def test_every_contact_is_found_once_across_windows_of_equal_times() -> None:
    ids = make(7)
    rows("UPDATE emails SET update_timestamp = '2020-01-01' WHERE email_id = ANY(%s)", ids[:5])
    found = []
    with pool.acquire() as connection:
        for _, candidates in Scan(policy(), database_time(connection), window=2).candidates(connection):
            found += [one.email_id for one in candidates]

    assert sorted(found) == sorted(ids)


class TestMaximum:
    def test_nothing_is_erased_above_it(self) -> None:
        ids = make(4)

        result = run(policy(), maximum=3)

        assert (result.outcome, result.numbers["erased"]) == (runs.OVER_MAX, 0)
        assert left(ids) == set(ids)
        assert rows("SELECT count(*) FROM erasures") == [0]
        assert rows("SELECT outcome, found, erased FROM retention_runs") == [(runs.OVER_MAX, 4, 0)]

    def test_as_many_are_erased(self) -> None:
        ids = make(3)

        assert run(policy(), maximum=3).outcome == runs.DONE
        assert left(ids) == set()

    def test_all_rules_count_together_and_each_contact_once(self) -> None:
        make(2, double_opt_in=True)
        make(2)
        both = policy(rule("confirmed", double_opt_in=True), rule("all"))

        assert run(both, maximum=3).outcome == runs.OVER_MAX
        assert run(both, maximum=4).outcome == runs.DONE

    def test_held_contacts_do_not_count(self) -> None:
        ids = make(4)

        result = run(policy(ids=ids[:1]), maximum=3)

        assert (result.outcome, result.numbers["held"]) == (runs.DONE, 1)
        assert left(ids) == set(ids[:1])

    def test_contacts_that_appear_after_the_count_do_not_exceed_it(self) -> None:
        """A transaction may commit a contact under an earlier time."""
        ids = make(3)
        counted = []

        def appear() -> None:
            counted.append(True)
            if len(counted) == 3:  # the count has read one window with contacts, and found no second
                ids.extend(make(3))

        result = run(policy(), maximum=3, on_window=appear)

        assert result.numbers["erased"] == 3
        assert len(left(ids)) == 3


class TestHold:
    @pytest.mark.parametrize("by", ["id", "own address", "account address"])
    def test_a_held_contact_is_kept(self, by: str) -> None:
        held, gone = make(2)
        account = f"Account-{held.hex}@Example.com"
        rows("INSERT INTO fxa (email_id, fxa_id, primary_email) VALUES (%s, %s, %s)", held, held.hex, account)
        holds: dict[str, dict[str, Any]] = {
            "id": {"ids": [held]},
            "own address": {"keys": [comparison_key(f"{held.hex}@EXAMPLE.com")]},
            "account address": {"keys": [comparison_key(account)]},
        }

        result = run(policy(**holds[by]))

        assert left([held, gone]) == {held}
        assert (result.found.due.total(), result.found.held.total(), result.numbers["held"]) == (1, 1, 1)

    @pytest.mark.usefixtures("erasure_key")
    @pytest.mark.parametrize("merges", [1, 2])
    @pytest.mark.parametrize("by", ["id", "id, after the tombstone", "own address", "account address"])
    def test_the_contact_that_a_held_one_was_merged_into_is_kept(self, api: ApiClient, by: str, merges: int) -> None:
        """A merge deletes the held contact, and moves its data to one that the list does not name."""
        targets = make(merges + 1)
        source = api.post("/ctms", full(mailing_country=COUNTRY)).json
        held = source["email"]["email_id"]
        for number, target in enumerate(targets[:-1]):
            if by == "account address":  # else the target would take it over
                rows("INSERT INTO fxa (email_id, fxa_id) VALUES (%s, %s)", target, target.hex)
                rows("UPDATE fxa SET primary_email = %s WHERE email_id = %s", f"{target.hex}@example.org", target)
            merged = targets[number - 1] if number else held
            assert api.post(f"/ctms/{target}/merge", {"from": str(merged)}).status_code == 200
        rows("UPDATE emails SET update_timestamp = '2020-01-01' WHERE email_id = ANY(%s)", targets)
        if by == "id, after the tombstone":
            rows("DELETE FROM contact_tombstones")
        holds: dict[str, dict[str, Any]] = {
            "id": {"ids": [uuid.UUID(held)]},
            "own address": {"keys": [comparison_key(source["email"]["primary_email"].upper())]},
            "account address": {"keys": [comparison_key(source["fxa"]["primary_email"])]},
        }

        result = run(policy(**holds[by.partition(",")[0]]))

        assert left(targets) == {targets[-2]}
        assert (result.found.held.total(), result.numbers["held"], result.numbers["erased"]) == (1, 1, 1)

    def test_a_hold_for_nobody_is_fine(self) -> None:
        (gone,) = make()

        run(policy(ids=[uuid.uuid4()], keys=["nobody@example.com"]))

        assert left([gone]) == set()

    def test_a_hold_does_not_refuse_an_explicit_deletion(self, api: ApiClient) -> None:
        """Holds concern the rules only."""
        contact = minimal(mailing_country=COUNTRY)
        email_id = api.post("/ctms", contact).json["email"]["email_id"]
        run(policy(ids=[uuid.UUID(email_id)]))

        assert api.delete(f"/ctms/{contact['email']['primary_email']}").status_code == 200


class TestInterruption:
    def test_committed_batches_stay_and_the_next_run_does_the_rest(self) -> None:
        ids = make(5)
        done: list[RetentionOutcome] = []

        def stop() -> None:
            if done:
                raise InterruptedRunError

        with pool.acquire() as connection, pytest.raises(InterruptedRunError):
            run(policy(), connection=connection, batch_size=2, on_commit=done.extend, on_window=stop)

        assert left(ids) == set(ids[2:])
        assert rows("SELECT outcome, found, erased, finished_at IS NOT NULL FROM retention_runs") == [
            (runs.INTERRUPTED, 5, 2, True)
        ]
        assert run(policy()).numbers["erased"] == 3
        assert rows("SELECT sum(contacts)::int FROM erasures") == [5]

    def test_an_unexpected_error_is_recorded(self) -> None:
        def fail() -> None:
            raise LookupError

        with pool.acquire() as connection, pytest.raises(LookupError):
            run(policy(), connection=connection, on_window=fail)

        assert rows("SELECT outcome FROM retention_runs") == [runs.FAILED]


def test_a_contact_that_cannot_be_deleted_stops_no_other() -> None:
    ids = make(5)
    rows("CREATE TABLE notes (email_id uuid REFERENCES emails)")
    rows("INSERT INTO notes VALUES (%s)", ids[2])

    result = run(policy())

    assert result.outcome == runs.INCOMPLETE
    assert result.outcomes == {("old", "erased"): 4, ("old", "failed"): 1}
    assert left(ids) == {ids[2]}
    assert rows("SELECT outcome, erased, failed FROM retention_runs") == [(runs.INCOMPLETE, 4, 1)]


def test_other_contacts_with_an_erased_address_are_counted_once() -> None:
    ids = make(3)
    (other,) = make(mailing_country=None)
    address = row("SELECT primary_email FROM emails WHERE email_id = %s", ids[0])
    rows("INSERT INTO fxa (email_id, fxa_id, primary_email) VALUES (%s, 'x', %s)", other, address.upper())

    run(policy(), batch_size=1)

    assert rows("SELECT also_known_in FROM erasures") == [1]
    assert left([other]) == {other}


class TestSchedule:
    INSERT = (
        "INSERT INTO retention_runs (id, started_at, started_by, max_contacts, outcome)"
        " VALUES (gen_random_uuid(), clock_timestamp() - %s::interval, %s, 1, %s)"
    )

    @pytest.mark.parametrize(
        ("ago", "by", "outcome", "due"),
        [
            ("6 days 23 hours", "worker", runs.DONE, False),
            ("6 days 23 hours", "operator:ops", runs.DONE, False),
            ("7 days 1 minute", "worker", runs.DONE, True),
            ("1 day", "worker", runs.INCOMPLETE, False),
            ("1 day", "worker", runs.OVER_MAX, False),
            ("1 day", "operator:ops", runs.OVER_MAX, True),
            ("1 minute", "worker", runs.INTERRUPTED, True),
            ("1 minute", "worker", None, True),
            ("1 minute", "worker", runs.FAILED, True),
        ],
    )
    def test_a_run_is_due_a_week_after_the_last_whole_one(
        self, ago: str, by: str, outcome: str | None, due: bool
    ) -> None:
        with pool.acquire() as connection:
            assert runs.is_due(connection)
            connection.execute(self.INSERT, (ago, by, outcome))

            assert runs.is_due(connection) is due

    def test_the_state_is_that_of_the_last_run(self) -> None:
        with pool.acquire() as connection:
            assert runs.state(connection) == (0, 0.0)
            make(2)
            run(policy(), maximum=1)
            over, success = runs.state(connection)
            assert (over, success) == (2, 0.0)
            run(policy(), maximum=2)
            over, success = runs.state(connection)

            assert over == 0
            assert success == pytest.approx(row("SELECT extract(epoch FROM clock_timestamp())::float8"), abs=60)


def test_both_actions_leave_no_contact(app: Flask) -> None:  # noqa: ARG001
    erased, anonymised = make(double_opt_in=True), make()
    both = policy(rule("erased", double_opt_in=True), rule("anonymised", ANONYMISE))

    result = run(both)

    assert left([*erased, *anonymised]) == set()
    assert (result.numbers["erased"], result.numbers["anonymised"]) == (1, 1)
    assert row("SELECT count(*) FROM contact_tombstones WHERE email_id = ANY(%s)", [*erased, *anonymised]) == 2


def test_a_run_that_has_nothing_to_do_creates_no_erasure(make_contact: Callable[..., Any]) -> None:
    make_contact()

    assert run(policy()).outcome == runs.DONE
    assert rows("SELECT count(*) FROM erasures") == [0]
