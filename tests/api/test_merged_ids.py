"""What a merge leaves behind: the id of the source leads to the target, through all merges, until it is used again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.api.test_history import create
from tests.api.test_merges import UNKNOWN, merge, merged
from tests.contacts.factories import address
from tests.contacts.rows import execute
from tests.http import Answer, ApiClient


@pytest.mark.parametrize(
    "ask",
    [
        lambda api, path: api.get(path),
        lambda api, path: api.patch(path, {}),
        lambda api, path: api.patch(path, {"email": {"primary_email": "ines@münchen.example.com"}}),
        lambda api, path: api.patch(path, {}, headers={"If-Match": '"x"'}),
        lambda api, path: api.get(path.replace("ctms", "identity")),
        lambda api, path: api.get(f"{path}/history"),
        lambda api, path: api.post(f"{path}/merge", {"from": UNKNOWN}),
    ],
)
def test_the_id_leads_to_the_contact_through_all_merges(
    api: ApiClient, ask: Callable[[ApiClient, str], Answer]
) -> None:
    first, second, third = (create(api) for _ in range(3))
    merged(api, second, first)
    merged(api, third, second)

    answer = ask(api, first)

    assert (answer.status_code, answer.json) == (
        404,
        {"detail": "Unknown email_id", "merged_into": third.rpartition("/")[2]},
    )
    again = {"email": {"email_id": second.rpartition("/")[2], "primary_email": address()}}
    assert api.put(second, again).status_code == 201  # another person
    assert ask(api, first).json == answer.json


def test_nothing_leads_to_an_erased_contact(api: ApiClient) -> None:
    first, second = create(api), create(api)
    contact = merged(api, second, first)["contact"]
    api.delete(f"/ctms/{contact['email']['primary_email']}")

    assert api.get(first).json == {"detail": "Unknown email_id"}


def test_nothing_leads_to_the_next_contact_with_an_erased_ones_id(api: ApiClient) -> None:
    first, second, third = (create(api) for _ in range(3))
    contact = merged(api, second, first)["contact"]
    api.delete(f"/ctms/{contact['email']['primary_email']}")
    again = {"email": {"email_id": second.rpartition("/")[2], "primary_email": address()}}

    assert api.put(second, again).status_code == 201  # another person
    execute("SET CONSTRAINTS ALL IMMEDIATE")  # as at the end of the transaction

    assert api.get(first).json == {"detail": "Unknown email_id"}
    merged(api, third, second)
    assert api.get(first).json == {"detail": "Unknown email_id"}


def test_an_erasure_by_the_merged_id_names_the_contact_that_was_kept(api: ApiClient) -> None:
    first, second, third = (create(api) for _ in range(3))
    merged(api, second, first)
    merged(api, third, second)
    wanted = {"identities": [{"email_id": path.rpartition("/")[2]} for path in (first, UNKNOWN)]}

    kept = api.post("/erasures", wanted).json

    assert (kept["contacts"], kept["unknown"], kept["also_known_in"]) == (0, 2, 1)
    assert api.get(third).status_code == 200
    erased = api.post("/erasures", {**wanted, "include_fxa": True}).json
    assert (erased["contacts"], erased["unknown"], erased["also_known_in"]) == (1, 1, 0)
    assert api.get(third).status_code == 404


def test_an_erasure_by_the_merged_id_erases_nobody_else(api: ApiClient) -> None:
    own = address()
    source, target = create(api), create(api, email={"primary_email": own})
    other = create(api, fxa={"fxa_id": own, "primary_email": own})
    merged(api, target, source)

    wanted = {"identities": [{"email_id": source.rpartition("/")[2]}]}
    assert api.post("/erasures", wanted).json["also_known_in"] == 1
    assert api.post("/erasures", {**wanted, "include_fxa": True}).json["contacts"] == 1

    assert (api.get(target).status_code, api.get(other).status_code) == (404, 200)


@pytest.mark.usefixtures("erasure_key")
def test_an_erasure_is_found_by_the_addresses_that_were_lost(api: ApiClient) -> None:
    lost, last = address(), address()
    source, middle = create(api, email={"primary_email": lost}), create(api)
    target = create(api, email={"primary_email": last})
    merged(api, middle, source)
    merged(api, target, middle)
    assert api.delete(f"/ctms/{last}").status_code == 200

    answers = [api.post("/erasures", {"emails": [one]}).json for one in (lost, address())]

    assert [answer["unknown"] for answer in answers] == [0, 1]


def test_put_creates_the_contact_again(api: ApiClient) -> None:
    target, source = create(api), create(api)
    email = api.get(source).json["email"]
    merged(api, target, source)

    assert api.put(source, {"email": email}).status_code == 201

    assert api.get(source).status_code == 200
    assert merged(api, source, target)["merged_from"] == target.rpartition("/")[2]
    assert api.get(target).json["merged_into"] == source.rpartition("/")[2]


def test_the_target_is_in_updates_and_a_repetition_names_it(api: ApiClient) -> None:
    target, source = create(api), create(api)
    start = datetime.now(UTC).isoformat().replace("+", "%2B")

    merged(api, target, source)

    (item,) = api.get(f"/updates?start={start}").json["items"]
    assert item["email"]["email_id"] == target.rpartition("/")[2]
    again = merge(api, target, source)
    assert (again.status_code, again.json) == (
        404,
        {"detail": "Unknown email_id", "field": "from", "merged_into": target.rpartition("/")[2]},
    )


@pytest.mark.parametrize("relevant", [0, 1])
def test_the_foundation_learns_of_a_contact_that_becomes_relevant(api: ApiClient, relevant: int) -> None:
    paths = [create(api, mofo={"mofo_relevant": True} if number == relevant else None) for number in range(2)]

    assert merged(api, *paths)["contact"]["mofo"]["mofo_relevant"] is True

    found = execute("SELECT count(*) FROM mofo_relevance_changes WHERE email_id = :id", id=paths[0].rpartition("/")[2])
    assert found == 1
