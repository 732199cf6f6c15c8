"""Batches of any size: chunks, results by index, keys, and `upsert`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from ctms_client import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PreconditionFailedError,
    ServerError,
    batches,
    models,
)

from ctms.testing.stub_server import ReceivedRequest, Reply
from tests.generated_clients.installable.conftest import StubService


def addresses(number: int) -> list[str]:
    return [f"{uuid4().hex[:20]}@example.com" for _ in range(number)]


def item(address: str, **more: Any) -> dict[str, Any]:
    return {"match": {"primary_email": address}, "contact": {"email": {"first_name": "Ada"}}, **more}


def test_results_have_the_index_of_their_items(ctms: Any) -> None:
    known, unknown, new = addresses(3)
    email_id = ctms.contacts.create({"email": {"primary_email": known}}).email.email_id
    items = [
        item(known),
        item(unknown, mode="update"),
        models.BatchItem(
            match=models.BatchMatch(primary_email=new),
            contact=models.ContactPatch(newsletters=[models.NewsletterPatch(name="weekly")]),
        ),
        {"match": {"primary_email": known}, "contact": {"email": {"email_format": "X"}}},
        item(known),
    ]

    results = list(ctms.batch(items, chunk=2))

    assert [result.index for result in results] == [0, 1, 2, 3, 4]
    assert [result.status for result in results] == ["updated", "not_found", "created", "invalid", "unchanged"]
    assert results[0].email_id == results[4].email_id == email_id
    assert [error.loc[:3] for result in results for error in result.errors] == [
        ["body", "items", 1],
        ["body", "items", 3],
    ]
    assert [one.name for one in ctms.contacts.get(results[2].email_id).newsletters] == ["weekly"]


def test_a_batch_is_continued_with_its_key(ctms: Any) -> None:
    created, key = addresses(5), str(uuid4())
    items = [item(address) for address in created]
    started = iter(ctms.batch(items, chunk=2, key=key))
    first = [next(started) for _ in range(3)]

    results = list(ctms.batch(items, chunk=2, key=key))

    assert results[:3] == first
    assert [result.status for result in results] == ["created"] * 5  # as the first time
    with pytest.raises(InvalidRequestError):
        list(ctms.batch(items[1:], chunk=2, key=key))


def test_all_or_nothing(ctms: Any) -> None:
    new, unknown = addresses(2)

    with pytest.raises(ConflictError) as raised:
        list(ctms.batch([item(new), item(unknown, mode="update")], atomic=True))

    assert [(one["index"], one["status"]) for one in raised.value.body["items"]] == [(1, "not_found")]
    assert ctms.contacts.find(primary_email=new) == []
    assert [result.status for result in ctms.batch([item(new)], atomic=True)] == ["created"]


def test_upsert(ctms: Any) -> None:
    (address,) = addresses(1)
    body = {"email": {"primary_email": address}, "newsletters": [{"name": "weekly"}]}

    created = ctms.contacts.upsert(address, body)
    replaced = ctms.contacts.upsert(address.upper(), {**body, "newsletters": []}, if_match=created.etag)

    assert replaced.email.email_id == created.email.email_id
    assert (len(created.newsletters), replaced.newsletters) == (1, [])
    with pytest.raises(PreconditionFailedError):
        ctms.contacts.upsert(address, body, if_match=created.etag)


class Batches:
    """Replies to batches: every item is created."""

    def __init__(self, stub: StubService) -> None:
        self.keys: list[str] = []
        self.sizes: list[int] = []
        tokens = stub.server.reply
        assert callable(tokens)
        self._tokens = tokens
        stub.server.reply = self._reply

    def _reply(self, request: ReceivedRequest) -> Reply:
        if request.path == "/token":
            return self._tokens(request)
        self.keys.append(str(request.headers["Idempotency-Key"]))
        items = request.json["items"]
        self.sizes.append(len(items))
        if len(self.keys) == 2:
            return Reply(sends=b"")  # the connection is lost
        result: dict[str, Any] = {
            "status": "created",
            "email_id": None,
            "email_ids": [],
            "merged_into": None,
            "errors": [],
        }
        return Reply(207, body={"items": [{"index": index, **result} for index in range(len(items))]})


@pytest.mark.usefixtures("delays")
def test_a_lost_chunk_is_sent_again_with_its_key(client: Any, stub: StubService) -> None:
    replies = Batches(stub)

    results = list(client.batch((item(address) for address in addresses(5)), chunk=2))

    assert [result.index for result in results] == [0, 1, 2, 3, 4]
    assert replies.sizes == [2, 2, 2, 1]
    first, second, again, third = replies.keys
    assert second == again
    assert len({first, second, third}) == 3
    assert len({key.rpartition("-")[0] for key in replies.keys}) == 1


def test_items_are_read_while_they_are_sent(client: Any, stub: StubService) -> None:
    replies = Batches(stub)
    read = []

    def items() -> Iterator[dict[str, Any]]:
        for number, address in enumerate(addresses(10)):
            read.append(number)
            yield item(address)

    results = iter(client.batch(items(), chunk=2))
    next(results)

    assert replies.sizes == [2]
    assert len(read) <= 3


def test_a_request_is_not_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    length = len(json.dumps(item("a@example.com"), separators=(",", ":")))
    monkeypatch.setattr(batches, "MAX_BYTES", 3 * length + 10)
    items = [item("a@example.com")] * 7
    large = [item("a" * 5 * length)]

    sizes = [
        len(json.loads(request.content or b"")["items"])
        for request in batches.batch_requests(items + large + items[:1], batches.BatchOptions())
    ]

    assert sizes == [3, 3, 1, 1, 1]


def test_what_is_not_sent(client: Any, stub: StubService) -> None:
    assert list(client.batch([])) == []
    for options, message in (
        ({"chunk": 0}, "chunk must be from 1 to 1000"),
        ({"chunk": 1001}, "chunk must be from 1 to 1000"),
        ({"chunk": 1, "atomic": True}, "an atomic batch has at most 1 items"),
    ):
        with pytest.raises(ValueError, match=message):
            list(client.batch([item("a@example.com")] * 2, **options))

    assert stub.requests == []


@pytest.mark.usefixtures("delays")
def test_a_conditional_upsert_is_not_repeated(client: Any, stub: StubService) -> None:
    for if_match, attempts in ((None, 2), ('"1"', 1)):
        stub.server.received.clear()
        stub.replies = [Reply(502), Reply(404)]
        with pytest.raises(NotFoundError if if_match is None else ServerError):
            client.contacts.upsert("a+b@example.com", {"email": {}}, if_match=if_match)
        assert len(stub.requests) == attempts
        assert stub.requests[0].path == "/ctms?primary_email=a%2Bb%40example.com"
