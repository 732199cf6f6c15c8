"""A backend that begins to select has contacts that are listed nowhere: it must be able to get rid of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from ctms.database import pool
from ctms.outbox.changes import outbox
from ctms.sync import mirrored
from ctms.sync.resync import Selection, resync
from ctms.testing import ApiClient
from tests.sync.working import BACKEND_OTHER, Other, Worker, row, rows, time_passes, waiting

Make = Callable[[int], list[str]]
Edit = Callable[[str, str], Any]
MakeContact = Callable[..., dict[str, Any]]

NONE: dict[str, Any] = {"wants": lambda _: False}
HUBS: dict[str, Any] = {"newsletters": ["hubs"]}


@pytest.fixture
def email_id(other: Other, make_contact: MakeContact) -> str:  # noqa: ARG001  reset before
    email_id: str = make_contact(newsletters=[{"name": "hubs"}])["email"]["email_id"]
    return email_id


@pytest.fixture
def selecting(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands know the backend as one that selects."""
    with app.app_context():
        monkeypatch.setitem(outbox().backends, "other", replace(BACKEND_OTHER, **HUBS))


def unlisted() -> bool:
    """Return whether the backend may have contacts that are not listed."""
    return rows("SELECT FROM receivers WHERE name = 'other' AND unlisted_at IS NOT NULL") != []


def resync_all() -> int:
    """Push all contacts again."""
    with pool.acquire() as connection:
        return sum(resync(connection, "other", Selection()))


def some_time_passes() -> None:
    """Move the last push to more than a second ago."""
    rows("UPDATE receivers SET unlisted_at = unlisted_at - interval '1 minute'")


@pytest.mark.parametrize("options", [{"wants": lambda _: True}, NONE, HUBS], ids=["all", "none", "newsletter"])
def test_an_erasure_is_done_only_when_the_backend_has_deleted(
    other: Other, worker: Worker, api: ApiClient, email_id: str, options: dict[str, Any]
) -> None:
    worker.push()
    assert list(other.copies) == [email_id]
    address = row("SELECT primary_email FROM emails WHERE email_id = %s", email_id)
    erasure = api.delete(f"/ctms/{address}").headers["Erasure-Id"]
    worker.erase()

    worker.push(**options)

    assert other.copies == {}
    (backend,) = api.get(f"/erasures/{erasure}").json["backends"]
    assert (backend["pending"], backend["done"]) == (0, 1)


def test_contacts_no_longer_wanted_are_deleted_when_edited(
    other: Other, worker: Worker, api: ApiClient, edit: Edit, email_id: str
) -> None:
    worker.push()

    api.patch(f"/ctms/{email_id}", {"newsletters": "UNSUBSCRIBE"})
    worker.push(**HUBS)
    assert other.copies == {}

    edit(email_id, "Joan")
    worker.push(**HUBS)
    assert other.gone == [email_id] * 2, "which contacts it has is not known before a resync"


def test_a_push_that_was_killed_may_have_arrived(other: Other, worker: Worker, api: ApiClient, email_id: str) -> None:
    def killed(_: Any) -> None:
        raise ConnectionResetError

    other.answer = killed
    worker.push()
    other.answer = lambda _: None

    api.patch(f"/ctms/{email_id}", {"newsletters": "UNSUBSCRIBE"})
    worker.push_later(**HUBS)

    assert other.gone == [email_id]


def test_one_that_has_selected_always_is_not_bothered(
    other: Other, worker: Worker, edit: Edit, make_contact: MakeContact
) -> None:
    email_id = make_contact(newsletters=[])["email"]["email_id"]
    worker.push(**HUBS)
    edit(email_id, "Joan")
    worker.push(**HUBS)

    assert other.calls == []
    assert not unlisted()


def test_the_time_is_written_seldom(other: Other, worker: Worker, make: Make) -> None:  # noqa: ARG001  reset before
    make(3)
    worker.push(max_batch=1)
    first = row("UPDATE receivers SET unlisted_at = clock_timestamp() + interval '1 minute' RETURNING unlisted_at")
    make(1)
    worker.push()
    assert row("SELECT unlisted_at FROM receivers") == first

    some_time_passes()
    some_time_passes()
    make(1)
    worker.push()
    assert row("SELECT clock_timestamp() - unlisted_at < interval '50 seconds' FROM receivers")


@pytest.mark.usefixtures("selecting")
class TestResync:
    @pytest.fixture(autouse=True)
    def small_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mirrored, "BATCH", 2)

    def test_all_contacts_that_it_does_not_want_are_deleted_there_once(
        self, other: Other, worker: Worker, make: Make, edit: Edit, email_id: str
    ) -> None:
        made = make(5)
        worker.push()
        assert set(other.copies) == {email_id, *made}
        some_time_passes()

        assert resync_all() == 6
        assert not unlisted()
        worker.push(**HUBS)

        assert list(other.copies) == [email_id]
        assert sorted(other.gone) == sorted(made)
        assert [str(one) for one in rows("SELECT email_id FROM outbox_mirrored")] == [email_id]
        edit(made[0], "Joan")
        resync_all()
        worker.push(**HUBS)
        assert len(other.gone) == 5

    def test_an_interrupted_one_settles_nothing(self, other: Other, worker: Worker, make: Make) -> None:
        made = make(5)
        worker.push()
        some_time_passes()
        with pool.acquire() as connection:
            next(resync(connection, "other", Selection()))
        assert unlisted()

        some_time_passes()
        resync_all()
        worker.push(**NONE)

        assert not unlisted()
        assert sorted(other.gone) == sorted(made)

    def test_a_worker_that_still_pushes_all_keeps_the_list_incomplete(
        self, other: Other, worker: Worker, make: Make
    ) -> None:
        make(3)
        worker.push()
        some_time_passes()
        with pool.acquire() as connection:
            batches = resync(connection, "other", Selection())
            next(batches)
            (late,) = make(1)
            worker.push()
            rows("DELETE FROM outbox_mirrored WHERE email_id = %s", late)
            assert sum(batches) >= 3
        assert unlisted()

        time_passes()
        worker.push(**NONE)
        assert late in other.gone
        assert waiting() == []

    def test_a_part_of_the_contacts_does_not_complete_the_list(self, other: Other, worker: Worker, make: Make) -> None:
        (email_id,) = make(1)
        worker.push()
        some_time_passes()
        since = row("SELECT now() - interval '1 day'")
        with pool.acquire() as connection:
            assert sum(resync(connection, "other", Selection(since=since))) == 1
        worker.push(**NONE)

        assert unlisted()
        assert other.gone == [email_id]
