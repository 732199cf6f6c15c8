"""Lists with lines that are longer than what is read of a line, and other damage."""

from __future__ import annotations

import json

import pytest

from ctms.bulk.csv_rows import has_open_quote
from ctms.bulk.lines import MAX_LINE
from tests.bulk.reading import found, problems

BLANK = " " * (MAX_LINE - len("ada@example.com"))
"""What makes the end of an address the first characters that are not read."""


@pytest.mark.parametrize(
    "line",
    [
        f"{BLANK}ada@example.com.au",
        f"{' ' * 70_000}ada@example.com.au",
        f"ada@example.com{BLANK}, ada@example.com.au",
        f"ada@example.com{' ' * 70_000}",
    ],
    ids=["cut in the address", "cut before it", "cut before another", "cut in blanks"],
)
def test_what_is_left_of_a_line_is_not_taken_for_an_address(line: str) -> None:
    text = f"bob@example.com\n{line}\nzoe@example.com\n"

    assert problems(text) == {2: "too long"}
    assert [one for one in found(text) if one] == ["bob@example.com", "zoe@example.com"]
    assert problems(text.replace(" ", "\u00a0")) == {2: "too long"}


@pytest.mark.parametrize("comment", ["", "#"])
def test_a_long_first_line_is_none_either(comment: str) -> None:
    text = f"{comment}{' ' * 70_000}ada@example.com.au\nzoe@example.com\n"

    assert problems(text) == ({} if comment else {1: "too long"})
    assert [one for one in found(text) if one] == ["zoe@example.com"]


def test_the_start_of_a_name_is_not_the_name() -> None:
    text = f"{'x' * (MAX_LINE - 6)},email_of_another\nbob,ada@example.com\n"

    assert problems(text) == {1: "too long", 2: "not an e-mail address"}


@pytest.mark.parametrize("row", [f"{BLANK}ada@example.com.au,1", f"{' ' * 70_000}ada@example.com.au,1"])
def test_what_is_left_of_a_row_is_not_taken_for_one(row: str) -> None:
    text = f"email,x\n{row}\nzoe@example.com,1\n"

    assert problems(text) == {2: "too long"}
    assert [one for one in found(text) if one] == ["zoe@example.com"]


@pytest.mark.parametrize("indent", [None, 1])
def test_what_is_left_of_a_value_is_not_taken_for_an_address(indent: int | None) -> None:
    text = json.dumps([{"email": f"{BLANK}ada@example.com.au"}, {"email": "zoe@example.com"}], indent=indent)

    assert list(problems(text).values()) == ["record 1: too long"]
    assert [one for one in found(text) if one] == ["zoe@example.com"]


@pytest.mark.parametrize("start", [b"\0\n", b"x\0y\n", b"\0\0\n", b"x\0\0y\n", b"a\0"])
def test_a_zero_byte_at_the_start_does_not_hide_the_list(start: bytes) -> None:
    lines = b"n1@example.com\nn2@example.com\n"
    number = start.count(b"\n") + 1

    assert found(start + lines)[-1] == "n2@example.com"
    assert set(problems(start + lines)) == {1}
    assert len(found(start + lines)) == number + 1


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("address", ["a@b.example", "jörg@b.example", "jőrg@b.example", "aя@b.example"])
def test_utf_16_is_recognised_without_a_byte_order_mark(address: str, order: str) -> None:
    assert found(f"{address}\nn2@example.com\n".encode(f"utf-16-{order}")) == [address, "n2@example.com"]


@pytest.mark.parametrize(
    ("line", "is_open"),
    [('\t \t"a', True), ('a;\t "', True), ('a \t"b"', False), ('a "b', True), ("\t" * 2_000_000, False)],
    ids=["behind a tab", "behind a semicolon", "closed", "odd", "tabs only"],
)
def test_an_open_quote_is_found_in_one_pass(line: str, is_open: bool) -> None:
    """The last line would take hours if each tab began a search to its end."""
    assert has_open_quote(line) is is_open
