"""Nouns with their numbers."""

from __future__ import annotations

import pytest

from ctms.words import counted


@pytest.mark.parametrize(
    ("number", "wanted"), [(0, "0 contacts"), (1, "1 contact"), (2, "2 contacts"), (1204, "1,204 contacts")]
)
def test_a_noun_has_the_number_before_it(number: int, wanted: str) -> None:
    assert counted(number, "contact") == wanted


def test_a_plural_of_its_own() -> None:
    assert [counted(number, "address", "addresses") for number in (1, 2)] == ["1 address", "2 addresses"]
