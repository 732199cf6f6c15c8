"""Lists in CSV: rows of several lines, malformed quotes, and headers."""

from __future__ import annotations

import io

import pytest

from ctms.bulk import lists
from ctms.bulk.columns import ReadOptions
from ctms.bulk.csv_rows import MAX_ROW
from ctms.bulk.entries import Entry
from ctms.bulk.lines import MAX_LINE
from ctms.errors import ListError
from tests.bulk.reading import ADDRESSES, OPT_OUTS, found, problems, read

INVISIBLE = (
    "\N{NO-BREAK SPACE}\t\N{SOFT HYPHEN}\0\N{VARIATION SELECTOR-16}\N{COMBINING GRAPHEME JOINER}\N{HANGUL FILLER}"
)


@pytest.mark.parametrize(
    "first", ["user@xn--mnchen-3ya.de", "jörg@example.com", f"{'x' * 60}@example.com", "a@b.example\N{NO-BREAK SPACE}"]
)
def test_any_address_may_begin_a_list_of_amazon_ses(first: str) -> None:
    entries = read(f"{first},BOUNCE\nb@c.example,COMPLAINT\n", OPT_OUTS)

    assert [(entry.address, entry.reason) for entry in entries] == [
        (first.strip(), "BOUNCE"),
        ("b@c.example", "COMPLAINT"),
    ]


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
        'jane@example.com,"two\nlines",\N{ZERO WIDTH SPACE}"hidden\nboss@example.com"',
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


@pytest.mark.parametrize("before", [*INVISIBLE, "", "- nobody@example.com, reason: ", "nobody@example.com "])
def test_an_open_quote_ends_a_list_without_columns(before: str) -> None:
    text = f'email\njane@example.com\n{before}"Please\nboss@example.com\nthanks"\n'

    entries: list[Entry] = []
    with pytest.raises(ListError, match=r"^line 3: a quote does not end"):
        entries += lists.read(io.BytesIO(text.encode()), ADDRESSES)

    assert "boss@example.com" not in {entry.address for entry in entries}


@pytest.mark.parametrize("before", INVISIBLE)
def test_an_invisible_character_does_not_hide_a_quote(before: str) -> None:
    with pytest.raises(ListError, match=r"^line 2: a quote does not end"):
        found(f'email,note\njane@example.com,{before}"Please\nboss@example.com,x\nthanks"\n')


def test_a_value_in_quotes_may_begin_with_a_symbol_and_a_quote() -> None:
    assert found('email,size,note\njane@example.com,"°""","two\nlines"\n') == ["jane@example.com"]


@pytest.mark.parametrize("value", ['"\N{ZERO WIDTH SPACE}"""', '"\n""Great"" 5"" phone"'])
def test_a_value_in_quotes_may_begin_with_an_invisible_character_and_a_quote(value: str) -> None:
    assert found(f"email,note\njane@example.com,{value}\njoe@example.com,x\n") == [
        "jane@example.com",
        "joe@example.com",
    ]


@pytest.mark.parametrize(
    "start",
    [
        '"Mail of\nsubscriber","Message\n(free text)"',
        '"email","Message\n(free text',
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


@pytest.mark.parametrize(
    "header",
    ['"E-Mail\nAddress",Date', '"email","Message\n\n(free ""text"")"', 'Message,"Email\n"', '"id\n",email,"x\n"'],
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_names_of_columns_may_have_line_breaks(header: str, delimiter: str) -> None:
    position = next(place for place, name in enumerate(header.split(",")) if "mail" in name.lower())
    cells = ["x"] * len(header.split(","))
    cells[position] = "jane@example.com"
    text = f"{header}\n{','.join(cells)}\n".replace(",", delimiter)

    assert found(text) == ["jane@example.com"]


def test_no_line_is_lost_in_the_search_for_a_header() -> None:
    text = f'"a,"@b.example\n{"x" * (2 * MAX_LINE)}\nc@d.example\n'

    assert found(text) == ['"a,"@b.example', None, "c@d.example"]
    assert problems(text) == {2: "too long"}


def test_quotes_within_a_line_cost_one_line() -> None:
    assert problems('a@b.example\nthe "pipe"\n"Doe" c@d.example\n"e@f.example"\n') == {
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


@pytest.mark.parametrize("wanted", [ADDRESSES, OPT_OUTS])
def test_a_reason_without_quotes_is_read_alike_by_all_commands(wanted: ReadOptions) -> None:
    text = "email,reason\nu7@example.com,BOUNCE\nu10@example.com\nu11@example.com,full, really\n;;\n,,\n"
    assert found(text, wanted) == ["u7@example.com", "u10@example.com", "u11@example.com", None]
    assert problems(text, wanted) == {5: "no address: there is no @"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_without_values_are_skipped(delimiter: str) -> None:
    text = f"email{delimiter}date\na@example.com{delimiter}2026-01-01\n{delimiter}\n {delimiter} \n{delimiter * 3}\n"
    assert found(text) == ["a@example.com"]
