"""Original exports of mailing services and spreadsheets."""

from __future__ import annotations

import gzip
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ctms.bulk import columns
from ctms.bulk.columns import ReadOptions
from ctms.bulk.entries import Entry
from ctms.bulk.json_values import MAX_VALUE
from ctms.bulk.lists import read
from ctms.errors import ListError

EXPORTS = Path(__file__).parent / "exports"
OPT_OUTS = ReadOptions(opt_outs=True)
ADA, GRACE = datetime(2024, 5, 24, 10, 15, tzinfo=UTC), datetime(2024, 6, 1, 10, tzinfo=UTC)

REASONS = {
    "acoustic.csv": ("Opt out via one click opt out", "Abuse null"),
    "excel.csv": (None, None),
    "mailchimp-cleaned.csv": (None, None),
    "mailchimp-unsubscribed.csv": (
        "NORMAL: I no longer want to receive these emails",
        "OTHER: (fill in reason below)",
    ),
    "mailgun-bounces.csv": ("No such mailbox", "Mailbox full, try later"),
    "mailgun-unsubscribes.csv": (None, None),
    "mailgun-unsubscribes.json": (None, None),
    "postmark.csv": ("HardBounce", "ManualSuppression"),
    "postmark.json": ("HardBounce", "ManualSuppression"),
    "sendgrid-bounces.csv": (
        "550 5.1.1 The account does not exist, sorry",
        '452 4.2.2 The mailbox is "full"',
    ),
    "sendgrid-bounces.json": ("550 5.1.1 unknown", "452 4.2.2 full"),
    "sendgrid-unsubscribes.csv": (None, None),
    "ses-cli-v1.json": ("BOUNCE", "COMPLAINT"),
    "ses-cli.json": ("BOUNCE", "COMPLAINT"),
    "ses-import.csv": ("BOUNCE", "COMPLAINT"),
    "ses-lines.jsonl": ("BOUNCE", "COMPLAINT"),
}


def read_all(content: bytes | str, wanted: ReadOptions = OPT_OUTS) -> list[Entry]:
    return list(read(io.BytesIO(content.encode() if isinstance(content, str) else content), wanted))


def test_every_export_is_tried() -> None:
    assert sorted(path.name for path in EXPORTS.iterdir()) == sorted(REASONS)


@pytest.mark.parametrize("name", REASONS)
def test_export(name: str) -> None:
    content = (EXPORTS / name).read_bytes()
    times = (None, None) if name == "ses-import.csv" else (ADA, GRACE)

    entries = read_all(content)

    assert [entry.problem for entry in entries] == [None, None]
    assert [entry.address for entry in entries] == ["ada@example.com", "grace@example.com"]
    assert tuple(entry.at for entry in entries) == times
    assert tuple(entry.reason for entry in entries) == REASONS[name]
    assert [entry[:2] for entry in read_all(content, ReadOptions())] == [entry[:2] for entry in entries]


