"""A fault of a plugin is shown with its place in the plugin's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ctms.hooks.places import place_of, place_of_error, raised_by

HERE = Path(__file__)


def line_of(text: str) -> int:
    """Return the line of this file that has the text first."""
    return next(number for number, line in enumerate(HERE.read_text().splitlines(), 1) if text in line)


def caught(text: str) -> Exception:
    """Return the error of a library that is called here."""
    try:
        json.loads(text)
    except ValueError as error:
        return error
    raise AssertionError


def test_an_error_of_a_library_is_where_it_was_called() -> None:
    error = caught("{")

    assert place_of_error(error, __name__) == f"{HERE}, line {line_of('json.loads(text)')}"
    assert not raised_by(error, __name__)
    assert place_of_error(error, "elsewhere.plugin") is None


def test_a_syntax_error_is_where_the_code_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "plugin.py"
    file.write_text("x = 1\ndef (")
    with pytest.raises(SyntaxError) as raised:
        compile(file.read_text(), str(file), "exec")

    assert place_of_error(raised.value, "plugin") == f"{file}, line 2"


def test_functions_methods_and_classes_have_a_place() -> None:
    class Plugin:
        def hook(self) -> None: ...

    assert place_of(caught) == f"{HERE}, line {line_of('def caught')}"
    assert place_of(Plugin().hook) == f"{HERE}, line {line_of('def hook')}"
    assert place_of(Plugin) == f"{HERE}, line {line_of('class Plugin')}"


def test_code_without_a_source_file_has_no_place() -> None:
    without: list[Any] = [len, 3, None, type("Made", (), {}), dict]

    assert [place_of(thing) for thing in without] == [None] * len(without)
