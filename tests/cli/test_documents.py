"""`flask ctms documents`: build and verify."""

from __future__ import annotations

import dataclasses
import json

import pytest
from flask import Flask

from ctms.testing.commands import CommandRunner
from tests.contacts.rows import execute, insert_only


@pytest.fixture(autouse=True)
def contacts(app: Flask) -> None:  # noqa: ARG001  inside its transaction
    insert_only("Jane", "Joe")


def test_build_then_verify(cli: CommandRunner) -> None:
    built = cli.ctms("documents", "build", "--json")
    again = cli.ctms("documents", "build", "--json")
    verified = cli.ctms("documents", "verify", "--json")

    assert json.loads(built.stdout)["stored"] == 2
    assert json.loads(again.stdout)["stored"] == 0
    assert json.loads(verified.stdout) == {"checked": 2, "different": 0}
    assert (built.exit_code, again.exit_code, verified.exit_code) == (0, 0, 0)


@pytest.mark.parametrize("options", [(), ("--sample", "10")])
def test_a_difference_is_found(cli: CommandRunner, options: tuple[str, ...]) -> None:
    cli.ctms("documents", "build")
    execute("UPDATE contact_documents SET document = replace(document, 'Jane', 'Mary')")

    result = cli.ctms("documents", "verify", *options)

    assert result.exit_code == 3
    assert "1 stored document differs from the rendered one" in result.stderr
    assert "Mary" not in result.output
    assert "Jane" not in result.output


def test_documents_are_not_stored(cli: CommandRunner, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(app.extensions["ctms.settings"], stored_documents=False)
    monkeypatch.setitem(app.extensions, "ctms.settings", settings)

    for command in ("build", "verify"):
        result = cli.ctms("documents", command)
        assert result.exit_code == 1
        assert "CTMS_STORED_DOCUMENTS is off" in result.stderr
