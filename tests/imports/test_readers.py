"""Readers: formats, compression, and rows that cannot be read."""

from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from ctms.bulk.lines import MAX_LINE
from ctms.errors import ListError
from ctms.imports.mapping import RowError
from ctms.imports.readers import find_files, find_format, number, open_reader


def rows(data: bytes | str, format_: str = "csv") -> list[Any]:
    """Return the rows; for one that cannot be read, its message."""
    reader = open_reader(io.BytesIO(data if isinstance(data, bytes) else data.encode()), format_)
    return [str(row) if isinstance(row, RowError) else row for row in reader]


def compress(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(delimiter: str) -> None:
    text = "\r\n".join(delimiter.join(line) for line in (["a", "b"], ["1", "x y"], ["2", '"q'[1:]])) + "\r\n"

    assert rows("\ufeff" + text) == [{"a": "1", "b": "x y"}, {"a": "2", "b": "q"}]


def test_lines_that_are_too_long() -> None:
    with pytest.raises(ListError, match="the first line is too long"):
        rows(f"{'x' * (MAX_LINE - 6)},email_of_another\n1,2\n")
    assert rows(f"a,b\n{' ' * 70_000}1,2\n3,4\n") == ["The line is too long", {"a": "3", "b": "4"}]


def test_quotes_and_odd_rows() -> None:
    text = 'a,b\n"1, ""x""",2\n\n"two\nlines",3\n# no comment,4\n5\n6,7,8\n9,10,,\n'

    assert rows(text) == [
        {"a": '1, "x"', "b": "2"},
        {"a": "two\nlines", "b": "3"},
        {"a": "# no comment", "b": "4"},
        {"a": "5"},
        "The row has more columns than the first line",
        {"a": "9", "b": "10"},
    ]


def test_text_in_quotes_may_have_many_lines() -> None:
    text = "line,1\r\n" * 1_000

    assert rows(f'a,b\n1,"{text}"\n2,x\n') == [{"a": "1", "b": text}, {"a": "2", "b": "x"}]


@pytest.mark.parametrize("row", ['1,"open', '1,"not "doubled" within\n3,x\nit"'])
def test_a_malformed_quote_ends_the_file(row: str) -> None:
    """Otherwise text of a person would be taken for rows."""
    reader = iter(open_reader(io.BytesIO(f"a,b\n0,x\n{row}\n2,x\n".encode()), "csv"))

    assert next(reader) == {"a": "0", "b": "x"}
    with pytest.raises(ListError, match=r"^line 3: a quote does not end"):
        next(reader)


def test_a_long_row_is_skipped_as_a_whole() -> None:
    long = "x" * 200_000

    assert rows(f"a,b\n1,{long}\n2,x\n") == ["The line is too long", {"a": "2", "b": "x"}]
    with pytest.raises(ListError, match=r"^line 2: a quote"):
        rows(f'a,b\n1,{long},"\n2,x\n"')


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("length", range(MAX_LINE - 2, MAX_LINE + 2))
@pytest.mark.parametrize("quoted", [False, True])
def test_no_row_is_lost_after_one_as_long_as_a_chunk(end: str, length: int, quoted: bool) -> None:
    """`length` is that of the row with the end of its line."""
    mark = '"' if quoted else ""
    long = "x" * (length - len(f"1,{mark}{mark}{end}"))
    found = rows(f"a,b{end}1,{mark}{long}{mark}{end}2,x{end}{end}3,y{end}")

    assert found[1:] == [{"a": "2", "b": "x"}, {"a": "3", "b": "y"}]
    assert found[0] in ({"a": "1", "b": long}, "The line is too long")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_break_in_quotes_at_the_end_of_a_chunk_stays(end: str) -> None:
    text = f"{'x' * (MAX_LINE - len('1,') - 2)}{end}y"

    assert rows(f'a,b{end}1,"{text}"{end}2,x{end}') == [{"a": "1", "b": text}, {"a": "2", "b": "x"}]


@pytest.mark.parametrize(
    ("data", "problem"), [("", "empty"), ('"a', "a quote that does not end"), ("a,b,a\n", "the same name")]
)
def test_bad_files(data: str, problem: str) -> None:
    with pytest.raises(ListError, match=problem):
        rows(data)


def test_documents() -> None:
    data = b'\xef\xbb\xbf{"a": 1}\n\n[1]\n{"b"\n\xff\n{"c": "\xc3\xbc"}'

    assert rows(data, "ndjson") == [
        {"a": 1},
        "The line is not a JSON object",
        "The line is not JSON",
        "The line is not JSON",
        {"c": "ü"},
    ]
    with pytest.raises(ListError, match="one document per line"):
        rows(b'[{"a": 1}]', "ndjson")


@pytest.mark.parametrize("pack", [gzip.compress, compress, lambda data: compress(data[:50]) + compress(data[50:])])
def test_compressed(pack: Any) -> None:
    lines = [{"number": one} for one in range(40_000)]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()

    assert rows(pack(data), "ndjson") == lines
    assert len(rows(pack(b"a,b\n" + b"1,2\n" * 9_000))) == 9_000


@pytest.mark.parametrize("pack", [gzip.compress, compress])
def test_damaged_files_are_noticed(pack: Any) -> None:
    data = pack("".join(f'{{"number": {one * 7919}}}\n' for one in range(40_000)).encode())

    with pytest.raises(ListError, match="damaged"):
        rows(data[: len(data) // 2], "ndjson")


def test_parquet() -> None:
    table = pa.table(
        {
            "Mail": ["a@example.com", None],
            "group": [{"day": date(2020, 1, 27), "at": datetime(2020, 1, 27, 8, tzinfo=UTC)}, None],
            "list": [[{"name": "weekly"}], []],
        }
    )
    file = io.BytesIO()
    parquet.write_table(table, file)

    assert rows(file.getvalue(), "parquet") == [
        {
            "Mail": "a@example.com",
            "group": {"day": "2020-01-27", "at": "2020-01-27T08:00:00+00:00"},
            "list": [{"name": "weekly"}],
        },
        {"Mail": None, "group": None, "list": []},
    ]
    with pytest.raises(ListError, match="not a Parquet file"):
        rows(file.getvalue()[:50], "parquet")


@pytest.mark.parametrize(
    ("name", "format_"),
    [("a.csv", "csv"), ("a.CSV.gz", "csv"), ("a.b.ndjson.zst", "ndjson"), ("a.parquet", "parquet"), ("a.xls", None)],
)
def test_formats_by_name(name: str, format_: str | None) -> None:
    assert find_format(Path(name)) == format_


def test_directories(tmp_path: Path) -> None:
    with pytest.raises(ListError, match="it is no export, or an incomplete one"):
        find_files(tmp_path)
    (tmp_path / "manifest.json").write_text('{"parts": [{"file": "b"}, {"file": "../a"}]}')
    (tmp_path / "b").touch()
    with pytest.raises(ListError, match="lacks a, which its manifest lists"):
        find_files(tmp_path)
    (tmp_path / "a").touch()
    assert find_files(tmp_path) == [tmp_path / "b", tmp_path / "a"]
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ListError, match="not the manifest"):
        find_files(tmp_path)


def test_rows_are_numbered_over_all_files() -> None:
    assert [one for one, _ in number([[{}, {}], [RowError((), "x"), {}]])] == [1, 2, 3, 4]
