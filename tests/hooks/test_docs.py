"""Each hook has a page that is headed by its signature and shows an example that works; the how-to is run."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import get_args

import pytest
from flask import current_app
from sqlalchemy import text

from ctms.clients.tokens import tokens
from ctms.database.engine import db
from ctms.hooks import specs
from ctms.hooks.checks import REGISTRATIONS
from ctms.hooks.manager import GROUP, app_plugins
from ctms.hooks.receivers import ContactState, Outcome, Refused
from ctms.settings import Settings
from ctms.testing.apps import Apps, rolled_back
from ctms.testing.clients import create_client
from ctms.testing.contacts import contact_body
from ctms.testing.http import Answer, ApiClient, assert_error
from ctms.testing.plugins import bundled
from tests.cli.running import run
from tests.conftest import empty_database
from tests.docs import pages
from tests.docs.pages import DOCS
from tests.forked_shell import activated
from tests.hooks.distributions import Site
from tests.serving import environment_for

SECTIONS = ["When", "Process", "Transaction", "How often", "Arguments", "Yields", "On error", "Example"]
# Objects that the background service calls return outcomes, and receive personal data in batches.
RECEIVERS = ["Outcomes", "Batches and limits", "Privacy"]


def page(hook: str) -> Path:
    """Return the page about a hook."""
    return DOCS / "reference" / "hooks" / f"{hook}.md"


def signature(hook: str) -> str:
    """Return the heading of the hook's page."""
    return hook + str(inspect.signature(getattr(specs, hook))).replace("'", "")


def example(hook: str) -> str:
    """Return the example on the page about a hook."""
    (source,) = [block.text for block in pages.blocks(page(hook)) if block.language == "python" and not block.mark]
    return source


def files(hook: str) -> dict[str, str]:
    """Return the files beside the example's module, by path."""
    marked = [block for block in pages.blocks(page(hook)) if block.mark.startswith("file: ")]
    return {block.mark.removeprefix("file: "): block.text for block in marked}


def test_every_hook_has_a_page_and_every_page_a_hook() -> None:
    assert sorted(path.stem for path in (DOCS / "reference" / "hooks").glob("ctms_*")) == sorted(specs.HOOKS)
    assert set(REGISTRATIONS) == set(specs.HOOKS)


@pytest.mark.parametrize("hook", specs.HOOKS)
def test_a_page_is_headed_by_the_signature_and_has_its_sections(hook: str) -> None:
    written = page(hook).read_text()

    assert written.splitlines()[0] == f"# `{signature(hook)}`"
    found = re.findall(r"^## (.+)$", written, re.MULTILINE)
    assert [section for section in found if section not in RECEIVERS] == SECTIONS
    receives = hook in {"ctms_backends", "ctms_deletion_handlers"}
    assert [section for section in found if section in RECEIVERS] == (RECEIVERS if receives else [])
    assert inspect.getdoc(getattr(specs, hook))


@pytest.mark.parametrize("hook", [hook for hook in specs.HOOKS if dataclasses.is_dataclass(REGISTRATIONS[hook])])
def test_a_page_names_every_field_of_the_registration(hook: str) -> None:
    yields = page(hook).read_text().split("## Yields")[1].split("\n## ")[0]
    parts = [field.name for field in dataclasses.fields(REGISTRATIONS[hook]) if field.init]

    assert [part for part in parts if f"`{part}`" not in yields] == []


@pytest.mark.parametrize("hook", ["ctms_backends", "ctms_deletion_handlers"])
def test_a_page_about_receivers_has_every_outcome(hook: str) -> None:
    outcomes = page(hook).read_text().split("## Outcomes")[1].split("\n## ")[0]
    wanted = {kind.__name__ for kind in get_args(Outcome)} - ({"Accepted"} if hook == "ctms_backends" else set())

    named = re.findall(r"^\| (.+?) \|", outcomes, re.MULTILINE)
    assert {found for cell in named for found in re.findall(r"`(\w+)\(", cell)} == wanted


@pytest.mark.parametrize("hook", specs.HOOKS)
def test_an_example_enters_by_the_front_door(hook: str) -> None:
    imported = [node.module for node in ast.walk(ast.parse(example(hook))) if isinstance(node, ast.ImportFrom)]

    assert [module for module in imported if module and module.startswith("ctms")] == ["ctms.plugins"]


def waitlists(api: ApiClient) -> None:
    """The rules refuse, normalise and store."""

    def post(**fields: object) -> Answer:
        return api.post("/ctms", contact_body(waitlists=[{"name": "hub", "fields": fields}]))

    assert_error(post(seats=3), 422, at=[["body", "waitlists", 0, "fields", "referrer"]])
    assert_error(post(referrer="x", seats=501), 422, at=[["body", "waitlists", 0, "fields", "seats"]])
    assert_error(post(referrer="x", seats=101), 422, at=[["body", "waitlists", 0, "fields", "seats"]])
    made = post(referrer="Sales", seats=101)
    assert made.status_code == 201
    assert made.json["waitlists"][0]["fields"] == {"referrer": "sales", "seats": 101}


def newsletters(api: ApiClient) -> None:
    """The newsletters are listed with what the example knows about them."""
    found = {one["slug"]: one for one in api.get("/newsletters").json if one["plugin"] == "newsletters"}

    assert {slug: one["active"] for slug, one in found.items()} == {"weekly": True, "hub-news": False}
    assert found["weekly"]["languages"] == ["en", "de"]
    assert found["weekly"]["requires_double_opt_in"] is True
    assert found["weekly"]["vendor_ids"] == {"braze": "7f3c1d"}


