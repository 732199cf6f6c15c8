"""Another system's copy is compared with the contact, member by member."""

from __future__ import annotations

from typing import Any

import pytest

from ctms.hooks.comparison import differences

DOCUMENT = {
    "email": {"first_name": "Jane", "last_name": None},
    "newsletters": [{"name": "monthly", "lang": "en"}, {"name": "weekly", "lang": "en"}],
    "waitlists": [],
}

CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing kept": ({}, []),
    "the whole": (DOCUMENT, []),
    "a part": ({"email": {"first_name": "Jane"}}, []),
    "another value": ({"email": {"first_name": "Joe", "last_name": None}}, ["email.first_name"]),
    "nothing for something": ({"email": None}, ["email"]),
    "something for nothing": ({"email": {"last_name": "Doe"}}, ["email.last_name"]),
    "a part that is not there": ({"email": {"age": 5}, "pets": []}, ["email.age", "pets"]),
    "entries in another order": ({"newsletters": [{"name": "weekly"}, {"name": "monthly"}]}, []),
    "an entry missing": ({"newsletters": [{"name": "weekly"}]}, ["newsletters.monthly"]),
    "an entry too many": ({"waitlists": [{"name": "vpn"}]}, ["waitlists.vpn"]),
    "an entry with another value": (
        {"newsletters": [{"name": "weekly", "lang": "fr"}, {"name": "monthly"}]},
        ["newsletters.weekly.lang"],
    ),
    "a list of something else": ({"newsletters": ["weekly", "monthly"]}, ["newsletters"]),
}


@pytest.mark.parametrize(("kept", "places"), CASES.values(), ids=CASES)
def test_differences_are_named_by_place(kept: dict[str, Any], places: list[str]) -> None:
    assert differences(DOCUMENT, kept) == places
