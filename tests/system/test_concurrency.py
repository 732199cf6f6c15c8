"""Many clients at once, over HTTP: right answers only, and an end state that holds every change."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import requests

from tests.contacts.factories import full, minimal
from tests.serving import Served

CLIENTS = 50


def at_once(
    served: Served, token: str, calls: Sequence[Callable[[requests.Session], requests.Response]]
) -> list[requests.Response]:
    """Make the calls at once, each as a client of its own; returns their answers in order."""
    start = Barrier(len(calls), timeout=120)  # one that cannot begin must not block the others

    def run(call: Callable[[requests.Session], requests.Response]) -> requests.Response:
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {token}"
            session.get(f"{served.url}/__lbheartbeat__", timeout=60)
            start.wait()
            return call(session)

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def statuses(answers: list[requests.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def test_every_change_of_one_contact_is_kept(served: Served, session: requests.Session, token: str) -> None:
    path = session.post(f"{served.url}/ctms", json=minimal(), timeout=60).headers["Location"]

    def patch(number: int) -> Callable[[requests.Session], requests.Response]:
        change: dict[str, Any] = {
            "newsletters": [{"name": f"n{number:02}"}],
            "amo": {"user": True},
            "fxa": {"lang": f"l{number}"},
        }
        return lambda client: client.patch(f"{served.url}{path}", json=change, timeout=60)

    answers = at_once(served, token, [patch(number) for number in range(CLIENTS)])

    assert statuses(answers) == {200: CLIENTS}
    contact = session.get(f"{served.url}{path}", timeout=60).json()
    assert [entry["name"] for entry in contact["newsletters"]] == [f"n{number:02}" for number in range(CLIENTS)]
    sizes = sorted(len(answer.json()["newsletters"]) for answer in answers)
    assert sizes == list(range(1, CLIENTS + 1))
    moments = [answer.json()["email"]["update_timestamp"] for answer in answers]
    assert max(moments) == contact["email"]["update_timestamp"]


def test_the_same_contact_is_created_once(served: Served, token: str) -> None:
    contact = full()

    answers = at_once(
        served,
        token,
        [lambda client: client.post(f"{served.url}/ctms", json=contact, timeout=60) for _ in range(CLIENTS)],
    )

    assert statuses(answers) == {201: 1, 200: CLIENTS - 1}
    assert len({answer.text for answer in answers}) == 1


def test_one_address_is_given_once(served: Served, token: str) -> None:
    contacts = [minimal(primary_email=f"one-{uuid.UUID(int=7)}@example.com") for _ in range(20)]

    answers = at_once(
        served,
        token,
        [lambda client, body=body: client.post(f"{served.url}/ctms", json=body, timeout=60) for body in contacts],  # type: ignore[misc]
    )

    assert statuses(answers) == {201: 1, 409: 19}
    assert {answer.json().get("field", "primary_email") for answer in answers} == {"primary_email"}


def test_a_new_contact_may_be_put_by_many(served: Served, token: str) -> None:
    for _ in range(5):
        contact = full()
        url = f"{served.url}/ctms/{contact['email']['email_id']}"

        answers = at_once(
            served,
            token,
            [lambda client, url=url, body=contact: client.put(url, json=body, timeout=60) for _ in range(16)],  # type: ignore[misc]
        )

        assert statuses(answers) == {201: 16}


def test_a_new_contact_may_be_posted_and_put(served: Served, session: requests.Session, token: str) -> None:
    for _ in range(3):
        contact = full()
        url = f"{served.url}/ctms/{contact['email']['email_id']}"

        def post(client: requests.Session, body: dict[str, Any] = contact) -> requests.Response:
            return client.post(f"{served.url}/ctms", json=body, timeout=60)

        def put(client: requests.Session, url: str = url, body: dict[str, Any] = contact) -> requests.Response:
            return client.put(url, json=body, timeout=60)

        answers = at_once(served, token, [post, put] * 8)

        assert set(statuses(answers[::2])) <= {200, 201}
        assert statuses(answers[::2])[201] <= 1
        assert statuses(answers[1::2]) == {201: 8}
        end = session.get(url, timeout=60).json()
        assert len({*[entry["name"] for entry in end["newsletters"]]}) == len(contact["newsletters"])


def test_a_contact_may_be_created_during_its_deletion(served: Served, session: requests.Session, token: str) -> None:
    """A writer that finds neither the contact nor a free address retries: a deleted contact is no conflict."""
    for _ in range(3):
        contact = full()
        url = f"{served.url}/ctms/{contact['email']['email_id']}"
        session.put(url, json=contact, timeout=60)

        def post(client: requests.Session, body: dict[str, Any] = contact) -> requests.Response:
            return client.post(f"{served.url}/ctms", json=body, timeout=60)

        def put(client: requests.Session, url: str = url, body: dict[str, Any] = contact) -> requests.Response:
            return client.put(url, json=body, timeout=60)

        def delete(client: requests.Session, address: str = contact["email"]["primary_email"]) -> requests.Response:
            return client.delete(f"{served.url}/ctms/{address}", timeout=60)

        answers = at_once(served, token, [post, put, delete, delete] * 4)

        assert set(statuses(answers[::4])) <= {200, 201}
        assert statuses(answers[1::4]) == {201: 4}
        assert set(statuses(answers[2::4] + answers[3::4])) <= {200, 404}
        made_again = session.put(url, json=contact, timeout=60)
        assert made_again.status_code == 201
        assert len(made_again.json()["newsletters"]) == len(contact["newsletters"])


def test_putting_and_patching_leave_one_or_the_other_order(
    served: Served, session: requests.Session, token: str
) -> None:
    contact = full()
    url = f"{served.url}/ctms/{contact['email']['email_id']}"
    session.put(url, json=contact, timeout=60)
    put = {**contact, "newsletters": [{"name": "put"}], "mofo": {"mofo_relevant": True}}
    patch: dict[str, Any] = {
        "newsletters": [{"name": "patch"}],
        "waitlists": "UNSUBSCRIBE",
        "amo": "DELETE",
        "email": {"last_name": "Patched"},
    }

    answers = at_once(
        served,
        token,
        [
            (lambda client: client.put(url, json=put, timeout=60))
            if number % 2
            else (lambda client: client.patch(url, json=patch, timeout=60))
            for number in range(20)
        ],
    )

    assert statuses(answers) == {201: 10, 200: 10}
    end = session.get(url, timeout=60).json()
    names = [entry["name"] for entry in end["newsletters"]]
    patched_last = names == ["patch", "put"]
    assert patched_last or names == ["put"]
    assert end["email"]["last_name"] == ("Patched" if patched_last else contact["email"]["last_name"])
    assert (end["amo"]["display_name"] is None) == patched_last
    assert all(not entry["subscribed"] for entry in end["waitlists"]) == patched_last
    for answer in answers:
        found = answer.json()
        expected = {"patch", "put"} if answer.status_code == 200 else {"put"}
        assert {entry["name"] for entry in found["newsletters"]} <= expected | {"ambassadors", "hubs"}


def test_merges_in_opposite_directions_have_one_winner(served: Served, session: requests.Session, token: str) -> None:
    for _ in range(5):
        ids = [session.post(f"{served.url}/ctms", json=full(), timeout=60).json()["email"]["email_id"] for _ in "ab"]

        def merge(client: requests.Session, target: str, source: str) -> requests.Response:
            return client.post(f"{served.url}/ctms/{target}/merge", json={"from": source}, timeout=60)

        calls = [partial(merge, target=target, source=source) for target, source in (ids, ids[::-1])]
        answers = at_once(served, token, calls * 4)

        assert statuses(answers) == {200: 1, 404: 7}
        (done,) = (answer for answer in answers if answer.status_code == 200)
        kept = done.json()["contact"]["email"]["email_id"]
        assert {answer.json().get("merged_into") for answer in answers if answer is not done} == {kept}
        (lost,) = set(ids) - {kept}
        assert session.get(f"{served.url}/ctms/{lost}", timeout=60).json()["merged_into"] == kept


def test_changes_during_a_merge_are_kept_or_refused(served: Served, session: requests.Session, token: str) -> None:
    for _ in range(5):
        bodies = [full(), full()]
        target, source = (
            session.post(f"{served.url}/ctms", json=body, timeout=60).json()["email"]["email_id"] for body in bodies
        )

        def patch(client: requests.Session, email_id: str, name: str) -> requests.Response:
            change: dict[str, Any] = {"newsletters": [{"name": name}], "amo": {"username": name}, "fxa": {"lang": name}}
            return client.patch(f"{served.url}/ctms/{email_id}", json=change, timeout=60)

        def merge(client: requests.Session, target: str = target, source: str = source) -> requests.Response:
            return client.post(f"{served.url}/ctms/{target}/merge", json={"from": source}, timeout=60)

        def delete(client: requests.Session, address: str = bodies[1]["email"]["primary_email"]) -> requests.Response:
            return client.delete(f"{served.url}/ctms/{address}", timeout=60)

        changes = [
            partial(patch, email_id=email_id, name=f"{end}{number}")
            for number in range(6)
            for end, email_id in (("t", target), ("s", source))
        ]
        answers = at_once(served, token, [*changes, merge, delete])

        merged, deleted = answers[-2:]
        assert sorted((merged.status_code, deleted.status_code)) == [200, 404]
        contact = session.get(f"{served.url}/ctms/{target}", timeout=60).json()
        stored = {entry["name"] for entry in contact["newsletters"]}
        for number in range(6):
            of_target, of_source = answers[2 * number : 2 * number + 2]
            assert of_target.status_code == 200
            assert f"t{number}" in stored
            assert of_source.status_code in {200, 404}
            assert (f"s{number}" in stored) == (of_source.status_code == 200 and merged.status_code == 200)


def test_contacts_that_swap_unique_values_conflict_without_errors(
    served: Served, session: requests.Session, token: str
) -> None:
    """Each change needs the other contact's value, so no order can succeed.

    PostgreSQL aborts one of two that wait for each other; its client may retry (503).
    """
    one, other = full(), full()
    urls = []
    for contact in (one, other):
        session.post(f"{served.url}/ctms", json=contact, timeout=60)
        urls.append(f"{served.url}/ctms/{contact['email']['email_id']}")

    def take(url: str, contact: dict[str, Any]) -> Callable[[requests.Session], requests.Response]:
        change = {
            "email": {"basket_token": contact["email"]["basket_token"]},
            "fxa": {"fxa_id": contact["fxa"]["fxa_id"]},
        }
        return lambda client: client.patch(url, json=change, timeout=60)

    answers = at_once(served, token, [take(urls[0], other), take(urls[1], one)] * 5)

    assert set(statuses(answers)) <= {409, 503}
    assert 409 in statuses(answers)
    for url, contact in zip(urls, (one, other), strict=True):
        assert session.get(url, timeout=60).json()["fxa"]["fxa_id"] == contact["fxa"]["fxa_id"]
        assert session.patch(url, json={}, timeout=60).status_code == 200


def test_deleting_and_changing_at_once(served: Served, session: requests.Session, token: str) -> None:
    for _ in range(3):
        contact = full()
        url = f"{served.url}/ctms/{contact['email']['email_id']}"
        session.put(url, json=contact, timeout=60)

        def delete(client: requests.Session, address: str = contact["email"]["primary_email"]) -> requests.Response:
            return client.delete(f"{served.url}/ctms/{address}", timeout=60)

        def patch(client: requests.Session, url: str = url) -> requests.Response:
            return client.patch(url, json={"newsletters": [{"name": "late"}], "amo": {"user": True}}, timeout=60)

        answers = at_once(served, token, [delete, *[patch] * 8, delete])

        deletions = Counter(answer.status_code for answer in (answers[0], answers[-1]))
        assert deletions == {200: 1, 404: 1}
        assert set(statuses(answers[1:-1])) <= {200, 404}
        assert session.get(url, timeout=60).status_code == 404


def test_only_one_of_many_conditional_changes_wins(served: Served, session: requests.Session, token: str) -> None:
    created = session.post(f"{served.url}/ctms", json=minimal(), timeout=60)
    url, known = f"{served.url}{created.headers['Location']}", created.headers["ETag"]

    answers = at_once(
        served,
        token,
        [
            lambda client: client.patch(
                url, json={"email": {"first_name": "x"}}, headers={"If-Match": known}, timeout=60
            )
            for _ in range(20)
        ],
    )

    assert statuses(answers) == {200: 1, 412: 19}


def test_readers_of_one_client_do_not_wait_for_each_other(
    served: Served, session: requests.Session, token: str
) -> None:
    path = session.post(f"{served.url}/ctms", json=minimal(), timeout=60).headers["Location"]

    answers = at_once(
        served, token, [lambda client: client.get(f"{served.url}{path}", timeout=60) for _ in range(CLIENTS)]
    )

    assert statuses(answers) == {200: CLIENTS}
