"""Reading lists of addresses and of opt-outs."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctms.bulk import lists
from ctms.bulk.columns import ReadOptions
from ctms.bulk.csv_rows import MAX_ROW
from ctms.bulk.entries import Entry
from ctms.bulk.lines import MAX_LINE
from ctms.errors import ListError

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
ADDRESSES, OPT_OUTS = ReadOptions(), ReadOptions(opt_outs=True)


def read(text: str | bytes, wanted: ReadOptions = ADDRESSES) -> list[Entry]:
    return list(lists.read(io.BytesIO(text.encode() if isinstance(text, str) else text), wanted))


def found(text: str | bytes, wanted: ReadOptions = ADDRESSES) -> list[str | None]:
    return [entry.address for entry in read(text, wanted)]


def problems(text: str | bytes, wanted: ReadOptions = ADDRESSES) -> dict[int | None, str]:
    return {entry.line: entry.problem for entry in read(text, wanted) if entry.problem}


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


@pytest.mark.parametrize(
    "first", ["user@xn--mnchen-3ya.de", "jörg@example.com", f"{'x' * 60}@example.com", "a@b.example\N{NO-BREAK SPACE}"]
)
def test_any_address_may_begin_a_list_of_amazon_ses(first: str) -> None:
    entries = read(f"{first},BOUNCE\nb@c.example,COMPLAINT\n", OPT_OUTS)

    assert [(entry.address, entry.reason) for entry in entries] == [
        (first.strip(), "BOUNCE"),
        ("b@c.example", "COMPLAINT"),
    ]


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


def test_a_bad_row_is_named_and_the_next_one_is_read() -> None:
    text = "\n".join(
        [
            "id,email",
            "1",
            "2,jane@example.com,,",
            "3,joe@example.com,more",
            '5,"""a b""@example.com"',
            "7,jim@example.com",
            '8,"jill@example.com"',
            f"9,{'x' * (2 * MAX_LINE)}@example.com",
            '10,"jo@example.com\nsue@example.com"',
            '11,"a@example.com","two\nlines"',
            "12,jack@example.com",
        ]
    )

    people = ["jane", "jim", "jill", "jack"]
    assert [entry.address for entry in read(text) if entry.address] == [
        "jane@example.com",
        '"a b"@example.com',
        *(f"{name}@example.com" for name in people[1:]),
    ]
    assert problems(text) == {
        2: "too few columns",
        4: "more columns than the first row has",
        8: "too long",
        9: "not one address: there are several @",
        11: "more columns than the first row has",
    }


def test_a_value_in_quotes_may_go_on_in_further_lines() -> None:
    text = 'email,note\njane@example.com,"one\n# two, ""three""\n\nfour"\njoe@example.com,\n'

    assert read(text) == [Entry(2, "jane@example.com"), Entry(6, "joe@example.com")]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("email,message", 'jane@example.com,"{}"'),
        ("email,message,note", 'jane@example.com,"{}"'),
        ("email,message", 'jane@example.com,"{}",'),
        ("message,email", '"{}",jane@example.com'),
    ],
)
def test_text_in_quotes_names_nobody(header: str, row: str) -> None:
    """Such as a request in which a person names others, however long it is."""
    text = "\n".join(["Please:", *(f"boss{number}@example.com\nboss{number}@example.com,x" for number in range(200))])

    assert found(f"{header}\n{row.format(text)}\njoe@example.com,joe@example.com\n") == [
        "jane@example.com",
        "joe@example.com",
    ]


