"""`flask ctms clients …`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import func, text

from ctms.clients.models import ApiClientModel
from ctms.clients.tokens import tokens
from ctms.database.engine import db
from tests.cli.running import run, run_json
from tests.clients.factories import SECRET, create_client
from tests.http import ApiClient, assert_error

ID = "id_shop"


@pytest.fixture
def shop(app: Flask) -> ApiClient:
    """A client with the role `viewer`, calling with a token that it got before anything was changed."""
    create_client(ID, roles=["viewer"])
    return ApiClient(app.test_client(), tokens().issue(ID))


def sees_contacts(client: ApiClient) -> bool:
    """True when the client may read contacts; False when a permission is missing."""
    answer = client.get("/ctms?primary_email=jane@example.com")
    if answer.status_code == 200:
        return True
    assert_error(answer, 403, "Permission(s) required: view_contacts")
    return False


def gets_a_token(anonymous: ApiClient, secret: str) -> bool:
    """True when `POST /token` takes the secret of `ID`."""
    answer = anonymous.request("POST", "/token", data={"client_id": ID, "client_secret": secret})
    if answer.status_code == 200:
        return True
    assert_error(answer, 400, "Incorrect username or password")
    return False


def test_create_writes_a_secret_that_works_and_shows_it_once(cli: CliRunner, anonymous: ApiClient) -> None:
    made = run(cli, "clients", "create", ID, "shop@example.com", "--role", "viewer")

    secret = made.stdout.split()[-1]
    assert secret.startswith("secret_")
    assert f"client id:      {ID}\n" in made.stdout
    assert "the secret is shown only once" in made.stderr
    assert gets_a_token(anonymous, secret)
    assert secret not in run(cli, "clients", "show", ID).output


def test_create_for_scripts(cli: CliRunner, anonymous: ApiClient) -> None:
    made = run_json(cli, "clients", "create", ID, "Shop@EXAMPLE.com", "--role", "viewer", "--role", "editor")

    assert made["client_id"] == ID
    assert made["email"] == "Shop@example.com"
    assert made["enabled"] is True
    assert made["roles"] == ["editor", "viewer"]
    assert made["permissions"] == ["list_contacts", "manage_contacts", "view_contacts"]
    assert made["last_access"] is None
    assert gets_a_token(anonymous, made.pop("client_secret"))
    assert run_json(cli, "clients", "show", ID) == made


def test_create_without_a_role_warns(cli: CliRunner, app: Flask) -> None:
    assert "without a role" in run(cli, "clients", "create", ID, "shop@example.com").stderr

    assert not sees_contacts(ApiClient(app.test_client(), tokens().issue(ID)))


def test_create_with_an_unknown_role_makes_nothing(cli: CliRunner) -> None:
    run(cli, "clients", "create", ID, "shop@example.com", "--role", "viewer", "--role", "nobody", status=4)

    run(cli, "clients", "show", ID, status=4)


def test_create_does_not_change_an_existing_client(cli: CliRunner, anonymous: ApiClient, shop: ApiClient) -> None:
    run(cli, "clients", "create", ID, "other@example.com", "--role", "admin", status=10)

    assert run_json(cli, "clients", "show", ID)["roles"] == ["viewer"]
    assert gets_a_token(anonymous, SECRET)
    assert sees_contacts(shop)


@pytest.mark.parametrize("bad", ["shop", "id_", "id_a b", "id_é", "id_x\n", "ID_x", "id_x/y", f"id_{'x' * 253}", ""])
def test_a_bad_client_id_is_a_usage_error(cli: CliRunner, bad: str) -> None:
    for arguments in (("create", bad, "shop@example.com"), ("show", bad), ("grant", bad, "viewer")):
        assert "'ID'" in run(cli, "clients", *arguments, status=2).stderr


def test_the_longest_client_id(cli: CliRunner) -> None:
    longest = f"id_{'x' * 252}"

    assert run_json(cli, "clients", "create", longest, "shop@example.com")["client_id"] == longest


@pytest.mark.parametrize("bad", ["shop", "shop@", "@example.com", "a b@example.com", f"{'x' * 60}@{'y.' * 120}com", ""])
def test_a_bad_address_is_a_usage_error(cli: CliRunner, bad: str) -> None:
    run(cli, "clients", "create", ID, bad, status=2)

    run(cli, "clients", "show", ID, status=4)


@pytest.mark.parametrize("good", ["shop@intranet", "käufer@bücher.de", "o'neil+shop@example.com"])
def test_addresses_are_checked_by_syntax_only(cli: CliRunner, good: str) -> None:
    assert run_json(cli, "clients", "create", ID, good)["email"] == good


def test_list(cli: CliRunner, shop: ApiClient) -> None:
    create_client("id_books", enabled=False)
    sees_contacts(shop)

    lines = run(cli, "clients", "list").stdout.splitlines()
    found = run_json(cli, "clients", "list")

    assert lines[0].split() == ["client_id", "email", "enabled", "roles", "rate_limit", "last_access"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["id_books", "client@example.com", "no", "-"],
        [ID, "client@example.com", "yes", "viewer"],
    ]
    assert [(client["client_id"], client["enabled"], client["roles"]) for client in found] == [
        ("id_books", False, []),
        (ID, True, ["viewer"]),
    ]
    assert found[0]["last_access"] is None
    assert datetime.fromisoformat(found[1]["last_access"]).tzinfo is not None


def test_a_row_is_one_line_in_a_pipe(cli: CliRunner) -> None:
    for number in range(30):
        run(cli, "roles", "create", f"role-{number:02}")
    roles = [f"--role=role-{number:02}" for number in range(30)]
    run(cli, "clients", "create", ID, "shop@example.com", *roles)

    lines = run(cli, "clients", "list").stdout.splitlines()

    assert len(lines) == 2
    assert "role-00, role-01" in lines[1]
    assert "role-29" in lines[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", ID),
        ("delete", ID, "--yes"),
        ("delete", ID),  # it does not ask for confirmation
        ("enable", ID),
        ("disable", ID),
        ("rotate-secret", ID, "--yes"),
        ("rotate-secret", ID, "--overlap", "1h"),
        ("grant", ID, "viewer"),
        ("revoke", ID, "viewer"),
    ],
    ids=" ".join,
)
def test_an_unknown_client(cli: CliRunner, arguments: tuple[str, ...]) -> None:
    assert run(cli, "clients", *arguments, status=4).stderr == f"Error: there is no API client {ID}\n"


def test_delete_refuses_without_a_terminal(cli: CliRunner, shop: ApiClient) -> None:
    refused = run(cli, "clients", "delete", ID, status=1)

    assert "which has the roles viewer" in refused.stderr
    assert "--yes" in refused.stderr
    assert sees_contacts(shop)


def test_delete_of_a_client_that_has_roles(cli: CliRunner, anonymous: ApiClient, shop: ApiClient) -> None:
    assert run(cli, "clients", "delete", ID, "--yes").stdout == f"{ID}\n"

    assert_error(shop.get("/ctms?primary_email=jane@example.com"), 401, "Could not validate credentials")
    assert not gets_a_token(anonymous, SECRET)
    assert ID not in run_json(cli, "roles", "show", "viewer")["clients"]
    run(cli, "clients", "delete", ID, "--yes", status=4)


def test_disable_and_enable_take_effect_immediately(cli: CliRunner, anonymous: ApiClient, shop: ApiClient) -> None:
    assert run(cli, "clients", "disable", ID).stdout == f"{ID}\n"

    assert_error(shop.get("/ctms?primary_email=jane@example.com"), 400, "API Client has been disabled")
    assert not gets_a_token(anonymous, SECRET)
    assert "already" in run(cli, "clients", "disable", ID).stderr

    assert run_json(cli, "clients", "enable", ID)["enabled"] is True

    assert sees_contacts(shop)
    assert gets_a_token(anonymous, SECRET)
    assert "already" in run(cli, "clients", "enable", ID).stderr


def test_rotate_secret_ends_the_old_one(cli: CliRunner, anonymous: ApiClient, shop: ApiClient) -> None:
    refused = run(cli, "clients", "rotate-secret", ID, status=1)
    assert "--yes" in refused.stderr
    assert gets_a_token(anonymous, SECRET)

    rotated = run(cli, "clients", "rotate-secret", ID, "--yes")

    assert gets_a_token(anonymous, rotated.stdout.split()[-1])
    assert not gets_a_token(anonymous, SECRET)
    assert "no longer valid" in rotated.stderr
    assert sees_contacts(shop)  # its token stays good until it expires


@pytest.mark.usefixtures("shop")
def test_rotate_secret_with_overlap_keeps_the_old_one_until_it_expires(cli: CliRunner, anonymous: ApiClient) -> None:
    rotated = run_json(cli, "clients", "rotate-secret", ID, "--overlap", "24h")

    expires = datetime.fromisoformat(rotated["previous_secret_expires"])
    assert timedelta(hours=23, minutes=50) < expires - datetime.now(UTC) <= timedelta(hours=24)
    assert gets_a_token(anonymous, rotated["client_secret"])
    assert gets_a_token(anonymous, SECRET)

    _expire()

    assert gets_a_token(anonymous, rotated["client_secret"])
    assert not gets_a_token(anonymous, SECRET)
    assert run_json(cli, "clients", "show", ID)["previous_secret_expires"] is None
    run(cli, "clients", "rotate-secret", ID, "--overlap", "1s")  # nothing valid ends: it does not ask


@pytest.mark.usefixtures("shop")
def test_rotating_within_an_overlap_asks_for_confirmation(cli: CliRunner, anonymous: ApiClient) -> None:
    second = run_json(cli, "clients", "rotate-secret", ID, "--overlap", "1h")["client_secret"]

    assert "An earlier secret" in run(cli, "clients", "rotate-secret", ID, "--overlap", "1h", status=1).stderr
    assert gets_a_token(anonymous, SECRET)
    assert gets_a_token(anonymous, second)

    third = run_json(cli, "clients", "rotate-secret", ID, "--overlap", "1h", "--yes")["client_secret"]

    assert [gets_a_token(anonymous, secret) for secret in (SECRET, second, third)] == [False, True, True]


@pytest.mark.usefixtures("shop")
def test_rotating_without_overlap_ends_a_running_one(cli: CliRunner, anonymous: ApiClient) -> None:
    second = run_json(cli, "clients", "rotate-secret", ID, "--overlap", "1h")["client_secret"]

    third = run_json(cli, "clients", "rotate-secret", ID, "--yes")

    assert third["previous_secret_expires"] is None
    accepted = [gets_a_token(anonymous, secret) for secret in (SECRET, second, third["client_secret"])]
    assert accepted == [False, False, True]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("bad", ["24", "0h", "-1h", "366d", "1w", "999999999d", "1h30m", "h", "", "٣h"])
def test_a_bad_overlap_is_a_usage_error(cli: CliRunner, anonymous: ApiClient, bad: str) -> None:
    run(cli, "clients", "rotate-secret", ID, "--overlap", bad, status=2)

    assert run_json(cli, "clients", "show", ID)["previous_secret_expires"] is None
    assert gets_a_token(anonymous, SECRET)


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(("given", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("365d", 31_536_000)])
def test_overlaps(cli: CliRunner, given: str, seconds: int) -> None:
    run(cli, "clients", "rotate-secret", ID, "--overlap", given)

    left = db.session.scalar(db.select(func.extract("epoch", ApiClientModel.previous_secret_expires - func.now())))
    db.session.rollback()
    assert left == seconds  # exactly: the clock of the test's transaction stands still


def test_grants_and_revokes_count_from_the_next_request_on(cli: CliRunner, shop: ApiClient) -> None:
    contact = {"email": {"primary_email": "jane@example.com"}}
    assert_error(shop.post("/ctms", contact), 403, "Permission(s) required: manage_contacts")

    assert run(cli, "clients", "grant", ID, "editor").stdout == f"{ID}\n"
    assert shop.post("/ctms", contact).status_code == 201

    assert run_json(cli, "clients", "revoke", ID, "editor")["roles"] == ["viewer"]
    assert_error(shop.post("/ctms", contact), 403, "Permission(s) required: manage_contacts")
    assert sees_contacts(shop)

    run(cli, "clients", "revoke", ID, "viewer")
    assert not sees_contacts(shop)


@pytest.mark.usefixtures("shop")
def test_grant_and_revoke_are_idempotent(cli: CliRunner) -> None:
    assert "already" in run(cli, "clients", "grant", ID, "viewer").stderr
    assert run_json(cli, "clients", "show", ID)["roles"] == ["viewer"]

    run(cli, "clients", "revoke", ID, "viewer")
    assert "did not have" in run(cli, "clients", "revoke", ID, "viewer").stderr


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("command", ["grant", "revoke"])
def test_an_unknown_role(cli: CliRunner, command: str) -> None:
    refused = run(cli, "clients", command, ID, "nobody", status=4)
    assert refused.stderr == "Error: there is no role nobody: `flask ctms roles list` lists them\n"


@pytest.mark.usefixtures("shop")
def test_what_is_not_text_is_a_usage_error(cli: CliRunner) -> None:
    run(cli, "clients", "grant", ID, "\udcff", status=2)


def _expire() -> None:
    """Move the end of the overlap to a second ago."""
    with db.session.begin():
        db.session.execute(
            text("UPDATE api_client SET previous_secret_expires = now() - interval '1 second' WHERE client_id = :id"),
            {"id": ID},
        )


def limit_of(cli: CliRunner) -> tuple[str | None, int | None]:
    shown = run_json(cli, "clients", "show", ID)
    (listed,) = (one for one in run_json(cli, "clients", "list") if one["client_id"] == ID)
    found = shown["rate_limit"], shown["rate_limit_burst"]
    assert (listed["rate_limit"], listed["rate_limit_burst"]) == found
    return found


def test_a_limit_is_set_changed_and_removed(cli: CliRunner) -> None:
    create_client(ID)
    assert limit_of(cli) == (None, None)

    made = run(cli, "clients", "limit", ID, "--rate", "100/s", "--burst", "2000")
    assert (made.stdout, made.stderr) == (f"{ID}\n", "limited to 100/s, 2,000 at once\n")
    assert limit_of(cli) == ("100/s", 2000)
    assert "100/s" in run(cli, "clients", "list").stdout

    assert "already" in run(cli, "clients", "limit", ID, "--rate", "100/s", "--burst", "2000").stderr
    assert run_json(cli, "clients", "limit", ID, "--rate", "30/m")["rate_limit_burst"] == 30
    assert limit_of(cli) == ("30/m", 30)

    assert run(cli, "clients", "limit", ID, "--remove").stderr == "without a rate limit\n"
    assert limit_of(cli) == (None, None)
    assert "already" in run(cli, "clients", "limit", ID, "--remove").stderr


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["--burst", "5"],
        ["--rate", "5/s", "--remove"],
        ["--burst", "5", "--remove"],
        ["--rate", "5"],
        ["--rate", "0/s"],
        ["--rate", "1.5/s"],
        ["--rate", "5/d"],
        ["--rate", "1000001/s"],
        ["--rate", "5/s", "--burst", "0"],
    ],
)
def test_a_wrong_limit_is_refused(cli: CliRunner, wrong: list[str]) -> None:
    create_client(ID)

    run(cli, "clients", "limit", ID, *wrong, status=2)

    assert limit_of(cli) == (None, None)
