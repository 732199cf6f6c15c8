"""Reading lists of addresses and of opt-outs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctms.bulk import lists
from ctms.bulk.entries import Entry
from ctms.bulk.lines import MAX_LINE
from ctms.errors import ListError
from tests.bulk.reading import ADDRESSES, OPT_OUTS, found, problems, read

HEADERS = (
    b"",
    b"email\n",
    b"id,email\n",
    b"Email;Date;Reason\n",
    b"sep=;\n",
    b"[",
    b"{\n",
    b'{"email": "a@b.example"}\n',
    b"\x1f\x8b",
)


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
        ("käufer@bücher.de", "käufer@bücher.de"),
        ("o'neil+shop@example.com", "o'neil+shop@example.com"),
    ],
)
def test_odd_addresses_are_taken_as_they_are(line: str, address: str) -> None:
    assert found(f"{line}\n") == [address]
    assert found(f"email\n{line}\n") == [address]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(encoding: str, newline: str) -> None:
    text = newline.join(["E-Mail;Name", "käufer@bücher.de;Jürgen", '"""a;b""@example.com";x', ""])
    bom = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")

    assert found(bom + text.encode(encoding)) == ["käufer@bücher.de", '"a;b"@example.com']


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("name", ["email", "EMAIL", "E-mail", "Email Address", "primary_email"])
def test_a_column_of_a_csv(delimiter: str, name: str) -> None:
    rows = [
        ["id", name, "name"],
        ["1", "jane@example.com", "Jane"],
        ["2", " joe@example.com ", '"Joe"'],
        ["3", "a@b.example", ""],
    ]

    assert found("\n".join(delimiter.join(row) for row in rows)) == [
        "jane@example.com",
        "joe@example.com",
        "a@b.example",
    ]


def test_a_list_with_several_columns_needs_a_header() -> None:
    with pytest.raises(ListError, match="line 2 has 2 columns and is no header"):
        read("# of May\n1,jane@example.com\n")


def test_only_a_name_for_addresses_is_the_header_of_one_column() -> None:
    for name in ("email", "E-Mail", "Recipient"):
        assert read(f"{name}\na@b.example\n") == [Entry(2, "a@b.example")]
    for name in ("Date", "error", "nobody"):
        assert problems(f"{name}\na@b.example\n") == {1: "no address: there is no @"}


def test_line_of_invisible_characters_is_blank() -> None:
    assert read("a@b.example\n\N{ZERO WIDTH SPACE}\N{NO-BREAK SPACE}\n\ufeff\n") == [Entry(1, "a@b.example")]


def test_nothing_is_in_an_empty_list() -> None:
    assert read("") == read("\n# nobody\n") == read("email\n") == read("id,email\n") == []


def test_a_bad_line_is_named_and_the_next_one_is_read() -> None:
    text = b"\n".join(
        [
            b"jane@example.com",
            b"jane",
            b"\x81\x8d@example.com",
            b"a\0b@example.com",
            b"%s@example.com" % (b"x" * 250),
            b"x" * (3 * MAX_LINE) + b"@example.com",
            b"joe@example.com",
        ]
    )

    assert [entry.address for entry in read(text) if entry.address] == ["jane@example.com", "joe@example.com"]
    told = problems(text)
    assert list(told) == [2, 3, 4, 5, 6]
    assert "no @" in told[2]
    assert "not text" in told[3]
    assert "U+0000" in told[4]
    assert told[5] == "more than 255 characters"
    assert told[6] == "too long"
    assert not any("example" in problem for problem in told.values())


def test_opt_outs() -> None:
    text = '''Email,Date,Reason
jane@example.com,2023-01-05 02:05 PM,bounced
"joe@example.com","2023-01-05T02:05:06+02:00","said so, ""twice"""
jim@example.com,2023-01-05,
jill@example.com,,550 no such user, sorry
'''

    assert read(text, OPT_OUTS) == [
        Entry(2, "jane@example.com", datetime(2023, 1, 5, 14, 5, tzinfo=UTC), "bounced"),
        Entry(3, "joe@example.com", datetime(2023, 1, 5, 0, 5, 6, tzinfo=UTC), 'said so, "twice"'),
        Entry(4, "jim@example.com", datetime(2023, 1, 5, tzinfo=UTC)),
        Entry(5, "jill@example.com", None, "550 no such user, sorry"),
    ]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("order", ["Email Date Reason", "REASON x date EMAIL", "date email"])
