"""The lists of all commands: addresses, bad lines, columns."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ctms.bulk.json_lists import SAMPLE
from ctms.cli import ctms
from ctms.cli.lists import MAX_LINES
from ctms.suppression.fingerprints import fingerprints
from tests.bulk.test_exports import EXPORTS, REASONS
from tests.contacts.rows import execute, insert, insert_contact
from tests.http import ApiClient, assert_error
from tests.sync.receiving import ctms_plugins

__all__ = ["ctms_plugins"]

pytestmark = pytest.mark.usefixtures("nothing_erased", "erasure_key")

COMMANDS: dict[str, tuple[str, ...]] = {
    "delete-bulk": ("delete-bulk", "--forget", "--yes", "--email-file"),
    "opt-out": ("opt-out", "--yes"),
    "import": ("suppressions", "import"),
    "resync": ("backends", "resync", "mail", "--email-file"),
}

ADDRESS = "jane@blocked.example"

DECORATED = {
    "display name": f"Sam <{ADDRESS}>",
    "quoted display name": f'"Doe, Sam" <{ADDRESS}>',
    "mailto": f"mailto:{ADDRESS}",
    "comma": f"{ADDRESS},",
    "semicolon": f"{ADDRESS};",
    "zero-width": f"\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NO-BREAK SPACE}{ADDRESS}\N{WORD JOINER}",
    "no-break space": f"\N{NO-BREAK SPACE}{ADDRESS}\N{NO-BREAK SPACE}",
    "direction mark": f"\N{RIGHT-TO-LEFT MARK}{ADDRESS}",
}

BAD = {
    "a record of SES": f'{{"EmailAddress": "{ADDRESS}", "Reason": "BOUNCE"}}',
    "two addresses": f"{ADDRESS}, joe@blocked.example",
    "two addresses after each other": f"{ADDRESS} joe@blocked.example",
    "wildcard": "*@blocked.example",
    "line of a CSV": f"{ADDRESS},2024-05-24,bounced",
    "line of a CSV with quotes": f'"{ADDRESS}","2024-05-24","bounced"',
    "two commas": f"{ADDRESS},,",
    "zero-width inside": "ja\N{ZERO WIDTH SPACE}ne@blocked.example",
    "no domain": "jane@blocked",
}


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> str:
    """Each command that reads a list."""
    name: str = request.param
    return name


def call(cli: CliRunner, command: str, content: str | bytes, *options: str, status: int = 0) -> Result:
    """Run a command on a list and hold it to an exit status."""
    content = content.encode() if isinstance(content, str) else content
    arguments = [*COMMANDS[command], "-", *options, "--json"]
    result = cli.invoke(ctms, arguments, input=content)
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def reached(command: str, address: str = ADDRESS) -> bool:
    """Return whether the command has had its effect on the contact or the address."""
    if command == "import":
        found = execute("SELECT count(*) FROM suppressions WHERE fingerprint = :f", f=fingerprints().of(address))
    elif command == "delete-bulk":
        found = execute("SELECT 1 - count(*) FROM emails WHERE primary_email = :a", a=address)
    elif command == "opt-out":
        found = execute("SELECT count(*) FROM emails WHERE primary_email = :a AND has_opted_out_of_email", a=address)
    else:
        found = execute(
            "SELECT count(*) FROM outbox JOIN emails USING (email_id) WHERE primary_email = :a AND backend = 'mail'",
            a=address,
        )
    return bool(found)


@pytest.mark.parametrize("name", DECORATED)
@pytest.mark.parametrize("position", ["first", "later"])
def test_decoration_by_exports(cli: CliRunner, command: str, name: str, position: str) -> None:
    insert_contact(primary_email=ADDRESS)
    before = "" if position == "first" else "other@blocked.example\n"

    call(cli, command, f"{before}{DECORATED[name]}\n")

    assert reached(command)


@pytest.mark.parametrize("name", BAD)
def test_invalid_addresses_are_bad_lines(cli: CliRunner, command: str, name: str) -> None:
    insert_contact(primary_email=ADDRESS)
    insert_contact(primary_email="other@blocked.example")

    done = call(cli, command, f"other@blocked.example\n{BAD[name]}\n", status=3)

    assert done.stderr.startswith("line 2: ")
    assert done.stderr.endswith("Error: skipped bad lines: 1\n")
    assert "blocked" not in done.stderr
    assert not reached(command)
    assert reached(command, "other@blocked.example")
    assert execute("SELECT count(*) FROM suppressions") == {"import": 1, "delete-bulk": 1}.get(command, 0)


@pytest.mark.parametrize("name", BAD)
def test_the_api_refuses_invalid_addresses(api: ApiClient, name: str) -> None:
    insert_contact(primary_email=ADDRESS)
    body = {
        "emails": ["other@blocked.example", BAD[name]],
        "identities": [{"fxa_id": "1"}, {"primary_email": BAD[name]}],
    }

    refused = api.post("/erasures", {**body, "forget": True})

    assert_error(refused, 422, at=[["body", "emails", 1], ["body", "identities", 1, "primary_email"]])
    assert "blocked" not in refused.text
    assert [execute(f"SELECT count(*) FROM {table}") for table in ("emails", "erasures", "suppressions")] == [1, 0, 0]


@pytest.mark.parametrize("name", DECORATED)
def test_the_api_removes_decoration_of_addresses(api: ApiClient, name: str) -> None:
    for member in ("emails", "identities"):
        insert_contact(primary_email=ADDRESS)
        wanted: Any = DECORATED[name] if member == "emails" else {"primary_email": DECORATED[name]}

        erased = api.post("/erasures", {member: [wanted], "forget": True})

        assert (erased.status_code, erased.json["contacts"], erased.json["unknown"]) == (202, 1, 0)
    assert_error(api.post("/ctms", {"email": {"primary_email": ADDRESS}}), 403, "Address is suppressed")


ODD = (
    "No Address, at all",
    "jane@@example.com",
    "we..ird@münchen.example",
    "Sam <mailto:sam@b.example>",
    "a@b.example,",
)


@pytest.mark.parametrize("odd", ODD)
def test_stored_contact_is_named_by_whatever_its_address_is(cli: CliRunner, command: str, odd: str) -> None:
    """An adopted database contains any addresses that its service accepted."""
    insert_contact(primary_email=odd)

    call(cli, command, f"other@blocked.example\n{odd.upper()}\n")

    assert reached(command, odd)


@pytest.mark.parametrize("odd", ODD)
def test_stored_contact_is_erased_by_whatever_its_address_is(cli: CliRunner, api: ApiClient, odd: str) -> None:
    body = {"emails": [odd.upper()]}
    headers = {"Idempotency-Key": "1"}
    insert_contact(primary_email=odd)
    erased = api.post("/erasures", body, headers=headers)
    assert (erased.status_code, erased.json["contacts"]) == (202, 1)
    assert api.post("/erasures", body, headers=headers).json == erased.json  # though it is stored no more

    insert_contact(primary_email=f" {odd}")
    assert api.post("/erasures", {"identities": [{"primary_email": f" {odd}"}]}).json["contacts"] == 1

    insert_contact(primary_email=odd)
    result = cli.invoke(ctms, ["delete-bulk", "--email", odd.upper(), "--yes"])
    assert result.exit_code == 0, result.output
    assert execute("SELECT count(*) FROM emails") == 0


def test_address_of_an_account_is_a_stored_one(cli: CliRunner, command: str) -> None:
    insert("fxa", email_id=insert_contact(), fxa_id="1", primary_email="odd account")

    call(cli, command, "odd account\n")


def test_bad_lines_come_in_the_order_of_the_file(cli: CliRunner, command: str) -> None:
    for number in range(0, 60, 7):
        insert_contact(primary_email=f"p{60 - number}@blocked.example")
    lines = [f"p{number}@blocked.example" if number % 3 else "nonsense" for number in range(60)]
    assert lines.count("nonsense") == MAX_LINES
    numbers = [number + 1 for number, line in enumerate(lines) if line == "nonsense"]

    done = call(cli, command, "\n".join(lines), status=3)

    shown = [line.split(":")[0] for line in done.stderr.splitlines()[:-1]]
    assert shown == [f"line {one}" for one in numbers]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("Customer,Status\njane@blocked.example,x\n", "Customer, Status"),
        ("email,primary_email\njane@blocked.example,x\n", "email, primary_email"),
        ("1,jane@blocked.example\n", "--column"),
        ('[{"Customer": "jane@blocked.example"}]', "Customer"),
        (b"PK\x03\x04", "CSV"),
        ('{"bounces": [{"email": "jane@blocked.example"}], "complaints": [{"email": "joe@b.example"}]}', "places"),
        ('{"data": [{"email": "jane@blocked.example"}]}\n{"items": [{"email": "joe@b.example"}]}', "places"),
        ('{"email": "jane@blocked.example", "emails": ["joe@b.example"]}', "keep one"),
        ('{"data": [{"email": "jane@blocked.example"}]}\n{"message": "jane, slow down"}', "no addresses"),
        ("[" * 20_000, "nested too deeply"),
    ],
)
def test_list_whose_column_is_not_known_changes_nothing(
    cli: CliRunner, command: str, content: str | bytes, told: str
) -> None:
    insert_contact(primary_email=ADDRESS)

    refused = call(cli, command, content, status=2)

    assert told in refused.stderr
    assert "jane" not in refused.stderr
    assert refused.stdout == ""
    assert not reached(command)


@pytest.mark.parametrize(
    "content", ["", "email\n", "# nobody\n\n", "id,email\n", "[]", '{"SuppressedDestinationSummaries": []}']
)
def test_empty_list_is_remarked_on(cli: CliRunner, command: str, content: str) -> None:
    assert call(cli, command, content).stderr == "the list is empty\n"
    assert "empty" not in call(cli, command, "other@blocked.example").stderr


def test_outermost_record_counts(cli: CliRunner, command: str) -> None:
    others = ["u10@blocked.example", "u12@blocked.example"]
    for address in (ADDRESS, *others):
        insert_contact(primary_email=address)

    call(cli, command, json.dumps([{"email": others[0], "referrer": {"email": ADDRESS}}, {"email": others[1]}]))

    assert not reached(command)
    assert all(reached(command, other) for other in others)


def test_what_no_database_holds_is_a_bad_line(cli: CliRunner, command: str) -> None:
    insert_contact(primary_email=ADDRESS)

    done = call(cli, command, f"mailto:sam%00@blocked.example\n{ADDRESS}\n", status=3)

    assert done.stderr.startswith("line 1: not an e-mail address\n")
    assert reached(command)


def test_bad_record_is_named(cli: CliRunner, command: str) -> None:
    insert_contact(primary_email=ADDRESS)

    done = call(cli, command, json.dumps(["nobody", ADDRESS, None]), status=3)

    assert done.stderr.splitlines()[:2] == [
        "line 1: record 1: no address: there is no @",
        "line 1: record 3: no address: it is not text",
    ]
    assert reached(command)


def test_column_is_named(cli: CliRunner, command: str) -> None:
    insert_contact(primary_email=ADDRESS)

    call(cli, command, f"email,Customer\nother@blocked.example,{ADDRESS}\n", "--column", "customer")

    assert reached(command)
    refused = call(cli, command, f"email,Customer\nx,{ADDRESS}\n", "--column", "user", status=2)
    assert "email, Customer" in refused.stderr
    refused = call(cli, command, f",email\n{ADDRESS},x\n", "--column", " ", status=2)
    assert "it is blank" in refused.stderr


@pytest.mark.parametrize("name", REASONS)
def test_export_of_a_mailing_service(cli: CliRunner, command: str, name: str) -> None:
    for address in ("ada@example.com", "grace@example.com"):
        insert_contact(primary_email=address)

    call(cli, command, (EXPORTS / name).read_bytes())

    assert reached(command, "ada@example.com")
    assert reached(command, "grace@example.com")


def test_damaged_list_is_no_success(cli: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["ctms.cli.suppressions"], "BATCH", 2)  # the package has the group of that name
    records = ",".join(f'{{"EmailAddress": "p{number}@b.example"}}' for number in range(5))

    assert "is not JSON" in call(cli, "import", f'{{"Suppressions": [{records}', status=2).stderr
    assert execute("SELECT count(*) FROM suppressions") == 0

    done = call(cli, "import", f'{{"note": "{"x" * SAMPLE}", "Suppressions": [{records}', status=3)

    assert json.loads(done.stdout)["added"] == 4
    assert "the rest of the list was not read" in done.stderr


def test_single_address_that_is_none(cli: CliRunner, tmp_path: Path, make_contact: Callable[..., Any]) -> None:
    make_contact()
    report = tmp_path / "r.csv"

    result = cli.invoke(ctms, ["delete-bulk", "--email", "*@blocked.example", "--yes", "--report", str(report)])

    assert result.exit_code == 2
    assert "blocked" not in result.output
    assert not report.exists()
    assert execute("SELECT count(*) FROM emails") == 1


def test_bad_lines_of_several_lists_name_the_list(cli: CliRunner, tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(f"{ADDRESS}\n{name}\n")
    (tmp_path / "three.csv").write_text(f"id,customer\n1,{ADDRESS}\n")
    one, two, three = (str(tmp_path / name) for name in ("one.txt", "two.txt", "three.csv"))

    done = cli.invoke(ctms, ["opt-out", "--yes", one, two])
    refused = cli.invoke(ctms, ["delete-bulk", "--yes", "--email-file", one, "--email-file", three])

    assert done.exit_code == 3
    assert done.stderr.splitlines()[:2] == [
        "line 2: no address: there is no @ (one.txt)",
        "line 2: no address: there is no @ (two.txt)",
    ]
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Error: three.csv: line 1: no column is known")


def test_empty_one_of_several_lists_is_named(cli: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(f"{ADDRESS}\n")
    (tmp_path / "two.csv").write_text("id,email\n")

    done = cli.invoke(ctms, ["opt-out", "--yes", str(tmp_path / "one.txt"), str(tmp_path / "two.csv")])

    assert done.exit_code == 0
    assert done.stderr == "two.csv: the list is empty\n"
