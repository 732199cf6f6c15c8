"""Random failures for a short time; `tests.chaos` runs the same for any duration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import erasure, mirror

pytestmark = pytest.mark.long


def test_a_backend_has_the_truth_at_the_end(tmp_path: Path) -> None:
    figures = mirror.run(tmp_path, edits=2400, contacts=300, clients=8, failing=0.2, seed=1)

    assert figures["workers killed"]
    assert figures["failed calls"]


def test_everybody_is_erased_at_the_end(tmp_path: Path) -> None:
    figures = erasure.run(tmp_path, kills=6, contacts=1500, seed=4)

    assert all(figures[f"killed: {what}"] for what in ("command", "worker", "postgresql"))
