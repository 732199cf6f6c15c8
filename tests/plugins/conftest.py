"""What tests of bundled backends and deletion handlers share: the other side, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ctms.testing import OtherSide


@pytest.fixture
def other_side() -> Iterator[OtherSide]:
    """A server that remembers what it was sent, and fails as it is told to."""
    with OtherSide() as running:
        yield running
