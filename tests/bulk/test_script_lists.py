"""The lists that `bin/delete_bulk.py` reads by itself, and the requests and reports that result from them."""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from collections.abc import Iterator, Mapping
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


def read(folder: Path, text: str | bytes, column: str | None = None) -> list[tuple[str, int]]:
    """Return the addresses and their line numbers."""
    path = folder / "list"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [(address, int(place.rpartition(" ")[2])) for address, place in script.read_list(str(path), column)]


class FakeService:
    """A service that knows nobody, and refuses text without an @."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.keys: list[str] = []
        self.too_large: int | None = None
        self.stopping = False

    def authenticate(self) -> None:
        pass

    def pause(self, seconds: float) -> None:
        pass

    def erase(self, request: Mapping[str, Any], key: str) -> tuple[int, Any]:
        emails = request["emails"]
        if self.too_large is not None and len(self.sent) >= self.too_large:
            return 413, {"detail": "Request Entity Too Large"}
        self.sent.append(emails)
        self.keys.append(key)
        if bad := [number for number, address in enumerate(emails) if "@" not in address]:
            return 422, {"detail": [{"loc": ["body", "emails", number], "msg": "no address"} for number in bad]}
        return 202, {"id": str(len(self.sent)), "contacts": 0, "unknown": len(emails), "also_known_in": 0}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """The service that the script calls."""
    reports: list[Any] = []

    class Report(script.Report):  # type: ignore[misc]  # the script is loaded dynamically
        def __init__(self, *arguments: object) -> None:
            reports.append(self)
            super().__init__(*arguments)

    for name in ("CTMS_API_URL", "CTMS_CLIENT_ID", "CTMS_CLIENT_SECRET"):
        monkeypatch.setenv(name, "https://ctms.example")
    service = FakeService()
    monkeypatch.setattr(script, "Service", lambda *_: service)
    monkeypatch.setattr(script, "Report", Report)
    monkeypatch.setattr(script.signal, "signal", lambda *_: None)
    yield service
    for report in reports:
        report._file.close()  # the script leaves that to its end


def delete(folder: Path, *arguments: str) -> int:
    """Run the script with the list of the folder and a report; returns the exit status."""
    report = str(folder / "report.jsonl")
    return int(script.run(script.parse_arguments([str(folder / "list"), "--yes", "--report", report, *arguments])))


def bad_lines(folder: Path) -> list[int]:
    """Return the numbers of the bad lines in the report."""
    records = [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]
    return [int(one["bad"].rpartition(" ")[2]) for one in records if "bad" in one]


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


def test_addresses_that_only_python_maps_to_one_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service maps each letter alone, as its database does; Python's `lower` does not."""
    (tmp_path / "list").write_text("xΣ@b.example\nxς@b.example\nXς@B.example\nİx@b.example\ni̇x@b.example\n")
    asked: list[int] = []

    def refuse(_options: object, count: int, _url: str) -> None:
        asked.append(count)
        raise script.Failure("enough")

    for name in ("CTMS_API_URL", "CTMS_CLIENT_ID", "CTMS_CLIENT_SECRET"):
        monkeypatch.setenv(name, "https://ctms.example")
    monkeypatch.setattr(script, "confirm", refuse)

    with pytest.raises(script.Failure):
        script.run(script.parse_arguments([str(tmp_path / "list")]))

    assert asked == [4]


def test_only_bytes_that_are_not_utf_8_are_windows_1252(tmp_path: Path) -> None:
    mixed = "zoë@example.com\n".encode() + "José <j@example.com>\n".encode("latin-1")
    assert read(tmp_path, mixed) == [("zoë@example.com", 1), ("José <j@example.com>", 2)]
    assert read(tmp_path, "zoë.t@example.com\n".encode() + b"# caf\xc3") == [("zoë.t@example.com", 1)]
    assert read(tmp_path, "zoë.t@example.com\n".encode() + b"\x80\xc3@example.com") == [
        ("zoë.t@example.com", 1),
        ("€Ã@example.com", 2),
    ]


def test_a_truncated_utf_16_file_is_utf_16(tmp_path: Path) -> None:
    assert read(tmp_path, "zoë@example.com\n# x".encode("utf-16")[:-1]) == [("zoë@example.com", 1)]


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("नाम,पति", "पता"),
        ("ชื่อ,ที่อยู", "ที่อยู่"),
        (",email", "✉"),
        (",email", "?"),
        ("☎,email", "✉"),
        ("☎\N{VARIATION SELECTOR-16},email", "✉\N{VARIATION SELECTOR-16}"),
        ("Email,E-mail", "e_mail"),
        ("E-mail,E-mail", "E-mail"),
    ],
)
def test_a_column_of_another_name_is_not_read(tmp_path: Path, header: str, column: str) -> None:
    with pytest.raises(script.Failure, match="has no column") as error:
        read(tmp_path, f"{header}\na@b.example,c@d.example\n", column)

    assert error.value.status == script.USAGE


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("पति,पता", "पता"),
        ("ที่อยู,ที่อยู่", "ที่อยู่"),
        ("☎,✉", " ✉ "),
        (",?", "?"),
        ("Email, E-mail ", "E-mail"),
        ("name,E-MAIL", "e mail"),
        ("name,ADRESSE_É", unicodedata.normalize("NFD", "adresse é")),
        (unicodedata.normalize("NFD", "name,Adressé"), "adressé"),
    ],
)
def test_a_column_is_selected_by_its_name(tmp_path: Path, header: str, column: str) -> None:
    assert read(tmp_path, f"{header}\nc@d.example,a@b.example\n", column) == [("a@b.example", 2)]


