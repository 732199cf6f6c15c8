"""Options of `serve` that stand for settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from ctms.environment import override
from ctms.errors import SettingsError
from ctms.settings import Settings
from tests.cli.running import run
from tests.conftest import SECRET_KEY

VARIABLES = {"--host": "HOST", "--port": "PORT", "--workers": "CTMS_WORKERS", "--data-dir": "CTMS_DATA_DIR"}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without these settings, and end as before."""
    for variable in VARIABLES.values():
        for name in (variable, f"{variable}_FILE"):
            monkeypatch.setenv(name, "")  # remembered, to be restored
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--port", "eighty", "must be a whole number"),
        ("--port", "65536", "must be a port from 1 to 65535"),
        ("--workers", "0", "must be at least 1"),
        *((option, " ", "must not be empty") for option in VARIABLES),
    ],
)
def test_a_wrong_value_is_a_usage_error(option: str, value: str, says: str) -> None:
    result = run(CliRunner(), "serve", option, value, status=2)

    assert result.stderr.splitlines()[-1] == f"Error: Invalid value for '{option}': {says}"
    assert VARIABLES[option] not in os.environ


def test_they_override_the_variable_and_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "port").write_text("1111")
    monkeypatch.setenv("PORT_FILE", str(tmp_path / "port"))
    monkeypatch.setenv("HOST", "192.0.2.1")
    assert Settings.from_environment().port == 1111

    override(Settings, "port", "2222")
    override(Settings, "host", "127.0.0.2")
    override(Settings, "data_dir", "~/x")

    found = Settings.from_environment()
    assert (found.port, found.host, found.data_dir) == (2222, "127.0.0.2", Path.home() / "x")


def test_what_cannot_be_used_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1111")

    with pytest.raises(SettingsError, match="PORT must be a whole number"):
        override(Settings, "port", "eighty")

    assert os.environ["PORT"] == "1111"


def test_a_data_folder_contradicts_an_external_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CTMS_DB_URL", "postgresql://ctms@db.invalid/ctms")
    monkeypatch.setenv("CTMS_SECRET_KEY", SECRET_KEY)

    result = run(CliRunner(), "serve", "--data-dir", str(tmp_path), status=2)

    assert "--data-dir applies to the embedded database, but CTMS_DB_URL names a server" in result.stderr


def test_the_help_names_option_and_variable() -> None:
    shown = " ".join(run(CliRunner(), "serve", "--help").stdout.split())

    for option, variable in VARIABLES.items():
        assert option in shown
        assert f"Overrides {variable}." in shown
