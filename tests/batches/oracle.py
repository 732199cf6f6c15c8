"""An oracle for batches: the same items, one by one through the routes for single contacts.

Items and contacts are built from a *tag*, so that a batch and the oracle can work on two populations that differ only
in it.
"""

from __future__ import annotations

import copy
import random
from typing import Any

from tests.http import ApiClient

Item = dict[str, Any]

PEOPLE = 8
IDENTITIES = ("email_id", "primary_email", "basket_token", "sfdc_id", "mofo_email_id", "fxa_id")
PARTS = {"fxa_id": "fxa", "mofo_email_id": "mofo"}
LISTS = ("newsletters", "waitlists")
STATUSES = {201: "created", 200: "unchanged", 409: "conflict", 403: "suppressed", 422: "invalid"}
"""The results of items, by the statuses of POST."""


def identity(tag: str, name: str, person: int) -> str:
    """Return an identity of a person; the spelling of the address varies."""
    if name in {"email_id", "basket_token"}:
        return f"{tag}{person:04d}-0000-4000-8000-{'0' if name == 'email_id' else '1'}00000000000"
    return f"p{person}-{tag}@example.com" if name == "primary_email" else f"{name}-{person}-{tag}"


def respelt(text: str, chance: random.Random) -> str:
    """Return another spelling of an address."""
    return chance.choice([text, text.upper(), text.replace("@example", "@EXAMPLE")])


def random_items(tag: str, seed: int, number: int) -> list[Item]:
    """Return random items about few people: valid, duplicate, suppressed, conflicting and invalid ones."""
    chance = random.Random(seed)  # noqa: S311
    return [_item(tag, chance) for _ in range(number)]


def _item(tag: str, chance: random.Random) -> Item:
    person = chance.randrange(PEOPLE)
    name = chance.choice(IDENTITIES)
    value = identity(tag, name, person)
    item: Item = {
        "match": {name: respelt(value, chance) if name == "primary_email" else value},
        "mode": chance.choice(["create", "update", "upsert", "upsert"]),
        "contact": _contact(tag, person, chance),
    }
    if chance.random() < 0.1:
        _spoil(item, chance)
    if chance.random() < 0.05:
        item["if_match"] = chance.choice(["*", '"stale"', 'W/"stale"'])
    return item


def _contact(tag: str, person: int, chance: random.Random) -> dict[str, Any]:
    def one_of_another(rate: float) -> int:
        return chance.randrange(PEOPLE) if chance.random() < rate else person

    email: dict[str, Any] = {}
    contact: dict[str, Any] = {"email": email}
    if chance.random() < 0.7:
        email["primary_email"] = respelt(identity(tag, "primary_email", one_of_another(0.2)), chance)
    if chance.random() < 0.03:
        email["primary_email"] = f"suppressed-{tag}@example.com"
    for name, rate in (("email_id", 0.3), ("basket_token", 0.4), ("sfdc_id", 0.3)):
        if chance.random() < rate:
            email[name] = identity(tag, name, one_of_another(0.15))
    email |= chance.choice([{}, {"first_name": "Jane"}, {"first_name": None}, {"has_opted_out_of_email": "yes"}])
    for name, part in PARTS.items():
        if chance.random() < 0.25:
            contact[part] = chance.choice(
                [
                    "DELETE",
                    {},
                    {name: identity(tag, name, one_of_another(0.15))},
                    {"lang": "fr"} if part == "fxa" else {"mofo_relevant": True},
                    {"lang": None} if part == "fxa" else {"mofo_relevant": False},
                ]
            )
    for part in ("newsletters", "waitlists"):
        if chance.random() < 0.5:
            contact[part] = chance.choice([_entries(part, chance), _entries(part, chance), "UNSUBSCRIBE"])
    return contact


def _entries(part: str, chance: random.Random) -> list[dict[str, Any]]:
    names = chance.sample(["a", "b", "vpn"], chance.randrange(3))
    found = []
    for name in names:
        entry: dict[str, Any] = {"name": name, **chance.choice([{}, {"subscribed": False}, {"subscribed": True}])}
        entry |= chance.choice(
            [{}, {}, {"source": "https://example.com/"}, {"evidence": {"form": f"f{chance.random()}"}}]
        )
        if part == "waitlists" and chance.random() < 0.5:
            entry["fields"] = chance.choice([{}, {"geo": "fr"}, {"geo": "fr", "platform": "linux"}])
        found.append(entry)
    return found


def _spoil(item: Item, chance: random.Random) -> None:
    """Make an item invalid."""
    part, value = chance.choice(
        [
            ("email", {"primary_email": "no address"}),
            ("email", {"email_lang": "too long"}),
            ("newsletters", [{"name": "a"}, {"name": "a"}]),
            ("waitlists", [{"name": "vpn", "fields": {"seats": 1}}]),
        ]
    )
    contact = item["contact"]
    contact[part] = {**contact["email"], **value} if isinstance(value, dict) else value


