"""The check of the project's wording."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import wording
from tools.wording import Wording


def test_the_project_uses_standard_terms(capsys: pytest.CaptureFixture[str]) -> None:
    assert wording.main([]) == 0, capsys.readouterr().err


def test_a_rejected_phrase_is_reported_with_its_line_and_the_preferred_term() -> None:
    found = Wording({"at the most": "at most", "time-outs?": "timeout"}).problems(
        "one\ntwo At the\n    # most\nTime-outs"
    )

    assert list(found) == [(2, "At the # most", "at most"), (4, "Time-outs", "timeout")]


def test_parts_of_words_and_alternatives_in_groups_are_not_confused() -> None:
    listed = Wording({"(is|are) told": "is notified", "lends?": "acquire"})

    assert list(listed.problems("calendars, blends, a lend-lease, he is toldest")) == []
    assert [term for *_, term in listed.problems("It lends. They are told.")] == ["acquire", "is notified"]


def test_the_status_names_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wording, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text("It is kept for ever.\n")
    (tmp_path / "picture.svg").write_text("for ever")

    assert wording.main(["page.md", "picture.svg", "missing.md"]) == 1
    assert (
        capsys.readouterr().err == "page.md:1: write 'permanently, indefinitely, without end' instead of 'for ever'\n"
    )
