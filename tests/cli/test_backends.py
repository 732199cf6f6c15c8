"""`flask ctms backends …`: the state of other systems, and operations on them."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ctms.cli import ctms, progress
from ctms.cli.receivers import NO_COPIES
from ctms.database import pool
from ctms.sync import parked, resync
from tests.cli.running import run, run_json
from tests.http import ApiClient
from tests.sync.receiving import contacts, ctms_plugins, execute, ids, park, waiting

__all__ = ["contacts", "ctms_plugins"]

Make = Callable[..., dict[str, Any]]


def listed(cli: CliRunner, name: str = "mail", kind: str = "backend") -> dict[str, Any]:
    """Return one entry of the list."""
    (found,) = [one for one in run_json(cli, "backends", "list") if (one["name"], one["kind"]) == (name, kind)]
    return found  # type: ignore[no-any-return]


def test_list_shows_how_each_is_doing(cli: CliRunner, make_contact: Make) -> None:
    first, second, third = ids([make_contact(), make_contact(), make_contact()])
    park(first, "no")
    execute("UPDATE outbox SET attempts = 1 WHERE backend = 'mail' AND email_id = %(e)s", e=second)
    execute("UPDATE outbox SET backend = 'gone' WHERE backend = 'blind' AND email_id = %(e)s", e=third)

    lines = [line.split() for line in run(cli, "backends", "list").stdout.splitlines()]
    mail = listed(cli)

    assert [line[:6] for line in lines] == [
        ["name", "kind", "state", "waiting", "retrying", "parked"],
        ["blind", "backend", "ok", "2", "0", "0"],
        ["club", "backend", "ok", "3", "0", "0"],
        ["gone", "backend", "not", "installed", "1", "0"],
        ["mail", "backend", "ok", "2", "1", "1"],
        ["mail", "deletion", "handler", "ok", "0", "0"],
    ]
    oldest = datetime.fromisoformat(mail.pop("waiting_since"))
    assert timedelta() < datetime.now(UTC) - oldest < timedelta(minutes=5)
    assert mail == {
        "kind": "backend",
        "name": "mail",
        "state": "ok",
        "waiting": 2,
        "retrying": 1,
        "parked": 1,
        "paused_at": None,
        "paused_why": None,
        "failures": 0,
        "resting_until": None,
        "last_success_at": None,
        "last_error": None,
        "last_error_at": None,
        "synchronised_at": None,
        "never_synchronised": False,
    }


@pytest.mark.parametrize(
    ("failures", "rests", "state"),
    [(6, "NULL", "ok"), (7, "NULL", "failing"), (7, "clock_timestamp() + interval '1 hour'", "resting until 2")],
)
def test_list_shows_failing_and_cooling_down_backends(cli: CliRunner, failures: int, rests: str, state: str) -> None:
    execute(
        "INSERT INTO receivers (kind, name, failures, last_error, last_error_at, open_until)"
        f" VALUES ('backend', 'mail', %(f)s, 'raised TimeoutError', '2026-01-02 03:04:05.678+00', {rests})",
        f=failures,
    )

    shown = run(cli, "backends", "list").stdout
    assert f"mail   backend           {state}" in shown
    assert "2026-01-02 03:04:05+00:00 raised TimeoutError\n" in shown
    assert listed(cli)["last_error"] == "raised TimeoutError"
    assert listed(cli)["state"] == state.split(maxsplit=1)[0]


def test_pause_and_resume(cli: CliRunner) -> None:
    paused = run(cli, "backends", "pause", "mail", "--why", "they move house")
    assert (paused.stdout, paused.stderr) == ("mail\n", "paused\n")
    assert "paused: they move house" in run(cli, "backends", "list").stdout
    again = run(cli, "backends", "pause", "mail")  # keeps why
    assert again.stderr == "already paused\n"
    assert listed(cli)["paused_why"] == "they move house"
    assert listed(cli, kind="deletion_handler")["state"] == "ok"

    execute("UPDATE receivers SET failures = 9, open_until = clock_timestamp() + interval '1 hour'")
    assert run(cli, "backends", "resume", "mail").stderr == "resumed\n"

    after = listed(cli)
    assert (after["state"], after["failures"], after["resting_until"], after["paused_why"]) == ("ok", 0, None, None)
    assert run(cli, "backends", "resume", "mail").stderr == "it was neither paused nor cooling down\n"


def test_pause_and_resume_of_a_deletion_handler(cli: CliRunner) -> None:
    assert run_json(cli, "backends", "pause", "mail", "--deletion-handler")["state"] == "paused"
    assert listed(cli)["state"] == "ok"

    assert run_json(cli, "backends", "resume", "mail", "--deletion-handler")["state"] == "ok"
    run(cli, "backends", "pause", "club", "--deletion-handler", status=4)


def test_errors_groups_parked_contacts_by_reason(cli: CliRunner, make_contact: Make) -> None:
    made = ids([make_contact() for _ in range(6)])
    for email_id in made[:4]:
        park(email_id, "full")
    park(made[4], "too long")
    park(made[4], "elsewhere", backend="club")

    found = run_json(cli, "backends", "errors", "mail")
    table = run(cli, "backends", "errors", "mail").stdout.splitlines()

    assert [(one["reason"], one["contacts"], len(one["email_ids"])) for one in found] == [
        ("full", 4, 3),
        ("too long", 1, 1),
    ]
    assert found[1]["email_ids"] == [made[4]]
    assert set(found[0]["email_ids"]) < set(made[:4])
    assert found[0]["first"] < found[0]["last"]
    assert [line.split()[0] for line in table] == ["reason", "full", "too"]
    nothing = run(cli, "backends", "errors", "blind")
    assert (nothing.stdout, nothing.stderr) == ("", "nothing is parked for the backend blind\n")


def test_retry_makes_parked_contacts_pending(
    cli: CliRunner, make_contact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "BATCH", 2)
    made = ids([make_contact() for _ in range(6)])
    for email_id in made[:5]:
        park(email_id, "full")
    park(made[5], "too long")
    park(made[5], "full", backend="club")

    done = run(cli, "backends", "retry", "mail", "--reason", "full")

    assert (done.stdout, done.stderr) == ("mail\n", "contacts to retry: 5\n")
    assert waiting() == set(made[:5])
    tried = execute("SELECT DISTINCT attempts, failures, reason FROM outbox WHERE backend = 'mail' AND attempts = 0")
    assert tried == [(0, 0, None)]
    assert run_json(cli, "backends", "retry", "mail") == {"backend": "mail", "retried": 1}
    assert run_json(cli, "backends", "retry", "mail") == {"backend": "mail", "retried": 0}
    assert made[5] not in waiting("club")


def test_retry_of_an_uninstalled_backend(cli: CliRunner, make_contact: Make) -> None:
    park(ids([make_contact()])[0], "full")
    execute("UPDATE outbox SET backend = 'gone' WHERE backend = 'mail'")

    assert "they stay pending until one does" in run(cli, "backends", "retry", "gone").stderr

    assert listed(cli, "gone")["waiting"] == 1


@pytest.mark.parametrize("command", ["pause", "resume", "retry", "errors"])
def test_a_backend_that_nothing_knows(cli: CliRunner, command: str) -> None:
    failed = run(cli, "backends", command, "post", status=4)

    assert failed.stderr == "Error: there is no backend post; the backends are blind, club, mail\n"


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("pause", "eraser"), "pass --deletion-handler"),
        (("resume", "eraser"), "pass --deletion-handler"),
        (("errors", "eraser"), "run `flask ctms erasures list --unfinished`, then `erasures show`"),
        (("retry", "eraser"), "run `flask ctms erasures retry --handler eraser --all`"),
        (("resync", "eraser", "--all", "--yes"), NO_COPIES),
        (("verify", "eraser"), NO_COPIES),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_name_of_the_other_kind_gets_a_hint(cli: CliRunner, command: tuple[str, ...], hint: str) -> None:
    execute("INSERT INTO receivers (kind, name, failures) VALUES ('deletion_handler', 'eraser', 0)")

    told = run(cli, "backends", *command, status=4).stderr
    assert told == f"Error: eraser is a deletion handler, not a backend: {hint}\n"


def test_a_backend_that_is_taken_for_a_deletion_handler(cli: CliRunner) -> None:
    message = run(cli, "backends", "pause", "club", "--deletion-handler", status=4).stderr
    assert message == "Error: club is a backend, not a deletion handler: omit --deletion-handler\n"


@pytest.mark.usefixtures("contacts")
def test_resync_and_verify_need_a_backend_that_is_installed(cli: CliRunner) -> None:
    execute(
        "INSERT INTO outbox (backend, email_id, version, priority, waiting_since, due_at, attempts, failures)"
        " SELECT 'gone', email_id, 1, 0, now(), now(), 0, 0 FROM emails"
    )

    for arguments in (("resync", "gone", "--all", "--yes"), ("verify", "gone")):
        assert "no plugin that is on has a backend gone" in run(cli, "backends", *arguments, status=4).stderr


@pytest.mark.parametrize(
    ("arguments", "who"),
    [
        (("--all", "--yes"), {0, 1, 2}),
        (("--newsletter", "club"), {0}),
        (("--newsletter", "news"), {1}),
        (("--newsletter", "nothing"), set()),
        (("--waitlist", "hub"), {0}),
        (("--since", "2h"), {1, 2}),
        (("--since", "2h", "--newsletter", "club"), set()),
        (("--since", "2020-01-01", "--newsletter", "club", "--waitlist", "hub"), {0}),
        (("--newsletter", "news", "--waitlist", "hub"), set()),
        (("--filter", '{"newsletters": {"name": "club", "state": "any"}}'), {0}),
        (("--filter", '{"newsletters": "club"}'), set()),
        (("--filter", '{"not": {"waitlists": "hub"}, "double_opt_in": false}'), {1, 2}),
        (("--filter", '{"mailing_country": "xx"}'), set()),
        (("--since", "2h", "--filter", '{"not": {"newsletters": "news"}}'), {2}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_resync_of_a_selection(
    cli: CliRunner,
    contacts: list[dict[str, Any]],
    arguments: tuple[str, ...],
    who: set[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resync, "BATCH", 1)
    first = ids(contacts)[0]
    execute("UPDATE emails SET update_timestamp = now() - interval '1 day' WHERE email_id = %(e)s", e=first)

    found = run_json(cli, "backends", "resync", "mail", *arguments)

    assert found == {"backend": "mail", "contacts": len(who)}
    assert waiting() == {ids(contacts)[one] for one in who}
    assert waiting("club") == set()
    assert execute("SELECT DISTINCT priority FROM outbox") == ([(-1,)] if who else [])


@pytest.mark.parametrize(
    "content", ['newsletters = {name = "club", state = "any"}', '{"newsletters": {"name": "club", "state": "any"}}']
)
def test_resync_by_a_filter_in_a_file(
    cli: CliRunner, contacts: list[dict[str, Any]], tmp_path: Path, content: str
) -> None:
    file = tmp_path / "filter"
    file.write_text(content)

    run(cli, "backends", "resync", "mail", "--filter", str(file))

    assert waiting() == {ids(contacts)[0]}


def test_the_place_of_a_problem_in_a_filter_is_shown(cli: CliRunner, tmp_path: Path) -> None:
    file = tmp_path / "filter.toml"
    file.write_text('or = [{ has_fxa = true }, { country = "ca" }]')

    said = run(cli, "backends", "resync", "mail", "--filter", str(file), status=2).stderr

    assert "filter.toml: or[2].country: there is no such test; the tests are " in " ".join(said.split())


@pytest.mark.usefixtures("contacts")
def test_resync_by_time_passes_over_no_one_of_many_at_one_time(cli: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync, "BATCH", 2)
    execute("UPDATE emails SET update_timestamp = now()")

    assert run_json(cli, "backends", "resync", "mail", "--since", "1h")["contacts"] == 3


def test_resync_of_pending_and_parked_contacts(cli: CliRunner, api: ApiClient, contacts: list[dict[str, Any]]) -> None:
    """An edit keeps its priority, parked contacts become pending, and nothing is added twice."""
    edited, refused, _ = ids(contacts)
    for email_id in (edited, refused):
        assert api.patch(f"/ctms/{email_id}", {"email": {"first_name": "Jo"}}).status_code == 200
    park(refused, "full")

    for _ in range(2):
        assert run_json(cli, "backends", "resync", "mail", "--all", "--yes")["contacts"] == 3

    assert waiting() == set(ids(contacts))
    rows = dict(execute("SELECT email_id::text, priority FROM outbox WHERE backend = 'mail'"))
    assert rows[edited] == 0


def test_resync_of_a_list(
    cli: CliRunner, contacts: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resync, "BATCH", 2)
    first, second, _ = [contact["email"]["primary_email"] for contact in contacts]
    file = tmp_path / "list.csv"
    file.write_text(f"name,email\na,{first}\nb,{first.upper()}\nc,nobody@example.com\n,{second}\n")

    done = run(cli, "backends", "resync", "mail", "--email-file", str(file))

    assert done.stdout == "mail\n"
    assert "addresses without a contact: 1" in done.stderr
    assert waiting() == set(ids(contacts)[:2])


def test_resync_of_a_list_with_bad_lines_does_the_others(cli: CliRunner, contacts: list[dict[str, Any]]) -> None:
    lines = io.BytesIO(f"nonsense\n{contacts[0]['email']['primary_email']}\n".encode())

    done = cli.invoke(ctms, ["backends", "resync", "mail", "--email-file", "-", "--json"], input=lines)

    assert done.exit_code == 3
    assert '"contacts": 1' in done.stdout
    assert done.stderr == "line 1: no address: there is no @\nError: skipped bad lines: 1\n"
    assert waiting() == {ids(contacts)[0]}


@pytest.mark.usefixtures("contacts")
def test_resync_of_all_asks_for_confirmation(cli: CliRunner) -> None:
    assert "--yes" in run(cli, "backends", "resync", "mail", "--all", status=1).stderr

    assert waiting() == set()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--all", "--since", "1h"),
        ("--all", "--email-file", "-"),
        ("--email-file", "-", "--newsletter", "club"),
        ("--since", "2999-01-01"),
        ("--since", "soon"),
        ("--since", "99999d"),
        ("--all", "--filter", '{"has_fxa": true}'),
        ("--filter", "{}"),
        ("--filter", '{"nonsense": true}'),
        ("--filter", '{"has_fxa": tru'),
        ("--filter", "/no/such/file"),
    ],
    ids=" ".join,
)
def test_resync_of_a_choice_that_is_none(cli: CliRunner, arguments: tuple[str, ...]) -> None:
    run(cli, "backends", "resync", "mail", *arguments, status=2)


@pytest.mark.usefixtures("contacts")
def test_an_interrupted_resync_keeps_finished_batches(cli: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync, "BATCH", 1)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1)
    said: list[str] = []

    def say(remark: str) -> None:
        said.append(remark)
        if len(said) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(progress, "say", say)

    # Finished batches are kept, as outside of tests, where they are no savepoints.
    with pool.acquire() as connection, monkeypatch.context() as patched:
        patched.setattr(pool, "acquire", lambda: nullcontext(connection))
        stopped = cli.invoke(ctms, ["backends", "resync", "mail", "--all", "--yes"])

    assert stopped.exit_code == 3
    assert stopped.stderr == "Error: stopped: pending contacts: 2; run it again for the rest\n"
    assert said == ["pending contacts: 1", "pending contacts: 2"]
    assert len(waiting()) == 2