def one_by_one(api: ApiClient, items: list[Item]) -> list[str]:
    """Write the items by POST and PATCH, and return the status that each should have in a batch."""
    return [_write(api, item) for item in items]


def find(api: ApiClient, name: str, value: str) -> list[dict[str, Any]]:
    """Return the contacts with an identity."""
    answer = api.get("/ctms", query_string={name: value})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json
    return found


def _write(api: ApiClient, item: Item) -> str:
    [(name, value)] = item["match"].items()
    matched = find(api, name, value)
    is_address = item["contact"]["email"].get("primary_email") != "no address"
    if _is_invalid(item["contact"]) or (not is_address and (item["mode"] == "create" or not matched)):
        return "invalid"
    if item["mode"] == "create":
        return _post(api, item, matched)
    if len(matched) > 1:
        return "conflict"
    if not matched:
        if item["mode"] == "update":
            return "not_found"
        return "conflict" if "if_match" in item else _post(api, item, matched)
    return _patch(api, item, matched[0])


def _is_invalid(contact: dict[str, Any]) -> bool:
    """Return whether `_spoil` made the contact invalid."""
    email = contact["email"]
    names = [entry["name"] for entry in contact.get("newsletters", ()) if isinstance(entry, dict)]
    fields = [entry.get("fields", {}) for entry in contact.get("waitlists", ()) if isinstance(entry, dict)]
    return (
        email.get("email_lang") == "too long" or len(names) != len(set(names)) or any("seats" in one for one in fields)
    )


def _post(api: ApiClient, item: Item, matched: list[dict[str, Any]]) -> str:
    is_create = item["mode"] == "create"
    [(name, value)] = item["match"].items()
    contact = copy.deepcopy(item["contact"])
    for part in ("newsletters", "waitlists", "fxa", "mofo"):
        if isinstance(contact.get(part), str):
            if is_create:
                return "invalid"
            del contact[part]  # a new contact has none
    group = contact.setdefault(PARTS.get(name, "email"), {})
    if group.setdefault(name, value).lower() != value.lower() or "primary_email" not in contact["email"]:
        return "invalid"
    if is_create and (refused := _refuse_new(api, item, contact, _ids(matched))):
        return refused
    return STATUSES[api.post("/ctms", contact).status_code]


def _refuse_new(api: ApiClient, item: Item, contact: dict[str, Any], involved: set[str]) -> str | None:
    """Return why a contact cannot be created, None if POST decides, which needs the id to recognize the same one."""
    involved = involved | _holders(api, contact, ("email_id", "primary_email", "basket_token"))
    if "if_match" in item and (item["if_match"] != "*" or len(involved) != 1):
        return "conflict"
    if involved:
        if contact["email"]["primary_email"].startswith("suppressed"):
            return "suppressed"
        if len(involved) > 1:
            return "conflict"
        contact["email"].setdefault("email_id", *involved)
    return None


def _patch(api: ApiClient, item: Item, before: dict[str, Any]) -> str:
    if item.get("if_match", "*") != "*":
        return "conflict"
    patch = copy.deepcopy(item["contact"])
    own = before["email"]["email_id"]
    if patch["email"].get("email_id", own) != own:
        if patch["email"].get("primary_email") == "no address":
            return "invalid"
        return "conflict" if _holders(api, patch, ("email_id", "primary_email", "basket_token")) - {own} else "invalid"
    answer = api.patch(f"/ctms/{own}", patch)
    if answer.status_code != 200:
        return STATUSES[answer.status_code]
    known = {(part, one["name"]) for part in LISTS for one in before[part]}
    proven = any(
        one.get("evidence") and ((part, one["name"]) in known or one.get("subscribed", True))
        for part in LISTS
        for one in patch.get(part, ())
        if isinstance(one, dict)
    )
    return "updated" if proven or state(answer.json) != state(before) else "unchanged"


def _holders(api: ApiClient, contact: dict[str, Any], names: tuple[str, ...]) -> set[str]:
    """Return the contacts with one of the identities that only one may have."""
    found: set[str] = set()
    for name in (*names, *PARTS):
        group = contact.get(PARTS.get(name, "email"))
        if isinstance(group, dict) and group.get(name):
            found |= _ids(find(api, name, group[name]))
    return found


def _ids(documents: list[dict[str, Any]]) -> set[str]:
    return {one["email"]["email_id"] for one in documents}


def state(document: dict[str, Any]) -> Any:
    """Return a document without the times, and without what only the response to a single contact has."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(one) for key, one in value.items() if not key.endswith("_timestamp") and key != "status"}
        return [strip(one) for one in value] if isinstance(value, list) else value

    return strip(document)
