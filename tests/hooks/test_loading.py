"""Plugins of real packages are found, loaded in order, configured, traced, and belong to one app."""

from __future__ import annotations

import json
import logging
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from flask import Flask

from ctms.app import create_app
from ctms.clients.tokens import tokens
from ctms.contacts.waitlist_rules import waitlist_registry
from ctms.errors import PluginError
from ctms.hooks import trials
from ctms.hooks.manager import GROUP, Plugins, load_plugins, survey_plugins
from ctms.settings import Settings
from ctms.telemetry.logs import init_logs
from ctms.testing.apps import Apps, rolled_back
from ctms.testing.clients import create_client
from ctms.testing.contacts import contact_body
from ctms.testing.http import ApiClient, assert_error
from tests.hooks.distributions import Site
from tests.hooks.refused import HUB, START

WITH_SETTINGS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Settings:
    name: str = setting("NAME", "The waitlist.", default="quay")
    limits: list[int] = setting("LIMITS", "How many.", default=list, read="list")

@hookimpl
def ctms_waitlists(settings):
    yield Waitlist(name=settings.name, title="Quay", check=dict)
"""


def named(*names: str) -> list[EntryPoint]:
    """Return the installed plugins of these names."""
    return [point for name in names for point in entry_points(group=GROUP, name=name)]


def registered(plugins: Plugins) -> list[str]:
    """Return the waitlists that plugins declare, in the order of the calls."""
    return [one.value.name for one in plugins.collect("ctms_waitlists")]


def test_plugins_are_loaded_in_the_order_of_their_names(site: Site) -> None:
    for name in ("zeta", "alpha", "mid_1"):
        site.install(f"ctms-{name}", {name: START + HUB.replace('"hub"', f'"{name}"')})

    plugins = load_plugins(Settings())

    names = [plugin.name for plugin in plugins]
    assert names == sorted(names)
    assert {"alpha", "zeta", "relay", "vpn", "default_waitlist"} <= set(names)
    assert [name for name in registered(plugins) if name in {"zeta", "alpha", "mid_1"}] == ["alpha", "mid_1", "zeta"]
    found = plugins.get("alpha")
    assert found is not None
    assert (found.package, found.version, found.hooks) == ("ctms-alpha", "1.2.3", ("ctms_waitlists",))


@pytest.mark.parametrize("step", [1, -1])
def test_plugins_of_one_name_are_listed_in_the_order_of_their_packages(site: Site, step: int) -> None:
    """In whichever order Python finds them: that is the file system's."""
    for package in ("ctms-bolt", "ctms-acme", "ctms-core"):
        module = package.replace("-", "_")
        site.install(package, {module: START + HUB}, acme=module)
    found = sorted(named("acme"), key=lambda point: point.value)[::step]

    plugins = survey_plugins(Settings(), found)

    assert [plugin.package for plugin in plugins] == ["ctms-acme", "ctms-bolt", "ctms-core"]
    for problem in plugins.problems:
        assert "comes with ctms-acme 1.2.3 and ctms-bolt 1.2.3 and ctms-core 1.2.3" in str(problem)


def test_only_some_are_loaded(site: Site) -> None:
    site.install("ctms-acme", {"acme": START + HUB})
    site.install("ctms-bolt", {"bolt": "raise ValueError"})

    plugins = load_plugins(Settings(plugins=("acme", "vpn"), plugins_disabled=("vpn",)))

    assert registered(plugins) == ["hub"]
    assert {plugin.name: plugin.disabled_reason for plugin in plugins if plugin.name in {"acme", "bolt", "vpn"}} == {
        "acme": None,
        "bolt": "CTMS_PLUGINS does not name it",
        "vpn": "CTMS_PLUGINS_DISABLED names it",
    }


