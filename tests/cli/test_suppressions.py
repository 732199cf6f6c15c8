"""`flask ctms suppressions`: addresses that must not be stored."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ctms.cli import ctms
from ctms.cli.lists import MAX_LINES
from ctms.cli.suppressions import BATCH
from ctms.suppression.fingerprints import fingerprints
from tests.cli.running import run, run_json
from tests.contacts.factories import address, minimal
from tests.contacts.rows import execute
from tests.http import ApiClient, assert_error

pytestmark = pytest.mark.usefixtures("nothing_erased")


def refused(api: ApiClient, unwanted: str) -> bool:
    """True when the address is refused, False when it may be stored."""
    answer = api.post("/ctms", minimal(primary_email=unwanted))
    if answer.status_code == 201:
        return False
    assert_error(answer, 403, "Address is suppressed")
    return True


@pytest.mark.usefixtures("erasure_key")
class TestOne:
    def test_an_address_is_refused_from_when_it_is_added_until_it_is_removed(
        self, cli: CliRunner, api: ApiClient
    ) -> None:
        unwanted = address()

        assert run(cli, "suppressions", "add", unwanted.upper()).stderr == "suppressed\n"
        assert refused(api, unwanted)
        assert run(cli, "suppressions", "add", unwanted).stderr == "already suppressed\n"
        assert run(cli, "suppressions", "remove", unwanted).stderr == "no longer suppressed\n"
        assert not refused(api, unwanted)
        told = run(cli, "suppressions", "remove", unwanted, status=4).stderr
        assert told == "Error: this address is not suppressed\n"

    def test_for_scripts(self, cli: CliRunner) -> None:
        assert run_json(cli, "suppressions", "list") == []
        assert run_json(cli, "suppressions", "add", "jane@example.com") == {"added": 1, "already": 0}
        assert run_json(cli, "suppressions", "add", "Jane@example.com") == {"added": 0, "already": 1}
        (found,) = run_json(cli, "suppressions", "list")
        assert (found["source"], found["addresses"], found["first"]) == ("command", 1, found["last"])
        assert run_json(cli, "suppressions", "remove", "JANE@example.com") == {"removed": 1}

    def test_invalid_addresses(self, cli: CliRunner) -> None:
        for command in ("add", "remove"):
            for given in ("jane", "", "jane@\0", f"{'x' * 250}@example.com"):
                run(cli, "suppressions", command, given, status=2)
        for given in (
            "*@example.com",
            "jane@example.com,joe@example.com",
            "jane@localhost",
            "{'email': 'a@b.example'}",
        ):
            run(cli, "suppressions", "add", given, status=2)
        assert execute("SELECT count(*) FROM suppressions") == 0

    def test_decoration_of_addresses_is_removed(self, cli: CliRunner, api: ApiClient) -> None:
        one = address()

        run(cli, "suppressions", "add", f"Sam <mailto:{one}>,")

        assert refused(api, one)
        run(cli, "suppressions", "remove", one)

    @pytest.mark.parametrize(
        "given", ["mailto:{}", "{},", "{};", "\N{ZERO WIDTH SPACE}{}\ufeff", "Sam <mailto:{}>;", " {} "]
    )
    def test_decoration_of_addresses_is_removed_by_all_commands(self, cli: CliRunner, given: str) -> None:
        decorated = given.format(address())

        run(cli, "suppressions", "check", decorated, status=4)
        run(cli, "suppressions", "add", decorated)
        run(cli, "suppressions", "check", decorated)
        run(cli, "suppressions", "remove", decorated)
        run(cli, "suppressions", "check", decorated, status=4)

    def test_suppressions_of_an_earlier_version_can_be_removed(self, cli: CliRunner) -> None:
        """Of a list's line it kept the fingerprint, whatever the line was."""
        line = '{"EmailAddress": "jane@example.com"},'
        found = fingerprints().of(line)
        execute("INSERT INTO suppressions VALUES (:f, now(), 'import')", f=found)

        assert run(cli, "suppressions", "remove", line).stderr == "no longer suppressed\n"

    def test_of_which_sources_there_are_how_many(self, cli: CliRunner, api: ApiClient) -> None:
        for _ in range(2):
            api.post("/erasures", {"emails": [address()], "forget": True})
        run(cli, "suppressions", "add", address())

        lines = [line.split()[:2] for line in run(cli, "suppressions", "list").stdout.splitlines()]

        assert lines == [["source", "addresses"], ["command", "1"], ["erasure", "2"]]


@pytest.mark.usefixtures("erasure_key")
class TestImport:
    def test_a_list_of_any_size(self, cli: CliRunner, api: ApiClient, tmp_path: Path) -> None:
        number = 2 * BATCH + 500
        one, many = address(), [f"person-{count}@example.com" for count in range(number)]
        file = tmp_path / "list.txt"
        file.write_text("\n".join(["# who wants to be left alone", "", *many, one.upper(), one, many[0].upper()]))

        first = run_json(cli, "suppressions", "import", str(file))
        again = run_json(cli, "suppressions", "import", str(file))

        assert first == {"read": number + 3, "added": number + 1, "already": 2, "bad": 0}
        assert again == {"read": number + 3, "added": 0, "already": number + 3, "bad": 0}
        assert execute("SELECT count(*) FROM suppressions WHERE source = 'import'") == number + 1
        assert refused(api, one)

    def test_a_column_of_standard_input(self, cli: CliRunner, api: ApiClient) -> None:
        one = address()

        result = cli.invoke(ctms, ["suppressions", "import", "-"], input=f'name,Email\r\n"Doe, Jane",{one}\r\n')

        assert result.exit_code == 0, result.output
        assert [line.split() for line in result.stdout.splitlines()][:2] == [["read:", "1"], ["added:", "1"]]
        assert refused(api, one)

    def test_bad_lines_are_told_and_passed_over(self, cli: CliRunner, api: ApiClient, tmp_path: Path) -> None:
        one, bad = address(), MAX_LINES + 5
        file = tmp_path / "list.txt"
        file.write_text("secret-of-jane\n" * bad + one)

        result = cli.invoke(ctms, ["suppressions", "import", str(file), "--json"])

        assert result.exit_code == 3
        assert '"bad": 25' in result.stdout
        assert "secret-of-jane" not in result.output
        assert len(result.stderr.splitlines()) == MAX_LINES + 1
        assert refused(api, one)

    def test_a_file_that_is_not_there(self, cli: CliRunner, tmp_path: Path) -> None:
        run(cli, "suppressions", "import", str(tmp_path / "none"), status=2)


def test_without_a_key_nothing_can_be_suppressed(cli: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("jane@example.com")

    for arguments in (("add", "jane@example.com"), ("remove", "jane@example.com"), ("import", str(file))):
        told = run(cli, "suppressions", *arguments, status=1).stderr
        assert told.startswith("Error: CTMS_ERASURE_KEY is not set")
    assert run_json(cli, "suppressions", "list") == []