@pytest.mark.parametrize("name", REASONS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gzip", "\r\n"])
def test_export_resaved_by_a_program(name: str, encoding: str) -> None:
    content = (EXPORTS / name).read_bytes()
    if encoding == "gzip":
        saved = gzip.compress(content[:20]) + gzip.compress(content[20:])
    elif encoding == "\r\n":
        saved = content.replace(b"\n", b"\r\n")
    else:
        saved = content.decode().encode(encoding)

    assert [entry[:4] for entry in read_all(saved)] == [entry[:4] for entry in read_all(content)]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-8", "utf-16"])
def test_encodings_of_excel(encoding: str) -> None:
    text = "sep=;\r\nName;E-Mail;Grund\r\nJürgen;käufer@bücher.example;größer\r\nRené;rené@example.com;\r\n"

    entries = read_all(text.encode(encoding), ReadOptions(reason="Grund", opt_outs=True))

    assert entries == [
        Entry(3, "käufer@bücher.example", reason="größer"),
        Entry(4, "rené@example.com"),
    ]


def test_separator_line_counts_before_anything_else() -> None:
    assert read_all('"sep=|"\nemail|created\na@b.example|2024-05-24,x\n')[0].line == 3
    assert read_all("sep=,\na@b.example\nc@d.example\n") == [Entry(2, "a@b.example"), Entry(3, "c@d.example")]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("Subscriber Name,Contact,Status", "Subscriber Name, Contact, Status"),
        ("id;Kunde;Land", "id, Kunde, Land"),
        ('"Full name"\tPhone', "Full name, Phone"),
        ("_id,1. Name,Kd.-Nr. 2", "_id, 1. Name, Kd.-Nr. 2"),
    ],
)
def test_unknown_columns_are_listed(header: str, names: str) -> None:
    with pytest.raises(ListError) as caught:
        read_all(f"{header}\n1,jane@example.com,x\n")
    assert names in caught.value.message
    assert "--column" in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "line",
    [
        "jane@example.com,2023-01-05,x",
        "1,jane@example.com",
        "Jane Doe,1975-02-03",
        "Jane Doe,,x",
        "Doe, Jane <jane@example.com>",
    ],
)
def test_values_of_a_line_without_a_header_are_not_repeated(line: str) -> None:
    with pytest.raises(ListError) as caught:
        read_all(f"{line}\n{line}\n")
    assert "--column" in caught.value.message
    assert not any(value in caught.value.message for value in ("Jane", "jane", "1975", "2023"))


@pytest.mark.parametrize(
    "text",
    [
        "email,primary_email\na@b.example,c@d.example\n",
        "Email;E-Mail\na@b.example;c@d.example\n",
        "email,address\na@b.example,c@d.example\n",
        '{"email": "a@b.example", "EmailAddress": "c@d.example"}\n',
        '[{"email": "a@b.example", "address": "c@d.example"}]\n',
    ],
)
def test_two_candidates_are_listed(text: str) -> None:
    with pytest.raises(ListError, match=r"several columns may hold the addresses: .*--column"):
        read_all(text)


def test_postal_address_is_no_candidate() -> None:
    assert [entry.address for entry in read_all("Email,Address\na@b.example,1 High Street\n")] == ["a@b.example"]
    with pytest.raises(ListError):
        read_all("Name,Address\nJane,1 High Street\n")


def test_column_that_is_given() -> None:
    text = "email,Login E-Mail,Left,Why,created\na@b.example,c@d.example,24.05.2024 10:15,moved,2020-01-01\n"
    wanted = ReadOptions("login e-mail", "LEFT", "Why", opt_outs=True)

    assert read_all(text, wanted) == [Entry(2, "c@d.example", ADA, "moved")]
    record = json.dumps(dict(zip(*(line.split(",") for line in text.splitlines()), strict=True)))
    assert [entry[1:4] for entry in read_all(record, wanted)] == [("c@d.example", ADA, "moved")]
    assert [entry[1:4] for entry in read_all(f"[{record}]", wanted)] == [("c@d.example", ADA, "moved")]


def test_only_column_that_is_given() -> None:
    assert read_all("Subscriber ID\na@b.example\n", ReadOptions("subscriber id")) == [Entry(2, "a@b.example")]


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "a\n1\n",
        "jane@example.com\n",
        '{"a": "x@y.example"}\n',
        '[\n{"a": 1}]',
        "email,X,X \n1,2,3\n",
        "a@b.example,BOUNCE\n",
    ],
)
@pytest.mark.parametrize(
    "wanted", [ReadOptions("x"), ReadOptions(date="x", opt_outs=True), ReadOptions(reason="x", opt_outs=True)]
)
def test_column_that_is_not_there(text: str, wanted: ReadOptions) -> None:
    with pytest.raises(ListError) as caught:
        read_all(text, wanted)
    assert "jane" not in caught.value.message


