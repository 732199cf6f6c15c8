"""`flask ctms settings`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ctms.settings import Settings
from tests.cli.running import run

KEY = "k3y" * 16
OLDER_KEY = "0ld" * 16


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without settings."""
    for _, setting, _ in Settings.declared():
        monkeypatch.delenv(setting.variable, raising=False)
        monkeypatch.delenv(f"{setting.variable}_FILE", raising=False)


def shown() -> dict[str, dict[str, Any]]:
    """Return the output of the command, by variable."""
    return {row["variable"]: row for row in json.loads(run(CliRunner(), "settings", "--json").stdout)}


def test_every_setting_is_shown_with_its_help() -> None:
    found = shown()
    text = run(CliRunner(), "settings").stdout

    ours = [setting.variable for _, setting, _ in Settings.declared()]
    assert list(found)[: len(ours)] == ours
    assert all(variable.startswith("CTMS_PLUGIN_") for variable in list(found)[len(ours) :])
    for _, setting, _ in Settings.declared():
        assert found[setting.variable]["help"] == setting.help
        assert found[setting.variable]["source"] == "default"
        assert any(line.startswith(setting.variable) and line.endswith(setting.help) for line in text.splitlines())


def test_values_and_where_they_come_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "workers"
    file.write_text("3\n")
    monkeypatch.setenv("PORT", "8123")
    monkeypatch.setenv("CTMS_USE_MOZLOG", "no")
    monkeypatch.setenv("CTMS_WORKERS_FILE", str(file))
    monkeypatch.setenv("HOST", " ")  # blank is unset
    monkeypatch.setenv("CTMS_DATA_DIR", str(tmp_path))

    found = {name: (row["value"], row["source"]) for name, row in shown().items()}

    assert found["PORT"] == (8123, "environment")
    assert found["CTMS_USE_MOZLOG"] == (False, "environment")
    assert found["CTMS_WORKERS"] == (3, "file")
    assert found["HOST"] == ("127.0.0.1", "default")
    assert found["CTMS_DATA_DIR"] == (str(tmp_path), "environment")
    assert found["CTMS_DB_URL"] == (None, "default")


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTMS_DB_URL", "postgres://ctms:pa55word@db:5432/ctms?sslpassword=pa55word&sslmode=require")
    monkeypatch.setenv("CTMS_SECRET_KEY", KEY)
    monkeypatch.setenv("CTMS_SECRET_KEY_FALLBACKS", OLDER_KEY)
    monkeypatch.setenv("SENTRY_DSN", "https://public@sentry.example/1")

    found = {name: row["value"] for name, row in shown().items()}
    output = run(CliRunner(), "settings").output + json.dumps(found)

    assert found["CTMS_DB_URL"] == "postgresql+psycopg://ctms:***@db:5432/ctms?sslmode=require&sslpassword=***"
    assert found["CTMS_SECRET_KEY"] == found["CTMS_SECRET_KEY_FALLBACKS"] == found["SENTRY_DSN"] == "***"
    assert not [secret for secret in ("pa55word", KEY, OLDER_KEY, "sentry.example") if secret in output]


def test_every_secret_that_is_declared_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [setting.variable for _, setting, _ in Settings.declared() if setting.secret]
    assert {"CTMS_DB_URL", "CTMS_SECRET_KEY", "CTMS_SECRET_KEY_FALLBACKS", "SENTRY_DSN"} <= set(secrets)
    for variable in secrets:
        value = "postgresql://u:hidden-x@h/d" if variable.endswith("_URL") else f"hidden-{'x' * 32}"
        monkeypatch.setenv(variable, value)

    assert "hidden-" not in run(CliRunner(), "settings").output
    assert "hidden-" in str(dict(os.environ))


def test_a_setting_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTMS_SECRET_KEY", "short")
    monkeypatch.setenv("PORT", "70000")

    refused = run(CliRunner(), "settings", status=1)

    assert "CTMS_SECRET_KEY" in refused.stderr
    assert "PORT" in refused.stderr
    assert "short" not in refused.stderr.replace("too short", "")
