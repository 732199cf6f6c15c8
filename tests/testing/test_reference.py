"""The page about testing plugins is complete."""

from __future__ import annotations

import inspect
import re

import pytest

import ctms.testing
from ctms.testing import fixtures
from tests.docs.pages import DOCS

PAGE = (DOCS / "reference" / "testing.md").read_text()


def test_it_names_every_fixture() -> None:
    is_fixture = type(fixtures.api)
    there = {name for name, thing in vars(fixtures).items() if isinstance(thing, is_fixture)}
    rows = re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)

    assert len(there) > 10
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == there


@pytest.mark.parametrize("name", sorted(set(ctms.testing.__all__) - {"Answer", "ApiClient"}))
def test_it_lists_the_exports(name: str) -> None:
    assert re.search(rf"`{name}\b", PAGE)


def test_every_test_of_a_contract_has_a_docstring() -> None:
    for name in (name for name in ctms.testing.__all__ if name.endswith("Contract")):
        contract = getattr(ctms.testing, name)
        tests = [value for key, value in vars(contract).items() if key.startswith("test_")]
        assert len(tests) >= 3
        assert all(inspect.getdoc(test) for test in tests)
