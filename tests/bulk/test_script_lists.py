"""The lists that `bin/delete_bulk.py` reads by itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT

_SPEC = importlib.util.spec_from_file_location("delete_bulk", ROOT / "bin" / "delete_bulk.py")
assert _SPEC is not None
assert _SPEC.loader is not None
script: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(script)


INVISIBLE = (
    "\N{NO-BREAK SPACE}\t\N{SOFT HYPHEN}\0\N{VARIATION SELECTOR-16}\N{COMBINING GRAPHEME JOINER}\N{HANGUL FILLER}"
)


def read(folder: Path, text: str, column: str | None = None) -> list[tuple[str, int]]:
    """Return the addresses and their line numbers."""
    path = folder / "list"
    path.write_bytes(text.encode())
    return [(one.address, int(one.place.rpartition(" ")[2])) for one in script.read_list(str(path), column)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_no_row_of_csv_is_lost(tmp_path: Path, end: str) -> None:
    rows = [
        "# of May",
        "Ticket,E-Mail,x",
        "#1,a@b.example",
        '"#2","c@d.example"',
        "#3",
        "4,",
        ",,",
        "",
        " 5 , e@f.example",
    ]
    text = end.join([*rows, f'"6","g@h.example","two{end}lines"', "7,i@j.example", ""])

    assert read(tmp_path, text, "email") == [
        ("a@b.example", 3),
        ("c@d.example", 4),
        ("", 5),
        ("", 6),
        ("e@f.example", 9),
        ("g@h.example", 10),
        ("i@j.example", 12),
    ]


@pytest.mark.parametrize(
    "text",
    [
        'email,x\na@b.example,"oops\nc@d.example,ok\n',
        'email,x\na@b.example,"a "b" c\nc@d.example\n"\n',
        '"email\n',
        *(f'email,x\na@b.example,{one}"oops\nc@d.example\n"\n' for one in INVISIBLE),
        'email,x\n"a@b.example","two\nlines",\N{ZERO WIDTH SPACE}"oops\nc@d.example\n"\n',
    ],
)
def test_malformed_quotes_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(script.Failure, match="is not CSV") as error:
        read(tmp_path, text, "email")

    assert error.value.status == script.USAGE


@pytest.mark.parametrize("before", [*INVISIBLE, "", "- nobody@b.example, reason: ", "nobody@b.example "])
def test_a_list_with_an_open_quote_names_nobody_in_its_text(tmp_path: Path, before: str) -> None:
    with pytest.raises(script.Failure, match="line 3 has columns, or an open quote"):
        read(tmp_path, f'email\na@b.example\n{before}"Please\nboss@b.example\nthanks"\n')


def test_a_row_with_more_values_than_the_header_names_nobody(tmp_path: Path) -> None:
    text = "name,contact,email\nDoe, John,contact@b.example,victim@b.example\nJane,c@b.example,a@b.example,,\n"
    assert read(tmp_path, text, "email") == [("", 2), ("a@b.example", 3)]


@pytest.mark.parametrize("start", ["email,message", "Requests\nemail,message", "email", '"email","free\ntext"'])
def test_a_table_without_a_column_names_nobody_in_its_text(tmp_path: Path, start: str) -> None:
    with pytest.raises(script.Failure, match="choose one with --column"):
        read(tmp_path, f'{start}\na@b.example,"Please\nboss@b.example\n"\n')


def test_one_address_per_line(tmp_path: Path) -> None:
    assert read(tmp_path, 'E-Mail\r\n# of May\n\na@b.example\r"#1@b.example"\n') == [
        ("a@b.example", 4),
        ("#1@b.example", 5),
    ]


def test_a_quote_after_an_invisible_character_may_be_text(tmp_path: Path) -> None:
    for value in ('\N{ZERO WIDTH SPACE}"oops"', '"\n""Great"" 5"" phone"'):
        assert read(tmp_path, f"email,x\na@b.example,{value}\n", "email") == [("a@b.example", 2)]


def test_addresses_with_a_final_sigma_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service maps each letter alone, as its database does; Python's `lower` does not."""
    (tmp_path / "list").write_text("xΣ@b.example\nxς@b.example\nXς@B.example\n")
    asked: list[int] = []

    def refuse(_options: object, count: int, _url: str) -> None:
        asked.append(count)
        raise script.Failure("enough")

    for name in ("CTMS_API_URL", "CTMS_CLIENT_ID", "CTMS_CLIENT_SECRET"):
        monkeypatch.setenv(name, "https://ctms.example")
    monkeypatch.setattr(script, "confirm", refuse)

    with pytest.raises(script.Failure):
        script.run(script.parse_arguments([str(tmp_path / "list")]))

    assert asked == [2]
