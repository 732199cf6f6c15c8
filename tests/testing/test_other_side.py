"""The server that stands for other systems remembers what it was sent, and fails as it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from ctms.testing import OtherSide, Reply


@pytest.fixture
def other_side() -> Iterator[OtherSide]:
    """The server."""
    with OtherSide() as running:
        yield running


def test_it_remembers_and_answers(other_side: OtherSide) -> None:
    with requests.Session() as session:
        first = session.post(f"{other_side.url}/a?b=c", json={"name": "Zoë"}, headers={"X-Key": "1"}, timeout=5)
        other_side.reply = Reply(207, {"X-Left": "5"}, {"errors": []})
        second = session.get(other_side.url, timeout=5)

    assert (first.status_code, first.content) == (204, b"")
    assert (second.status_code, second.headers["X-Left"], second.json()) == (207, "5", {"errors": []})
    post, get = other_side.received
    assert (post.method, post.path, post.headers["X-Key"], post.json) == ("POST", "/a?b=c", "1", {"name": "Zoë"})
    assert (get.method, get.path, get.body) == ("GET", "/", b"")


def test_it_answers_by_the_request(other_side: OtherSide) -> None:
    other_side.reply = lambda request: Reply(200, body=request.body.upper())

    assert requests.post(other_side.url, data=b"abc", timeout=5).content == b"ABC"


RAISED: dict[str, type[Exception]] = {
    "slow": requests.ReadTimeout,
    "closed": requests.ConnectionError,
    "half closed": requests.exceptions.ChunkedEncodingError,
    "no HTTP": requests.ConnectionError,
}


@pytest.mark.parametrize("how", OtherSide.FAILURES)
def test_it_fails(how: str, other_side: OtherSide) -> None:
    other_side.fails(how)

    if how in RAISED:
        with pytest.raises(RAISED[how]):
            requests.post(other_side.url, data=b"x", timeout=0.2)
    else:
        answer = requests.post(other_side.url, data=b"x", timeout=5, allow_redirects=False)
        assert str(answer.status_code) == {"redirect": "302"}.get(how, how)
    assert [request.body for request in other_side.received] == [b"x"]


def test_it_ends_while_clients_hold_on() -> None:
    with requests.Session() as session, OtherSide() as running:
        session.post(running.url, timeout=5)

    with pytest.raises(requests.ConnectionError):
        requests.post(running.url, timeout=5)