def test_lines_of_json_that_cannot_be_used() -> None:
    lines = [
        '{"EmailAddress": "ada@example.com"}',
        '{"EmailAddress": "torn@exa',
        '{"Reason": "BOUNCE"}',
        '{"EmailAddress": null}',
        '{"EmailAddress": "half \\ud800@example.com"}',
        "[]",
        '{"EmailAddress": "grace@example.com"}',
    ]

    entries = read_all("\n".join(lines))

    assert [entry.address for entry in entries if entry.address] == ["ada@example.com", "grace@example.com"]
    assert [entry.line for entry in entries if entry.problem] == [2, 3, 4, 5, 6]
    assert not any("example" in (entry.problem or "") for entry in entries)


def test_records_of_a_document_that_cannot_be_used() -> None:
    records = [
        '{"EmailAddress": "a@b.example"}',
        '{"EmailAddress": 5}',
        '{"Reason": "x"}',
        '{"EmailAddress": "nobody"}',
    ]
    text = '{"Suppressions": [\n' + ",\n".join(records) + "\n]}"

    assert [(entry.line, entry.problem) for entry in read_all(text)] == [
        (2, None),
        (3, "record 2: no address: there is no text in EmailAddress"),
        (4, "record 3: no address: there is no text in EmailAddress"),
        (5, "record 4: no address: there is no @"),
    ]


def test_list_of_addresses_in_json() -> None:
    assert [entry.address for entry in read_all('["a@b.example",\n"c@d.example"]')] == ["a@b.example", "c@d.example"]


@pytest.mark.parametrize(
    "text",
    [
        '{"Suppressions": [{"EmailAddress": "a@b.example"}',
        '{"Suppressions": [{"EmailAddress": "a@b.example"}]} and more',
        "{",
        "[1, 2",
        "[" * 60 + "]" * 60,
        '{"Suppressions": "' + "x" * 2 * MAX_VALUE + '"}',
        '{"Suppressions": [{"Name": "Jane Doe"}]}',
    ],
    ids=lambda text: text[:40],
)
def test_document_without_a_list(text: str) -> None:
    with pytest.raises(ListError) as caught:
        read_all(text)
    assert "Jane" not in caught.value.message


@pytest.mark.parametrize("content", [gzip.compress(b"a@b.example\n" * 5000)[:-9], b"\x1f\x8b\x08\x00garbage"])
def test_damaged_gzip_file(content: bytes) -> None:
    with pytest.raises(ListError, match="gzip"):
        read_all(content)


def test_workbook_is_named() -> None:
    with pytest.raises(ListError, match="CSV"):
        read_all(b"PK\x03\x04\x14\x00")


class Endless(io.RawIOBase):
    """A file that is generated while it is read, so that only its reader uses memory."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._rest) < len(buffer) and (part := next(self._parts, b"")):
            self._rest += part
        found, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(found)] = found
        return len(found)


@pytest.mark.parametrize("separator", ["", "\n"])
def test_size_of_a_document_costs_no_memory(separator: str) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"Suppressions": ['
        for number in range(40_000):
            yield f'{"," if number else ""}{{"EmailAddress": "p{number}@b.example", "Origin": "x"}}{separator}'.encode()
        yield b"]}"

    tracemalloc.start()
    try:
        count = sum(entry.problem is None for entry in read(io.BufferedReader(Endless(parts())), OPT_OUTS))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == 40_000
    assert peak < 3_000_000


def test_reference_names_the_columns_that_are_known() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "lists.md").read_text()
    documented = {
        kind: [columns.normalize_name(name) for name in re.findall(r"`([^`]+)`", row)]
        for kind, row in re.findall(r"^\| (address|date|reason) \|(.*)\|$", page, re.MULTILINE)
    }

    assert set(documented["address"]) == columns._ADDRESS | columns._MAYBE_ADDRESS
    assert documented["date"] == list(columns._DATE)
    assert documented["reason"] == list(columns._REASON)