def test_opt_outs_in_any_shape(delimiter: str, quote: str, order: str) -> None:
    row = {"email": "jane@example.com", "date": "2023-01-05", "reason": "bounced", "x": "y"}
    lines = [order.split(), [row[name.lower()] for name in order.split()]]
    text = "\r\n".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) for line in lines)

    (entry,) = read(text, OPT_OUTS)

    reason = "bounced" if "reason" in order.lower() else None
    assert entry == Entry(2, "jane@example.com", datetime(2023, 1, 5, tzinfo=UTC), reason)


@pytest.mark.parametrize("date", ["", "2023", "yesterday", "2023-02-30", "45436.42"])
def test_a_date_that_is_none_is_no_bad_line(date: str) -> None:
    assert read(f"Email,Date\na@b.example,{date}\n", OPT_OUTS) == [Entry(2, "a@b.example")]


def test_a_row_that_ends_before_the_date_has_none() -> None:
    assert read("Email,Date,Reason\na@b.example\n", OPT_OUTS) == [Entry(2, "a@b.example")]


@pytest.mark.parametrize("text", ["Email,Reason\na@b.example,left\n", "Reason\tE-mail\nleft\ta@b.example\n"])
def test_a_date_is_optional(text: str) -> None:
    assert read(text, OPT_OUTS) == [Entry(2, "a@b.example", None, "left")]


def test_opt_outs_may_be_one_a_line() -> None:
    assert read("a@b.example\nc@d.example\n", OPT_OUTS) == [Entry(1, "a@b.example"), Entry(2, "c@d.example")]


def test_dates_and_reasons_count_for_opt_outs_only() -> None:
    assert read("Email,Date,Reason\na@b.example,2023-01-05,left\n") == [Entry(2, "a@b.example")]


def test_a_reason_is_stored_without_control_characters() -> None:
    assert [entry.reason for entry in read(b"Email,Reason\na@b.example,x\0\x81\n", OPT_OUTS)] == ["x"]


def test_a_list_in_which_no_column_is_known_is_none() -> None:
    with pytest.raises(ListError, match=r"line 1: no column is known to hold the addresses.*Reason, Date"):
        read("Reason;Date\nx;2023-01-05\n", OPT_OUTS)


def test_addresses_that_are_given_by_themselves() -> None:
    assert list(lists.entries_of([" Jane@example.com ", "jane"])) == [
        Entry(None, "Jane@example.com"),
        Entry(None, None, problem="no address: there is no @", given="jane"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "\N{ZERO WIDTH SPACE}a@b.example\N{WORD JOINER}",
        "\N{NO-BREAK SPACE}a@b.example\N{LEFT-TO-RIGHT MARK}",
        "Sam <a@b.example>",
        '"Doe, Sam" <a@b.example>',
        "mailto:a@b.example",
        "<mailto:a@b.example>",
        "a@b.example,",
        "a@b.example;",
    ],
)
def test_decoration_by_exports_is_removed(line: str) -> None:
    (first, second) = read(f"x@y.example\n{line}\n")

    assert (second.address, second.problem) == ("a@b.example", None)
    assert first.given is None
    assert second.given == line.strip()
    assert found(f"{line}\n") == ["a@b.example"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a@b.example, c@d.example", "not one address: there are several @"),
        ("a@b.example c@d.example", "not one address: there are several @"),
        ("a@b.example;c@d.example", "not one address: there are several @"),
        ("*@blocked.example", "a wildcard, not an address"),
        ("a@b.example,subscribed,2023-01-05", "not an e-mail address"),
        ('{"EmailAddress": "a@b.example", "Reason": "BOUNCE"}', "not an e-mail address"),
        ("a@b.example (Sam)", "not an e-mail address"),
        ("a@localhost", "not an e-mail address"),
        ("a@example.test", "not an e-mail address"),
        ("a@\N{ZERO WIDTH SPACE}b.example", "not an e-mail address"),
        ("@", "not an e-mail address"),
    ],
)
def test_a_line_without_an_address_is_bad(line: str, problem: str) -> None:
    assert problems(f"x@y.example\n{line}\nz@y.example\n") == {2: problem}


@settings(max_examples=200)
@given(st.binary(max_size=400), st.sampled_from(HEADERS))
def test_whatever_is_in_a_list_it_is_read_to_its_end(content: bytes, header: bytes) -> None:
    for wanted in (ADDRESSES, OPT_OUTS):
        try:
            entries = read(header + content + b"\nid@example.com;2023-01-05\n", wanted)
        except ListError:
            continue
        assert all((entry.address is None) == (entry.problem is not None) for entry in entries)
        lines = [entry.line or 0 for entry in entries]
        assert lines == sorted(set(lines))
