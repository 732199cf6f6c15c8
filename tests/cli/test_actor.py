"""The operator who runs a command."""

from __future__ import annotations

import getpass
import os

import pytest

from ctms.cli.actor import current_actor


def test_an_operator_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)

    def nobody() -> str:
        raise KeyError

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert current_actor() == f"operator:{os.getuid()}"

    monkeypatch.setenv("SUDO_USER", "ops")
    assert current_actor() == "operator:ops"
