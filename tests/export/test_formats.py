"""What exports hold: the API's documents, or the same values in columns, as tools of others read them."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest

from ctms.contacts.sparse import FieldsError, parse_fields
from ctms.database.pool import Connection
from ctms.export.run import run_export
from ctms.export.targets import FileTarget, PartsTarget
from tests.export.conftest import by_id, documents, lines, options, read

LEGACY = ("vpn_waitlist", "relay_waitlist")


def export(folder: Path, format_: str, **chosen: Any) -> Path:
    """Export to one file, and return it."""
    wanted = options(format_, **chosen)
    path = folder / f"all{wanted.format.suffix}"
    run_export(wanted, FileTarget(path, wanted.format, overwrite=True))
    return path


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.usefixtures("app", "people")
def test_ndjson_has_the_documents_of_the_api(connection: Connection, tmp_path: Path, compression: str) -> None:
    found = [json.loads(line) for line in read(export(tmp_path, "ndjson", compression=compression)).splitlines()]

    expected = documents(connection)
    assert by_id(found) == expected
    assert [list(one) for one in found] == [list(next(iter(expected.values())))] * len(expected)


@pytest.mark.usefixtures("app", "people")
def test_csv_has_their_values(connection: Connection, tmp_path: Path) -> None:
    expected = documents(connection)

    rows = list(csv.DictReader(io.StringIO(read(export(tmp_path, "csv")).decode(), newline="")))

    assert {row["email.email_id"] for row in rows} == set(expected)
    for row in rows:
        contact = expected[row["email.email_id"]]
        assert {name: _in_csv(name, text) for name, text in row.items()} == {
            **{
                f"{group}.{name}": "" if value is None else value
                for group, members in contact.items()
                if isinstance(members, dict) and group not in LEGACY
                for name, value in members.items()
            },
            "newsletters": contact["newsletters"],
            "waitlists": contact["waitlists"],
        }


def _in_csv(name: str, text: str) -> Any:
    if "." not in name:
        return json.loads(text)
    return {"true": True, "false": False}.get(text, text)


@pytest.mark.usefixtures("app", "people")
def test_duckdb_reads_csv(connection: Connection, tmp_path: Path) -> None:
    path = export(tmp_path, "csv")

    with duckdb.connect() as tool:
        found = tool.execute(
            'SELECT "email.email_id"::text, "email.first_name", json_array_length(newsletters)'
            " FROM read_csv(?, header = true, quote = '\"', escape = '\"', all_varchar = true)",
            [str(path)],
        ).fetchall()

    expected = documents(connection)
    assert {email_id: (name or "", number) for email_id, name, number in found} == {
        email_id: (one["email"]["first_name"] or "", len(one["newsletters"])) for email_id, one in expected.items()
    }


@pytest.mark.usefixtures("app", "people")
def test_parquet_has_typed_values(connection: Connection, tmp_path: Path) -> None:
    table = pa.parquet.read_table(export(tmp_path, "parquet", compression="zstd"))

    email = table.schema.field("email").type
    assert email.field("update_timestamp").type == pa.timestamp("us", tz="UTC")
    assert email.field("double_opt_in").type == pa.bool_()
    assert table.schema.field("amo").type.field("last_login").type == pa.date32()
    assert pa.types.is_list(table.schema.field("newsletters").type)
    expected = documents(connection)
    assert {one["email"]["email_id"]: one for one in table.to_pylist()} == {
        email_id: {name: _in_parquet(value) for name, value in one.items() if name not in LEGACY}
        for email_id, one in expected.items()
    }
    rows = connection.execute("SELECT email_id::text, name, fields::text FROM waitlists").fetchall()
    assert {
        (one["email"]["email_id"], entry["name"], entry["fields"])
        for one in table.to_pylist()
        for entry in one["waitlists"]
    } >= {(email_id, name, fields) for email_id, name, fields in rows if "\n" not in fields}


def _in_parquet(value: Any) -> Any:
    """Return a value of a document with the types of Parquet, in which the fields of a waitlist are text."""
    match value:
        case list():
            return [_in_parquet(one) for one in value]
        case dict():
            return {name: _typed(name, one) for name, one in value.items()}
    return value


def _typed(name: str, value: Any) -> Any:
    if value is not None and name.endswith("_timestamp"):
        return datetime.fromisoformat(value).astimezone(UTC)
    if value is not None and name == "last_login":
        return date.fromisoformat(value)
    return _AnyText() if name == "fields" else value


class _AnyText:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and (json.loads(other), True)[1]

    def __hash__(self) -> int:
        return 0


@pytest.mark.usefixtures("app", "people")
def test_duckdb_reads_parts_of_parquet(connection: Connection, tmp_path: Path) -> None:
    chosen = options("parquet")
    run_export(chosen, PartsTarget(tmp_path / "out", chosen.format, 50))

    with duckdb.connect() as tool:
        found = tool.execute(
            "SELECT email.mailing_country, count(*), sum(len(newsletters)) FROM read_parquet(?) GROUP BY 1",
            [str(tmp_path / "out" / "contacts-*.parquet")],
        ).fetchall()

    expected = connection.execute("""
        SELECT mailing_country, count(DISTINCT e.email_id), count(n.id)
        FROM emails e LEFT JOIN newsletters n USING (email_id) GROUP BY 1""").fetchall()
    assert sorted(found) == sorted(expected)


@pytest.mark.usefixtures("app", "people")
def test_only_the_selected_fields(connection: Connection, tmp_path: Path) -> None:
    names = ["newsletters.name", "email.first_name", "email.email_id", "fxa"]
    expected = {
        email_id: {
            "email": {name: one["email"][name] for name in ("email_id", "first_name")},
            "fxa": one["fxa"],
            "newsletters": [{"name": entry["name"]} for entry in one["newsletters"]],
        }
        for email_id, one in documents(connection).items()
    }

    text = read(export(tmp_path, "ndjson", fields=names))
    header = read(export(tmp_path, "csv", fields=names)).splitlines()[0]
    table = pa.parquet.read_table(export(tmp_path, "parquet", fields=names))

    assert by_id(json.loads(line) for line in text.splitlines()) == expected
    assert by_id(table.to_pylist()) == expected
    assert header.decode().split(",") == [
        "email.email_id",
        "email.first_name",
        *(f"fxa.{name}" for name in next(iter(expected.values()))["fxa"]),
        "newsletters",
    ]


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        ({"mailing_country": "ca"}, "e.mailing_country = 'ca'"),
        (
            {"newsletters": {"name": ["weekly", "Zebra"]}, "has_fxa": True},
            """e.email_id IN (SELECT email_id FROM newsletters WHERE subscribed AND name IN ('weekly', 'Zebra'))
            AND e.email_id IN (SELECT email_id FROM fxa)""",
        ),
        (
            {"create_timestamp": {"newer_than": "1d"}, "not": {"mofo_relevant": True}},
            "NOT coalesce(mofo_relevant, false)",
        ),
        ({"update_timestamp": {"before": "2001-01-01"}}, "false"),
    ],
)
@pytest.mark.parametrize("format_", ["ndjson", "csv", "parquet"])
@pytest.mark.usefixtures("app", "people")
def test_only_contacts_that_match(
    connection: Connection, tmp_path: Path, condition: Any, where: str, format_: str
) -> None:
    chosen = options(format_, condition=condition, fields=["email.email_id"])

    result = run_export(chosen, PartsTarget(tmp_path / "out", chosen.format, 50))

    assert result.manifest["contacts"] == len(documents(connection, where))


@pytest.mark.parametrize("format_", ["csv", "parquet"])
@pytest.mark.usefixtures("app")
def test_an_empty_export_has_the_columns(tmp_path: Path, format_: str) -> None:
    chosen = options(format_, fields=["email.email_id", "email.first_name"])

    result = run_export(chosen, PartsTarget(tmp_path / "out", chosen.format, 50))

    (written,) = result.files
    assert written.contacts == 0
    path = tmp_path / "out" / written.file
    if format_ == "csv":
        assert path.read_text() == "email.email_id,email.first_name\n"
    else:
        assert [one.name for one in pa.parquet.read_schema(path).field("email").type] == ["email_id", "first_name"]


@pytest.mark.usefixtures("app")
def test_a_contact_may_be_larger_than_a_block(connection: Connection, tmp_path: Path) -> None:
    connection.execute(
        "INSERT INTO emails (primary_email, unsubscribe_reason) VALUES ('a@example.com', repeat('x', 3000000))"
    )
    chosen = options("parquet")
    chosen.format.block = 1000

    result = run_export(chosen, PartsTarget(tmp_path / "out", chosen.format, 50))

    (row,) = pa.parquet.read_table(tmp_path / "out" / result.files[0].file).to_pylist()
    assert len(row["email"]["unsubscribe_reason"]) == 3_000_000


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["emails"], "emails: there is no such field; the fields are amo, email, fxa, mofo, newsletters, waitlists"),
        (["fxa.name"], "fxa.name: there is no such field; fxa has fxa_id, primary_email"),
        (["email."], "email.: there is no such field; email has email_id"),
        ([], "name one or more fields"),
    ],
)
def test_unknown_fields(names: list[str], problem: str) -> None:
    with pytest.raises(FieldsError) as raised:
        parse_fields(names)

    assert str(raised.value).startswith(problem)


@pytest.mark.usefixtures("app")
def test_lines_of_parts(people: int, connection: Connection, tmp_path: Path) -> None:
    chosen = options("ndjson", compression="zstd")

    result = run_export(chosen, PartsTarget(tmp_path / "out", chosen.format, 50))

    assert by_id(lines(tmp_path / "out")) == documents(connection)
    assert sum(one.contacts for one in result.files) == people
    assert sorted(one.contacts for one in result.files)[-2:] == [50, 50]
