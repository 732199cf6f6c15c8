"""`/updates` and `/events` as iterators, against the served app."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from ctms_client import GoneError

from ctms.testing.stub_server import Reply
from tests.generated_clients.installable.conftest import StubService


@pytest.fixture
def since(ctms: Any) -> datetime:
    """A time before which nothing changes any more, after all that other tests did."""
    contact = ctms.contacts.create({"email": {"primary_email": f"{uuid4().hex[:20]}@example.com"}})
    feed = ctms.updates(contact.email.update_timestamp)
    list(feed)
    (start,) = [value for value in feed.position.split("&") if value.startswith("start=")]
    return datetime.fromisoformat(start.removeprefix("start=").replace("%3A", ":").replace("%2B", "+"))


def create(ctms: Any, number: int, **email: Any) -> list[str]:
    """Create contacts; return their ids."""
    return [
        str(
            ctms.contacts.create(
                {"email": {"primary_email": f"{uuid4().hex[:20]}@example.com"}, **email}
            ).email.email_id
        )
        for _ in range(number)
    ]


def ids(contacts: Any) -> list[str]:
    return [str(one.email.email_id) for one in contacts]


def test_all_pages_are_read(ctms: Any, since: datetime) -> None:
    created = create(ctms, 7)

    assert ids(ctms.updates(since, limit=3)) == created
    assert ids(ctms.updates(since.isoformat())) == created
    assert [len(page.items) for page in ctms.updates(since, limit=3).pages()] == [3, 3, 1]


def test_a_feed_continues(ctms: Any, since: datetime) -> None:
    created = create(ctms, 5)
    feed = ctms.updates(since, limit=2)
    assert ids(feed) == created
    assert ids(feed) == []

    more = create(ctms, 3)

    assert ids(ctms.updates(position=feed.position)) == more
    assert ids(feed) == more
    assert "limit=2" in feed.position


def test_no_item_is_lost_when_a_reader_stops(ctms: Any, since: datetime) -> None:
    created = create(ctms, 6)
    feed = ctms.updates(since, limit=2)

    assert ids(islice(feed, 3)) == created[:3]  # within the second page

    rest = ctms.updates(position=feed.position)
    assert ids(rest) == created[2:]


def test_deleted_contacts(ctms: Any, since: datetime) -> None:
    kept, relevant, deleted = create(ctms, 3, mofo={"mofo_relevant": True})
    ctms.contacts.update(relevant, {"mofo": {"mofo_relevant": False}})
    ctms.contacts.delete(ctms.contacts.get(deleted).email.primary_email)
    feed = ctms.updates(since, deleted=True, mofo_relevant=True)

    pages = list(feed.pages())

    assert [one for page in pages for one in ids(page.items)] == [kept]
    assert [str(one.email_id) for page in pages for one in page.deleted] == [deleted]
    assert [str(one.email_id) for page in pages for one in page.left] == [relevant]
    assert "deleted=true" in feed.position
    assert "mofo_relevant=true" in feed.position


def test_a_position_before_the_recorded_deletions(ctms: Any) -> None:
    with pytest.raises(GoneError) as raised:
        list(ctms.updates(datetime(2000, 1, 1, tzinfo=UTC), deleted=True))

    assert raised.value.recorded_since is not None
    assert datetime.fromisoformat(raised.value.recorded_since) > datetime(2000, 1, 1, tzinfo=UTC)


def test_events(ctms: Any, since: datetime) -> None:
    (email_id,) = create(ctms, 1, newsletters=[{"name": "weekly"}, {"name": "daily"}])
    feed = ctms.events(since, limit=1)

    found = list(feed)

    assert {(str(one.email_id), one.name) for one in found} == {(email_id, "weekly"), (email_id, "daily")}
    ctms.contacts.update(email_id, {"newsletters": "UNSUBSCRIBE"})
    later = list(ctms.events(position=feed.position))
    assert {(one.name, one.action) for one in later} == {("weekly", "unsubscribed"), ("daily", "unsubscribed")}


@pytest.mark.parametrize("arguments", [{}, {"since": "2026-01-01", "position": "start=2026-01-01"}])
def test_a_feed_has_one_start(client: Any, arguments: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="either since or position"):
        client.updates(**arguments)


def test_a_feed_that_may_be_read_from_a_replica(client: Any, stub: StubService) -> None:
    page = {"start": "2026-01-01T00:00:00+00:00", "end": "2026-01-02T00:00:00+00:00", "limit": 1, "items": []}
    stub.replies = [Reply(200, body={**page, "after": None, "next": None})]
    feed = client.updates("2026-01-01", stale_ok=True)

    for _ in range(2):  # it continues with the same parameter
        assert list(feed) == []

    queries = [parse_qs(urlsplit(one.path).query) for one in stub.requests]
    assert [query["start"][0][:10] for query in queries] == ["2026-01-01", "2026-01-02"]
    assert [query["stale_ok"] for query in queries] == [["true"], ["true"]]


def test_a_link_to_another_host_is_not_followed(client: Any, stub: StubService) -> None:
    page = {"start": "2026-01-01T00:00:00+00:00", "end": "2026-01-02T00:00:00+00:00", "limit": 1, "items": []}
    stub.replies = [
        Reply(200, body={**page, "after": "c", "next": "http://192.0.2.1:1/updates?start=2026-01-01&after=c%2B"}),
        Reply(200, body={**page, "after": None, "next": None}),
    ]

    assert list(client.updates("2026-01-01")) == []

    assert [one.path for one in stub.requests] == [
        "/updates?start=2026-01-01&limit=1000",
        "/updates?start=2026-01-01&after=c%2B",
    ]
