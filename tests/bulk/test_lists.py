"""Reading lists of addresses and of opt-outs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctms.bulk import lists
from ctms.bulk.lines import LONGEST_LINE
from ctms.bulk.lists import Entry, addresses, opt_outs
from ctms.errors import ListError

Reader = Callable[[BinaryIO], Iterator[Entry]]


def read(text: str | bytes, reader: Reader = addresses) -> list[Entry]:
    return list(reader(io.BytesIO(text.encode() if isinstance(text, str) else text)))


def found(text: str | bytes, reader: Reader = addresses) -> list[str | None]:
    return [entry.address for entry in read(text, reader)]


def problems(text: str | bytes, reader: Reader = addresses) -> dict[int | None, str]:
    return {entry.line: entry.problem for entry in read(text, reader) if entry.problem}


def test_one_address_a_line() -> None:
    assert read("jane@example.com\n\n  # a comment\n Joe@Example.com \r\n#jim@example.com\njill@example.com") == [
        Entry(1, "jane@example.com"),
        Entry(4, "Joe@Example.com"),
        Entry(6, "jill@example.com"),
    ]


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ('"a b"@example.com', '"a b"@example.com'),
        ('"a,b"@example.com', '"a,b"@example.com'),
        ('"a@b"@example.com', '"a@b"@example.com'),
        ('"jane@example.com"', "jane@example.com"),
        ('"""a b""@example.com"', '"a b"@example.com'),
        ('"#1@example.com"', "#1@example.com"),
        ("jane doe@example.com", "jane doe@example.com"),
        ("käufer@bücher.de", "käufer@bücher.de"),
        ("o'neil+shop@example.com", "o'neil+shop@example.com"),
        ("a\\b@example.com", "a\\b@example.com"),
    ],
)
def test_odd_addresses_are_taken_as_they_are(line: str, address: str) -> None:
    assert found(f"{line}\n") == [address]
    assert found(f"email\n{line}\n") == [address]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding: str, newline: str) -> None:
    text = newline.join(["E-Mail;Name", "käufer@bücher.de;Jürgen", '"a;b@example.com";x', ""])
    bom = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")

    assert found(bom + text.encode(encoding)) == ["käufer@bücher.de", "a;b@example.com"]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("name", ["email", "EMAIL", "E-mail", "Email Address", "primary_email"])
def test_a_column_of_a_csv(delimiter: str, name: str) -> None:
    rows = [
        ["id", name, "name"],
        ["1", "jane@example.com", "Jane"],
        ["2", " joe@example.com ", '"Joe"'],
        ["3", "a@b", ""],
    ]

    assert found("\n".join(delimiter.join(row) for row in rows)) == ["jane@example.com", "joe@example.com", "a@b"]


def test_of_two_columns_the_one_that_is_named_email() -> None:
    assert found("primary_email,email\nold@example.com,new@example.com\n") == ["new@example.com"]


def test_a_list_with_several_columns_needs_a_header() -> None:
    with pytest.raises(ListError, match="line 2 has several columns"):
        read("# of May\n1,jane@example.com\n")


def test_nothing_is_in_an_empty_list() -> None:
    assert read("") == read("\n# nobody\n") == read("email\n") == read("id,email\n") == []


def test_a_bad_line_is_named_and_the_next_one_is_read() -> None:
    text = b"\n".join(
        [
            b"jane@example.com",
            b"jane",
            b"\xff\xfe@example.com",
            b"a\0b@example.com",
            b"%s@example.com" % (b"x" * 250),
            b"x" * (3 * LONGEST_LINE) + b"@example.com",
            b"joe@example.com",
        ]
    )

    assert [entry.address for entry in read(text) if entry.address] == ["jane@example.com", "joe@example.com"]
    told = problems(text)
    assert list(told) == [2, 3, 4, 5, 6]
    assert "no @" in told[2]
    assert "not text" in told[3]
    assert "U+0000" in told[4]
    assert "more than 255" in told[5]
    assert told[6] == "too long"
    assert not any("example" in problem for problem in told.values())


def test_the_longest_address() -> None:
    longest = f"{'x' * 243}@example.com"

    assert found(longest) == [longest]


def test_a_bad_row_is_named_and_the_next_one_is_read() -> None:
    text = "\n".join(
        [
            "id,email",
            "1",
            "2,jane@example.com,,",
            "3,joe@example.com,more",
            '4,"a b"@example.com',
            '5,"""a b""@example.com"',
            '6,"never ends@example.com',
            "7,jim@example.com",
            '8,"jill@example.com"',
            f"9,{'x' * LONGEST_LINE}@example.com",
            "10,jack@example.com",
        ]
    )

    people = ["jane", "jim", "jill", "jack"]
    assert [entry.address for entry in read(text) if entry.address] == [
        "jane@example.com",
        '"a b"@example.com',
        *(f"{name}@example.com" for name in people[1:]),
    ]
    told = problems(text)
    assert list(told) == [2, 4, 5, 7, 10]
    assert told[2] == "too few columns"
    assert told[4] == "more columns than the header has"
    assert "quote" in told[5]
    assert "quote" in told[7]


