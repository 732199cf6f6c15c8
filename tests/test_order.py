"""The order in which tests start."""

from __future__ import annotations

import pytest

from tests.conftest import long_first


def test_each_process_begins_with_long_tests() -> None:
    found = long_first("ABCD", "uvwxyz", 2)

    assert found == list("ACuvwBDxyz")


@pytest.mark.parametrize("processes", range(1, 7))
@pytest.mark.parametrize("long", range(9))
@pytest.mark.parametrize("others", [0, 1, 2, 5, 40])
def test_every_test_runs_once(long: int, others: int, processes: int) -> None:
    found = long_first(range(long), range(100, 100 + others), processes)

    assert sorted(found) == [*range(long), *range(100, 100 + others)]
