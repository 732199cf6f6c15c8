"""Compressed pages: `/updates`, events and searches, for clients that accept zstd or gzip."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable

import pytest
import zstandard

from tests.contacts.rows import insert, insert_contact
from tests.http import ApiClient

DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": zstandard.ZstdDecompressor().decompress,
    "gzip": gzip.decompress,
}
DAY = "start=2021-05-01T00:00:00Z&end=2021-05-02T00:00:00Z"


@pytest.fixture
def contact() -> str:
    """Return the id of a contact with a document of several kilobytes."""
    email_id = insert_contact(update_timestamp="2021-05-01T08:00:00Z", first_name="José")
    for number in range(20):
        insert("newsletters", email_id=email_id, name=f"compressed-{number}", subscribed=True)
    return email_id


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("ZSTD;q=0.5, GZip;q=0.8", "gzip"),
        ("*", "gzip"),
    ],
)
def test_a_page_is_compressed_as_its_client_prefers(api: ApiClient, contact: str, accepted: str, encoding: str) -> None:
    plain = api.get(f"/updates?{DAY}")

    answer = api.get(f"/updates?{DAY}", headers={"Accept-Encoding": accepted})

    assert answer.headers["Content-Encoding"] == encoding
    assert int(answer.headers["Content-Length"]) == len(answer.data) < len(plain.data) / 2
    assert DECOMPRESS[encoding](answer.data) == plain.data
    assert answer.content_type == plain.content_type == "application/json"
    assert contact in plain.text


@pytest.mark.parametrize("accepted", [None, "", "identity", "br", "gzip;q=0, zstd;q=0", "zstd;q=0"])
def test_it_is_not_compressed_otherwise(api: ApiClient, contact: str, accepted: str | None) -> None:
    answer = api.get(f"/updates?{DAY}", headers={} if accepted is None else {"Accept-Encoding": accepted})

    assert "Content-Encoding" not in answer.headers
    assert [found["email"]["email_id"] for found in answer.json["items"]] == [contact]
    assert answer.headers["Vary"] == "Accept-Encoding", "caches keep both forms apart"


def test_a_short_page_is_not_compressed(api: ApiClient) -> None:
    answer = api.get("/updates?start=2001-05-01&end=2001-05-02", headers={"Accept-Encoding": "gzip, zstd"})

    assert answer.json["items"] == []
    assert "Content-Encoding" not in answer.headers


def test_head_has_the_length_of_the_compressed_page(api: ApiClient, contact: str) -> None:
    compressed = api.get(f"/updates?{DAY}", headers={"Accept-Encoding": "gzip"})

    answer = api.request("HEAD", f"/updates?{DAY}", headers={"Accept-Encoding": "gzip"})

    assert contact in gzip.decompress(compressed.data).decode()
    assert answer.headers["Content-Length"] == compressed.headers["Content-Length"]


def test_events_and_searches_are_compressed(api: ApiClient, contact: str) -> None:
    accept = {"Accept-Encoding": "zstd"}
    body = {"filter": {"newsletters": "compressed-7"}}

    found = api.post("/ctms/search", body, headers=accept)
    events = api.get(f"/ctms/{contact}/history", headers=accept)

    for answer in (found, events):
        assert answer.status_code == 200
        assert answer.headers["Content-Encoding"] == "zstd"
        assert json.loads(DECOMPRESS["zstd"](answer.data))["items"]