def backends(api: ApiClient) -> None:
    """The backend accepts what the service sends."""
    made = api.post("/ctms", contact_body()).json
    many = api.post("/ctms", contact_body(newsletters=[{"name": f"n{number}"} for number in range(51)])).json
    (one,) = [one for one in app_plugins().collect("ctms_backends") if one.plugin.name == "backends"]
    mailing = one.value.implementation
    states = [ContactState(document["email"]["email_id"], document) for document in (made, many)]

    answer = mailing.push([*states, ContactState("unknown", None)], "a key")

    assert [answer[state.email_id] for state in states] == [None, Refused("more than 50 newsletters")]
    assert mailing.fetch([state.email_id for state in states]) == {states[0].email_id: made}
    assert mailing.push([ContactState(states[0].email_id, None)], "another") == {states[0].email_id: None}
    assert mailing.known == {}
    assert one.value.max_batch == 500
    assert mailing.settings.url == "https://mail.example.com/"


def deletion_handlers(api: ApiClient) -> None:
    """The handler accepts what the service sends, even twice."""
    made = api.post("/ctms", contact_body(email={"primary_email": "jane@example.com"})).json
    identities = api.get(f"/identity/{made['email']['email_id']}").json
    (one,) = [one for one in app_plugins().collect("ctms_deletion_handlers") if one.plugin.name == "deletion_handlers"]

    one.value.implementation.erase([identities])
    one.value.implementation.erase([identities])

    assert one.value.implementation.known == {"joe@example.com"}


def blueprints(api: ApiClient) -> None:
    """The route works for authorized callers, and is documented."""
    api.post("/ctms", contact_body(newsletters=[{"name": "weekly"}]))

    assert api.get("/counts/weekly").json == {"subscribed": 1}
    assert_error(ApiClient(current_app.test_client(), None).get("/counts/weekly"), 401, "Not authenticated")
    assert "/counts/{name}" in api.get("/openapi.json").json["paths"]


def commands(_: ApiClient) -> None:
    """The command is there and fails as ours do."""
    runner = current_app.test_cli_runner()

    assert run(runner, "greet", "Jane").stdout == "Hello, Jane. Contacts with your name: 0.\n"
    assert run(runner, "greet", "4", status=1).stderr == "Error: a name may only contain letters\n"
    assert "Greet NAME" in run(runner, "--help").stdout


def health_checks(api: ApiClient) -> None:
    """The check is part of the heartbeat."""
    assert api.get("/__heartbeat__").json["checks"]["disk"] == "ok"


def migrations(api: ApiClient) -> None:
    """The table is there, in the schema of the plugin, and forgets with the contact."""
    made = api.post("/ctms", contact_body()).json["email"]
    db.session.execute(text("INSERT INTO plugin_migrations.stamps VALUES (:id, 3)"), {"id": made["email_id"]})
    db.session.commit()

    assert api.delete(f"/ctms/{made['primary_email']}").status_code == 200
    assert db.session.scalar(text("SELECT count(*) FROM plugin_migrations.stamps")) == 0


def permissions(api: ApiClient) -> None:
    """The permission is stored, and the route asks for it."""
    listed = run(current_app.test_cli_runner(), "permissions", "list").stdout
    assert re.search(r"^stamps:read +Read stamps +admin +\w+$", listed, re.MULTILINE)

    assert api.get("/stamps").json == []
    viewer = ApiClient(current_app.test_client(), tokens().issue(create_client("id_viewer", roles=["viewer"])))
    assert_error(viewer.get("/stamps"), 403, "Permission(s) required: stamps:read")


USES: dict[str, Callable[[ApiClient], None]] = {
    "ctms_waitlists": waitlists,
    "ctms_newsletters": newsletters,
    "ctms_backends": backends,
    "ctms_deletion_handlers": deletion_handlers,
    "ctms_blueprints": blueprints,
    "ctms_commands": commands,
    "ctms_health_checks": health_checks,
    "ctms_migrations": migrations,
    "ctms_permissions": permissions,
}


@pytest.fixture(scope="module")
def own_apps(postgres: str, worker_id: str, settings: Settings) -> Iterator[Apps]:
    """Apps on a database of their own, where tables and permissions of the examples may stay."""
    made = Apps(replace(settings, db_url=empty_database(postgres, f"hooks_{worker_id}")))
    yield made
    made.release()


@pytest.mark.parametrize("hook", specs.HOOKS)
def test_the_example_works(hook: str, site: Site, own_apps: Apps) -> None:
    name = hook.removeprefix("ctms_")
    site.install(f"example-{name}", {f"example_{name}": example(hook)}, **{name: f"example_{name}"})

    for path, revision in files(hook).items():
        file = site.folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(revision)

    with rolled_back(own_apps.get([*bundled(), installed(name)])) as app:
        found = app_plugins().get(name)
        assert found is not None
        assert hook in found.hooks
        USES[hook](ApiClient(app.test_client(), tokens().issue(create_client("id_example", roles=["admin"]))))


def installed(name: str) -> EntryPoint:
    """Return the installed plugin of that name."""
    (point,) = entry_points(group=GROUP, name=name)
    return point


def test_the_how_to_guide_works(tmp_path: Path) -> None:
    environment = activated(environment_for(tmp_path / "data"))

    pages.run(DOCS / "how-to" / "plugins.md", environment, tmp_path)
