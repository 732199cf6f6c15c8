"""How often code connects to the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest


def count_connections(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[str]:
    """Return a list that grows with each connection from `module.name`, such as `pool.reading`."""
    found: list[str] = []
    connect = getattr(module, name)

    @contextmanager
    def counting() -> Iterator[Any]:
        found.append(name)
        with connect() as connection:
            yield connection

    monkeypatch.setattr(module, name, counting)
    return found