def test_a_value_in_quotes_may_go_on_in_further_lines() -> None:
    text = 'email,note\njane@example.com,"one\n# two, ""three""\n\nfour"\njoe@example.com,\n'

    assert read(text) == [Entry(2, "jane@example.com"), Entry(6, "joe@example.com")]


def test_a_quote_that_never_ends_costs_one_line() -> None:
    rows = [f"{number}@example.com,x" for number in range(3 * lists.MOST_LINES)]
    rows[5] = '5@example.com,"x'

    entries = read("\n".join(["email,note", *rows]))

    assert [entry.line for entry in entries if entry.problem] == [7]
    assert len(entries) == len(rows)


def test_opt_outs() -> None:
    text = '''Email,Date,Reason
jane@example.com,2023-01-05 02:05 PM,bounced
"joe@example.com","2023-01-05T02:05:06+02:00","said so, ""twice"""
jim@example.com,2023-01-05,
jill@example.com,,550 no such user, sorry
'''

    assert read(text, opt_outs) == [
        Entry(2, "jane@example.com", datetime(2023, 1, 5, 14, 5, tzinfo=UTC), "bounced"),
        Entry(3, "joe@example.com", datetime(2023, 1, 5, 0, 5, 6, tzinfo=UTC), 'said so, "twice"'),
        Entry(4, "jim@example.com", datetime(2023, 1, 5, tzinfo=UTC)),
        Entry(5, "jill@example.com", None, "550 no such user,sorry"),
    ]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("order", ["Email Date Reason", "REASON x date EMAIL", "date email"])
def test_opt_outs_in_any_shape(delimiter: str, quote: str, order: str) -> None:
    row = {"email": "jane@example.com", "date": "2023-01-05", "reason": "bounced", "x": "y"}
    lines = [order.split(), [row[name.lower()] for name in order.split()]]
    text = "\r\n".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) for line in lines)

    (entry,) = read(text, opt_outs)

    reason = "bounced" if "reason" in order.lower() else None
    assert entry == Entry(2, "jane@example.com", datetime(2023, 1, 5, tzinfo=UTC), reason)


@pytest.mark.parametrize(
    ("date", "moment"),
    [
        ("2023-01-05 12:00 AM", datetime(2023, 1, 5, 0, 0, tzinfo=UTC)),
        ("2023-01-05 12:30 PM", datetime(2023, 1, 5, 12, 30, tzinfo=UTC)),
        ("2023-01-05 1:05 am", datetime(2023, 1, 5, 1, 5, tzinfo=UTC)),
        ("2023-01-05 11:59:58PM", datetime(2023, 1, 5, 23, 59, 58, tzinfo=UTC)),
        ("2023-01-05 23:59", datetime(2023, 1, 5, 23, 59, tzinfo=UTC)),
        ("2023-01-05T10:00:00Z", datetime(2023, 1, 5, 10, 0, tzinfo=UTC)),
        ("2023-01-05T10:00:00.25-01:00", datetime(2023, 1, 5, 11, 0, 0, 250000, tzinfo=UTC)),
    ],
)
def test_dates(date: str, moment: datetime) -> None:
    assert read(f"Email,Date\na@b,{date}\n", opt_outs) == [Entry(2, "a@b", moment)]


@pytest.mark.parametrize(
    "date",
    [
        "2023",
        "yesterday",
        "2023-02-30",
        "05/01/2023",
        "2023-01-05 13:00 PM",
        "2023-01-05 0:30 AM",
        "0001-01-01T00:00+05",
    ],
)
def test_a_date_that_is_none_is_a_bad_line(date: str) -> None:
    assert "date" in problems(f"Email,Date\na@b,{date}\n", opt_outs)[2]


def test_a_reason_that_is_no_text_is_a_bad_line() -> None:
    for bad in (b"\xff", b"\0"):
        assert "reason" in problems(b"Email,Date,Reason\na@b,2023-01-05,x%s\n" % bad, opt_outs)[2]


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ("Email,Reason", "Date missing"),
        ("Reason;Date", "Email missing"),
        ("a@example.com,2023-01-05,x", "Email and Date missing"),
        ("", "is empty"),
    ],
)
def test_columns_that_are_missing_are_named(header: str, missing: str) -> None:
    with pytest.raises(ListError, match=missing):
        read(header, opt_outs)


def test_addresses_that_are_given_by_themselves() -> None:
    assert list(lists.given([" Jane@example.com ", "jane"])) == [
        Entry(None, "Jane@example.com"),
        Entry(None, None, problem="no address: there is no @"),
    ]


@settings(max_examples=200)
@given(st.binary(max_size=400), st.sampled_from([b"", b"email\n", b"id,email\n", b"Email;Date;Reason\n"]))
def test_whatever_is_in_a_list_it_is_read_to_its_end(content: bytes, header: bytes) -> None:
    for reader in (addresses, opt_outs):
        try:
            entries = read(header + content + b"\nid@example.com;2023-01-05\n", reader)
        except ListError:
            continue
        assert all((entry.address is None) != (entry.problem is None) for entry in entries)
        lines = [entry.line or 0 for entry in entries]
        assert lines == sorted(set(lines))