@pytest.mark.parametrize("column", ["", " ", "\t"])
@pytest.mark.usefixtures("service")
def test_a_blank_column_is_wrong_usage(tmp_path: Path, column: str) -> None:
    (tmp_path / "list").write_text(",email\na@b.example,c@d.example\n")

    with pytest.raises(SystemExit) as error:
        delete(tmp_path, "--column", column)

    assert error.value.code == script.USAGE


def test_a_long_line_is_bad_and_not_sent(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = "x" * (script.MAX_LENGTH - 10) + "@b.example"
    (tmp_path / "list").write_text(f"a@b.example\n{'x' * 1_100_000}\n{longest}\nx{longest}\nc@d.example\n")

    assert delete(tmp_path, "--batch-size", "2") == script.PARTLY_DONE

    assert service.sent == [["a@b.example"], [longest], ["c@d.example"]]
    output, errors = capsys.readouterr()
    for number in (2, 4):
        assert f"line {number}: too long" in errors
    assert "bad lines:     2" in output
    assert "not sent:      0" in output
    assert bad_lines(tmp_path) == [2, 4]
    assert delete(tmp_path, "--batch-size", "2", "--resume") == script.PARTLY_DONE
    assert len(service.sent) == 3
    assert bad_lines(tmp_path) == [2, 4]


def test_a_list_of_long_lines_is_bad(service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("x" * 600)

    assert delete(tmp_path) == script.PARTLY_DONE
    assert service.sent == []


def test_requests_are_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    service = script.Service("https://ctms.example", "id", "secret", 0)

    def send(_path: str, data: bytes, _headers: dict[str, str]) -> tuple[int, Any]:
        sent.append(data)
        return 202, {}

    monkeypatch.setattr(service, "_send", send)
    service.erase({"emails": ["почта@пример.рф", 'a"\0b']}, "key")

    assert "почта@пример.рф".encode() in sent[0]
    assert json.loads(sent[0]) == {"emails": ["почта@пример.рф", 'a"\0b']}


@pytest.mark.parametrize("accepted", [0, 1])
def test_a_request_that_is_too_large_recommends_smaller_batches(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str], accepted: int
) -> None:
    service.too_large = accepted
    (tmp_path / "list").write_text("a@b.example\nc@d.example\n")
    advice = "use a smaller --batch-size"

    if accepted:
        assert delete(tmp_path, "--batch-size", "1") == script.PARTLY_DONE
        assert advice in capsys.readouterr().err
    else:
        with pytest.raises(script.Failure, match=advice) as error:
            delete(tmp_path, "--batch-size", "1")
        assert error.value.status == script.NOTHING_DONE


def test_each_of_equal_bad_lines_is_reported(
    service: FakeService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list").write_text("foo\nfoo\na@b.example\nFOO\na@b.example\nbar\n")

    for resume in ([], ["--resume"]):
        assert delete(tmp_path, *resume) == script.PARTLY_DONE

        output, errors = capsys.readouterr()
        assert [f"line {number}: no address" in errors for number in range(1, 7)] == [
            True,
            True,
            False,
            True,
            False,
            True,
        ]
        assert "bad lines:     4" in output
        assert "unknown:       1" in output
        assert bad_lines(tmp_path) == [1, 2, 4, 6]
    assert service.sent == [["foo", "a@b.example", "bar"], ["a@b.example"]]


def test_a_crash_within_the_records_of_equal_bad_lines_loses_none(service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("foo\na@b.example\nfoo\nbar\n")
    delete(tmp_path)
    report = tmp_path / "report.jsonl"
    report.write_text("".join(report.read_text().splitlines(keepends=True)[:2]))  # of the bad lines, only the first
    assert bad_lines(tmp_path) == [1]

    assert delete(tmp_path, "--resume") == script.PARTLY_DONE

    assert bad_lines(tmp_path) == [1, 3, 4]
    assert service.keys[2:] == service.keys[:2]


def test_a_batch_has_the_same_key_in_a_resumed_run(service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"foo\n{'x' * 600}\nzoë@b.example\nfoo\na@b.example\n{'x' * 600}\n")
    arguments = ("--batch-size", "3")
    delete(tmp_path, *arguments)
    report = tmp_path / "report.jsonl"
    whole = report.read_text().splitlines(keepends=True)

    for lines in range(1, len(whole) + 1):  # the report as crashes leave it
        before = len(service.keys)
        report.write_text("".join(whole[:lines]))
        delete(tmp_path, *arguments, "--resume")
        resumed = service.keys[before:]
        assert resumed == service.keys[3 - len(resumed) : 3]
        assert sorted(bad_lines(tmp_path)) == [1, 2, 4, 6]
    assert len(set(service.keys)) == 3


def test_a_line_of_many_tabs_is_searched_once(tmp_path: Path) -> None:
    """A quadratic search exceeds the time limit of a test."""
    tabs = "\t" * 2_000_000

    assert read(tmp_path, f"a@b.example\nb@b.example{tabs}x\n")[1][1] == 2
    assert script.OPEN_QUOTE.search(f'a"b{tabs}"c')
    assert not script.OPEN_QUOTE.search(f'{tabs}a"b"')


@pytest.mark.parametrize("before", ["", "x,", "x\t \t ", "x;\N{NO-BREAK SPACE}", "\t"])
def test_a_quote_that_begins_a_value_is_open(before: str) -> None:
    assert script.OPEN_QUOTE.search(f'5" {before and before + chr(34)}open')