def test_settings_are_read_for_each_app(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    site.install("ctms-quay", {"quay": START + WITH_SETTINGS})
    (tmp_path / "name").write_text("from-file\n")

    first = load_plugins(Settings(), named("quay"))
    monkeypatch.setenv("CTMS_PLUGIN_QUAY_NAME_FILE", str(tmp_path / "name"))
    monkeypatch.setenv("CTMS_PLUGIN_QUAY_LIMITS", "1,2")
    second = load_plugins(Settings(), named("quay"))

    assert (registered(first), registered(second)) == (["quay"], ["from-file"])
    (plugin,) = second
    assert plugin.settings.limits == [1, 2]
    assert [how.variable for _, how, _ in plugin.declared_settings()] == [
        "CTMS_PLUGIN_QUAY_NAME",
        "CTMS_PLUGIN_QUAY_LIMITS",
    ]


def test_a_plugin_class_is_instantiated_for_each_app(site: Site) -> None:
    source = """
class Acme:
    def __init__(self):
        self.asked = 0

    @hookimpl
    def ctms_waitlists(self):
        self.asked += 1
        yield Waitlist(name=f"asked-{self.asked}", title="Hub", check=dict)
"""
    site.install("ctms-acme", {"acme": START + source}, acme="acme:Acme")

    assert [registered(load_plugins(Settings(), named("acme"))) for _ in range(2)] == [["asked-1"], ["asked-1"]]


def test_a_hook_of_another_version_may_be_optional(site: Site) -> None:
    source = HUB + "\n@hookimpl(optionalhook=True)\ndef ctms_later():\n    yield 1\n"
    site.install("ctms-acme", {"acme": START + source})

    assert registered(load_plugins(Settings(), named("acme"))) == ["hub"]


def test_two_apps_of_one_process_do_not_share_plugins(site: Site, settings: Settings) -> None:
    site.install("ctms-acme", {"acme": START + HUB})
    apps = [create_app(settings, named("acme")), create_app(settings, named("vpn"))]

    for app, name in zip([*apps, *apps], ["hub", "vpn"] * 2, strict=True):
        with app.app_context():
            assert [one.value.name for one in waitlist_registry().declared] == [name]
    assert _waitlists_of(apps[0]) == ["hub"]
    assert _waitlists_of(apps[1]) == ["vpn"]


def _waitlists_of(app: Flask) -> list[str]:
    return [one.value.name for one in app.extensions["ctms.plugins"].collect("ctms_waitlists")]


START_ROUTE = """
class Failing(Blueprint):
    def register(self, *_):
        fail()

@hookimpl
def ctms_blueprints():
    yield Failing("Hub", __name__)
"""
TRACED = ("hook ctms_waitlists of plugin acme is called", "hook ctms_waitlists of plugin acme registers 'hub'")


def test_a_trace_in_text(site: Site, settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    site.install("ctms-acme", {"acme": START + HUB})

    create_app(_traced(settings, mozlog=False), named("acme"))

    lines = [line.partition("INFO ctms.hooks.checks: ")[2] for line in capfd.readouterr().err.splitlines()]
    assert tuple(lines) == TRACED


def test_a_trace_in_mozlog(site: Site, settings: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    site.install("ctms-acme", {"acme": START + HUB})

    try:
        create_app(_traced(settings, mozlog=True), named("acme"))
    finally:
        init_logs(settings)

    fields = [json.loads(line)["Fields"] for line in capfd.readouterr().err.splitlines()]
    assert tuple(one["msg"] for one in fields) == TRACED
    assert {(one["hook"], one["plugin"]) for one in fields} == {("ctms_waitlists", "acme")}


def test_a_trace_of_a_failure(site: Site, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    site.install("ctms-acme", {"acme": START + HUB.replace("yield", "1 / 0; yield")})

    with caplog.at_level(logging.INFO, "ctms"), pytest.raises(Exception, match="division by zero"):
        load_plugins(_traced(settings, mozlog=False), named("acme"))

    assert caplog.messages[0] == TRACED[0]
    assert "hook ctms_waitlists of plugin acme failed, plugin 'acme' of ctms-acme 1.2.3: " in caplog.messages[1]


@pytest.mark.parametrize("mozlog", [True, False])
@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (HUB.replace("yield", "fail(); yield"), "fail(); yield"),
        ("fail()", "fail()"),
        (START_ROUTE, "fail()"),
    ],
    ids=["hook", "import", "blueprint"],
)
def test_a_trace_shows_the_traceback_without_messages(  # noqa: PLR0917  it takes a whole case
    fault: str, line: str, mozlog: bool, site: Site, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    site.install("ctms-acme", {"acme": f'{START}def fail(*_):\n    raise LookupError("hun" + "ter2")\n{fault}'})

    try:
        with pytest.raises(PluginError, match="LookupError: hunter2") as raised:
            create_app(_traced(settings, mozlog=mozlog), named("acme"))
    finally:
        init_logs(settings)

    logged = capfd.readouterr().err.partition("plugin acme cannot be used")[2]
    assert line in logged
    assert "LookupError" in logged
    assert "hunter2" not in logged
    assert f", in {site.folder}/acme.py, line 4" in raised.value.message


def test_without_a_trace_nothing_is_logged(site: Site, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    site.install("ctms-acme", {"acme": START + HUB})

    with caplog.at_level(logging.DEBUG, "ctms"):
        load_plugins(settings, named("acme"))

    assert caplog.messages == []


def _traced(settings: Settings, *, mozlog: bool) -> Settings:
    return Settings(db_url=settings.db_url, secret_key=settings.secret_key, use_mozlog=mozlog, plugins_trace=True)


FAULTY = """
def raising(fields):
    raise LookupError(fields)

@hookimpl
def ctms_waitlists():
    yield Waitlist(name="raising", title="Raises", check=raising)
    yield Waitlist(name="nothing", title="Returns nothing", check=lambda fields: None)
    # What no trial at the start finds.
    yield Waitlist(name="exits", title="Ends the process", check=lambda fields: fields and exit(3))
    yield Waitlist(name="no-json", title="Returns no JSON", check=lambda fields: fields and {"at": object()})
    yield Waitlist(name="not-a-number", title="Returns no JSON", check=lambda fields: fields and {"at": float("nan")})
"""


@pytest.mark.parametrize("name", ["raising", "nothing", "exits", "no-json", "not-a-number"])
def test_faulty_rules_cost_their_own_request_only(
    name: str, site: Site, apps: Apps, caplog: pytest.LogCaptureFixture
) -> None:
    site.install("ctms-faulty", {"faulty": START + FAULTY})

    with rolled_back(apps.get(named("faulty", "relay", "default_waitlist"))) as app:
        api = ApiClient(app.test_client(), tokens().issue(create_client("id_faulty", roles=["admin"])))
        kept = api.post("/ctms", contact_body(waitlists=[{"name": "relay", "fields": {"geo": "de"}}])).json
        caplog.clear()
        body = contact_body(waitlists=[{"name": "relay"}, {"name": name, "fields": {"secret": "of a person"}}])

        assert_error(api.post("/ctms", body), 500, "Internal Server Error")
        (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]  # once, with whose it is
        assert_error(api.patch(f"/ctms/{kept['email']['email_id']}", {"waitlists": body["waitlists"]}), 500)

        assert record.name == "ctms.contacts.waitlist_rules"
        assert record.getMessage() == "waitlist rules of plugin faulty failed"
        assert record.__dict__["plugin"] == "faulty"
        assert api.get(f"/ctms?primary_email={body['email']['primary_email']}").json == []
        unchanged = api.get(f"/ctms/{kept['email']['email_id']}").json
        assert unchanged["waitlists"] == kept["waitlists"]
        other = api.post("/ctms", contact_body(waitlists=[{"name": "relay"}, {"name": "any", "fields": {"a": 1}}]))
        assert other.status_code == 201


@pytest.mark.parametrize("where", ["check", "schema"])
def test_rules_that_hang_do_not_keep_the_start_waiting(where: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("ctms-slow", {"slow": START + SLOW})
    monkeypatch.setenv("CTMS_PLUGIN_SLOW_WHERE", where)
    monkeypatch.setattr(trials, "MAX_SECONDS", 0.2)

    with pytest.raises(PluginError) as error:
        load_plugins(Settings(), named("slow"))

    assert "the rules of the waitlist 'slow' were tried and failed with TimeoutError: no answer within 0.2 seconds" in (
        error.value.message
    )


SLOW = """
import time
from dataclasses import dataclass
import marshmallow as ma

@dataclass
class Settings:
    where: str = setting("WHERE", "What hangs.")

class Hanging(ma.fields.Field):
    def _deserialize(self, *_, **__):
        time.sleep(5)

class Fields(ma.Schema):
    field = Hanging()

@hookimpl
def ctms_waitlists(settings):
    if settings.where == "schema":
        yield Waitlist(name="slow", title="Slow", schema=Fields)
    else:
        yield Waitlist(name="slow", title="Slow", check=lambda fields: time.sleep(5))
"""


EXACT = """
@hookimpl
def ctms_waitlists():
    for name in ("*", "hub-*", "hub-a*", "hub-all"):
        yield Waitlist(name=name, title=name, check=lambda fields, name=name: {"by": name})
"""


def test_the_most_exact_name_decides(site: Site, apps: Apps) -> None:
    site.install("ctms-exact", {"exact": START + EXACT})
    decides = {"hub-all": "hub-all", "hub-alley": "hub-a*", "hub-b": "hub-*", "hub": "*", "hub-": "hub-*", "HUB-b": "*"}

    with rolled_back(apps.get(named("exact"))) as app:
        api = ApiClient(app.test_client(), tokens().issue(create_client("id_exact", roles=["admin"])))
        made = api.post("/ctms", contact_body(waitlists=[{"name": name} for name in decides])).json

    assert {one["name"]: one["fields"]["by"] for one in made["waitlists"]} == decides


def test_without_rules_any_fields_are_stored_as_they_are(apps: Apps) -> None:
    fields = {"geo": 5, "platform": {"deep": [None]}}

    with rolled_back(apps.get(named("relay", "vpn"))) as app:
        api = ApiClient(app.test_client(), tokens().issue(create_client("id_bare", roles=["admin"])))
        made = api.post("/ctms", contact_body(waitlists=[{"name": "other", "fields": fields}])).json

    assert made["waitlists"][0]["fields"] == fields


DATED = """
import marshmallow as ma

class Fields(ma.Schema):
    since = ma.fields.Date(data_key="member-since")
    seats = ma.fields.Integer(load_default=1)

@hookimpl
def ctms_waitlists():
    yield Waitlist(name="dated", title="Dated", schema=Fields, unknown="accept")
"""


def test_loaded_fields_are_stored_as_json(site: Site, apps: Apps) -> None:
    site.install("ctms-dated", {"dated": START + DATED})
    fields = {"member-since": "2024-02-29", "seats": "7", "more": [1]}

    with rolled_back(apps.get(named("dated"))) as app:
        api = ApiClient(app.test_client(), tokens().issue(create_client("id_dated", roles=["admin"])))
        made = api.post("/ctms", contact_body(waitlists=[{"name": "dated", "fields": fields}])).json

    assert made["waitlists"][0]["fields"] == {"member-since": "2024-02-29", "seats": 7, "more": [1]}