@pytest.mark.parametrize(
    "row",
    [
        'jane@example.com,"never ends',
        'jane@example.com,"not "doubled" within\nboss@example.com\nit"',
        'jane@example.com,"not doubled at the "end\nboss@example.com\n"it"',
        '"jane"@example.com,x',
        f'jane@example.com,"{"x" * 150_000}\nboss@example.com"',
        f'jane@example.com,{"x" * (2 * MAX_LINE)},"\nboss@example.com"',
        "jane@example.com," + '"boss@example.com\n",' * (MAX_ROW // 10),
        'jane@example.com,\t"hidden\nboss@example.com\nquote"',
        'jane@example.com,\ufeff\N{NO-BREAK SPACE}"hidden\nboss@example.com"',
    ],
    ids=lambda row: row[:40],
)
def test_a_malformed_quote_ends_the_list(row: str) -> None:
    """Otherwise text of a person would be taken for rows: it is not known where the next one begins."""
    entries = lists.read(io.BytesIO(f"email,note\n#1@example.com,x\n{row}\njoe@example.com,x\n".encode()), ADDRESSES)

    assert next(entries).address == "#1@example.com"
    with pytest.raises(ListError, match=r"^line 3: a quote does not end.*correct the row") as error:
        list(entries)
    assert "example" not in error.value.message


@pytest.mark.parametrize(
    "start",
    [
        '"email","Message\n(free text)"',
        'email,"comment',
        "Unsubscribed contacts\nemail,comment",
        '"Report, May"\nemail,comment',
        "email",
        "",
        "x@example.com",
    ],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table_without_a_known_header_names_nobody_in_its_text(start: str, delimiter: str) -> None:
    row = 'jane@example.com,"Please:\nboss@example.com\n"'
    text = f"{start}\n{row}\njoe@example.com,x\n".replace(",", delimiter)

    entries: list[Entry] = []
    with pytest.raises(ListError):
        entries += lists.read(io.BytesIO(text.encode()), ADDRESSES)

    assert "boss@example.com" not in {entry.address for entry in entries}


def test_quotes_within_a_line_cost_one_line() -> None:
    assert problems('a@b.example\n5" pipe\n"Doe" c@d.example\n"e@f.example"\n') == {
        2: "no address: there is no @",
        3: "not an e-mail address",
    }


def test_a_long_line_after_a_row_of_several_lines_changes_nothing() -> None:
    """The first values of an ambiguous column are looked at before the rows are read."""
    long = "x" * (MAX_LINE + 5_000)
    start = 'address,comment\na@b.example,"please\nboss@example.com\nbye"\n'

    assert found(f'{start}c@d.example,"{long}"\ne@f.example,ok\n') == ["a@b.example", "c@d.example", "e@f.example"]
    assert found(f"{start}c@d.example,{long}\ne@f.example,ok\n") == ["a@b.example", None, "e@f.example"]
    assert found(f'{start}c@d.example,said "{long}"\ne@f.example,ok\n') == ["a@b.example", "c@d.example", "e@f.example"]


def test_a_postal_address_of_several_lines_is_no_candidate() -> None:
    assert found('email,address\na@b.example,"1 Main St\nSpringfield"\n') == ["a@b.example"]


def test_long_values_in_quotes_are_read_to_their_end() -> None:
    long = f"{'x' * (MAX_LINE + 100)}\n{'x' * 1_000}"

    assert found(f'address,note,more\nme@example.com,"{long}","{long}"\nyou@example.com,x\n') == [
        "me@example.com",
        "you@example.com",
    ]


def test_rows_may_begin_with_a_number_sign() -> None:
    """Of a ticket or a status: only in lists without columns is it the begin of a comment."""
    text = "# of May\nTicket,Email\n#1001,jane@example.com\n#1002,\n# the end\n"

    assert found(text) == ["jane@example.com", None, None]
    assert problems(text) == {4: "no address", 5: "too few columns"}


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


@pytest.mark.parametrize("wanted", [ADDRESSES, OPT_OUTS])
def test_a_reason_without_quotes_is_read_alike_by_all_commands(wanted: ReadOptions) -> None:
    text = "email,reason\nu7@example.com,BOUNCE\nu10@example.com\nu11@example.com,full, really\n;;\n,,\n"
    assert found(text, wanted) == ["u7@example.com", "u10@example.com", "u11@example.com", None]
    assert problems(text, wanted) == {5: "no address: there is no @"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_without_values_are_skipped(delimiter: str) -> None:
    text = f"email{delimiter}date\na@example.com{delimiter}2026-01-01\n{delimiter}\n {delimiter} \n{delimiter * 3}\n"
    assert found(text) == ["a@example.com"]
