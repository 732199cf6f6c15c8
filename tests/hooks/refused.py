"""Packages with which the service does not start, and its messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import dedent

START = "from ctms.plugins import *\nimport click\n"
HUB = """
@hookimpl
def ctms_waitlists():
    yield Waitlist(name="hub", title="Hub", check=dict)
"""
ROUTE = """
blueprint = Blueprint({name!r}, __name__)

@blueprint.route({path!r})
{guard}
def view():
    \"\"\"Answer.\"\"\"

@hookimpl
def ctms_blueprints():
    yield blueprint
"""
GUARD = '@blueprint.guard("view_contacts")'
SETTINGS = (
    """
import dataclasses

{decorator}
class Settings:
    {field}
"""
    + HUB
)


SCHEMA = """
import marshmallow as ma

class Fields(ma.Schema):
    {body}

@hookimpl
def ctms_waitlists():
    yield Waitlist(name="hub", title="Hub", schema=Fields)
"""


@dataclass(frozen=True)
class Case:
    """One or two plugins `acme` and `bolt`, each of its own package, and the one-line message.

    `says` are its parts besides the titles of the plugins; `heading` is its row in the how-to guide.
    """

    name: str
    says: tuple[str, ...]
    acme: str
    bolt: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    has_place: bool = True
    """Whether the fault has a place in the plugin's code."""
    needs_app: bool = False
    """Whether it is detected only when an app is created, not when plugins are loaded."""

    @property
    def sources(self) -> dict[str, str]:
        """The modules, by the names of the plugins."""
        both = {"acme": self.acme, "bolt": self.bolt}
        return {name: START + dedent(source) for name, source in both.items() if source is not None}


def implements(hook: str, body: str) -> str:
    """Return a plugin whose implementation of `hook` is `body`."""
    return f"@hookimpl\ndef {hook}():\n    {body}\n"


OFF = "set CTMS_PLUGINS_DISABLED=acme"
YIELD = "yield Waitlist objects, or return a list of them"

CASES = (
    Case("import fails", ("cannot be imported (ModuleNotFoundError: No module named 'absent')", OFF), "import absent"),
    Case("no Python", ("cannot be imported (SyntaxError", OFF), "def ("),
    Case("ends the process", ("cannot be imported (SystemExit: 3)", OFF), "import sys\nsys.exit(3)"),
    Case("message of two lines", ("cannot be imported (ValueError: one two)",), 'raise ValueError("one\\n\\n    two")'),
    Case(
        "misspelt hook",
        ("there is no hook ctms_waitlist", "did you mean ctms_waitlists?"),
        HUB.replace("lists", "list"),
    ),
    Case("unknown hook", ("there is no hook xyz", "the hooks are ctms_waitlists, "), implements("xyz", "return []")),
    Case(
        "unmarked hook",
        ("ctms_waitlists is not marked as a hook", "mark it with @ctms.plugins.hookimpl"),
        HUB.replace("@hookimpl", ""),
    ),
    Case(
        "no hook",
        ("it implements no hook", "mark its functions with @ctms.plugins.hookimpl"),
        "x = 1",
        has_place=False,
    ),
    Case(
        "wrong argument",
        (
            "Argument(s) {'config'} are declared in the hookimpl but can not be found in the hookspec",
            "ctms_waitlists(config)",
            "every hook takes the one argument settings, or none",
        ),
        HUB.replace("()", "(config)"),
    ),
    Case(
        "default value",
        ("ctms_waitlists has a default value for settings", "remove the default value"),
        HUB.replace("()", "(settings=None)"),
    ),
    Case(
        "wrapper",
        ("ctms_waitlists is a wrapper, and hooks are not wrapped", "plain @hookimpl"),
        "@hookimpl(wrapper=True)\ndef ctms_waitlists():\n    return (yield)\n",
    ),
    Case("returns None", ("ctms_waitlists returned None", YIELD), implements("ctms_waitlists", "pass")),
    Case("returns text", ("ctms_waitlists returned one str", YIELD), implements("ctms_waitlists", 'return "hub"')),
    Case(
        "returns one registration",
        ("ctms_waitlists returned one Waitlist", YIELD),
        implements("ctms_waitlists", 'return Waitlist(name="hub", title="Hub", check=dict)'),
    ),
    Case("yields text", ("ctms_waitlists yielded one str", YIELD), implements("ctms_waitlists", 'yield "hub"')),
    Case(
        "yields another's registration",
        ("ctms_backends yielded one HealthCheck", "yield Backend objects"),
        implements("ctms_backends", 'yield HealthCheck(name="hub", check=str)'),
    ),
    Case(
        "raises",
        ("ctms_health_checks failed with ZeroDivisionError: division by zero", OFF),
        implements("ctms_health_checks", "yield 1 / 0"),
    ),
    Case(
        "bad registration",
        ("ctms_waitlists failed with RegistrationError: the waitlist 'hub' has no rules: give a schema or a check",),
        implements("ctms_waitlists", 'yield Waitlist(name="hub", title="Hub")'),
    ),
    Case(
        "schema that contradicts the waitlist",
        (
            "ctms_waitlists failed with RegistrationError: schema of the waitlist 'hub' has unknown=INCLUDE",
            "and the waitlist has unknown='refuse'",
            "set unknown='accept', or remove it from the schema",
        ),
        SCHEMA.format(body="class Meta:\n        unknown = ma.INCLUDE"),
    ),
    Case(
        "field that makes no JSON",
        (
            "ctms_waitlists yields the waitlist 'hub': the field price makes a Decimal, which JSON does not have",
            "store text or a number instead",
        ),
        SCHEMA.format(body="price = ma.fields.Decimal()"),
    ),
    Case(
        "rules that end the process",
        ("the rules of the waitlist 'hub' were tried and failed with SystemExit: 3", OFF),
        "import sys\n" + HUB.replace("check=dict", "check=lambda fields: sys.exit(3)"),
    ),
    Case(
        "command without a name",
        ("ctms_commands yielded one Command without a name", "name it"),
        implements("ctms_commands", "yield click.Command(None)"),
    ),
    Case(
        "settings of another kind",
        ("its Settings are not a dataclass", "make Settings a dataclass"),
        SETTINGS.format(decorator="", field="limit = 3"),
    ),
    Case(
        "field of another kind",
        ("the field limit of its Settings is not created by setting()", "ctms.plugins.setting()"),
        SETTINGS.format(decorator="@dataclasses.dataclass", field="limit: int = 3"),
    ),
    Case(
        "field of a type that cannot be read",
        (
            "the field limits of its Settings cannot be read: no variable can hold a value of the type dict",
            "give it a type that the reference of ctms.plugins lists, or a convert",
        ),
        SETTINGS.format(
            decorator="@dataclasses.dataclass", field='limits: dict = setting("LIMITS", "How many.", default=dict)'
        ),
    ),
    Case(
        "setting that is missing",
        (
            "CTMS_PLUGIN_ACME_KEY is missing (CTMS_PLUGIN_ACME_KYE is set: did you mean CTMS_PLUGIN_ACME_KEY?)",
            "correct it, or set CTMS_PLUGINS_DISABLED=acme",
        ),
        SETTINGS.format(decorator="@dataclasses.dataclass", field='key: str = setting("KEY", "The key.", secret=True)'),
        environment={"CTMS_PLUGIN_ACME_KYE": "hunter2"},
        has_place=False,
    ),
    Case(
        "misspelt setting",
        ("there is no setting CTMS_PLUGIN_ACME_LIMT", "did you mean CTMS_PLUGIN_ACME_LIMIT?"),
        SETTINGS.format(
            decorator="@dataclasses.dataclass", field='limit: int = setting("LIMIT", "How many.", default=3)'
        ),
        environment={"CTMS_PLUGIN_ACME_LIMT": "4"},
        has_place=False,
    ),
    Case(
        "setting of a plugin that has none",
        ("there is no setting CTMS_PLUGIN_ACME_LIMIT", "unset it, it has no settings"),
        HUB,
        environment={"CTMS_PLUGIN_ACME_LIMIT": "4"},
        has_place=False,
    ),
    Case(
        "value that cannot be used",
        ("CTMS_PLUGIN_ACME_LIMIT must be a whole number", "correct it, or set CTMS_PLUGINS_DISABLED=acme"),
        SETTINGS.format(
            decorator="@dataclasses.dataclass",
            field='limit: int = setting("LIMIT", "How many.", default=3)',
        ),
        environment={"CTMS_PLUGIN_ACME_LIMIT": "many"},
        has_place=False,
    ),
    Case(
        "settings that fail",
        ("its Settings failed with LookupError: no", OFF),
        SETTINGS.format(
            decorator="@dataclasses.dataclass", field='def __post_init__(self):\n        raise LookupError("no")'
        ),
    ),
    Case(
        "waitlist registered twice",
        ("ctms_waitlists registers 'hub' twice", "remove or rename one"),
        HUB.rstrip() + '\n    yield Waitlist(name="hub", title="Hub", check=dict)',
        has_place=False,
    ),
    Case(
        "waitlist of two",
        ("both register 'hub' with ctms_waitlists", "rename one, or set CTMS_PLUGINS_DISABLED=bolt"),
        HUB,
        HUB,
        has_place=False,
    ),
    Case(
        "newsletter of two",
        ("both register 'weekly' with ctms_newsletters", "rename one, or set CTMS_PLUGINS_DISABLED=bolt"),
        implements("ctms_newsletters", 'yield Newsletter(slug="weekly", title="Weekly")'),
        implements("ctms_newsletters", 'yield Newsletter(slug="weekly", title="Weekly")'),
        has_place=False,
    ),
    Case(
        "newsletter with an invalid language",
        (
            "ctms_newsletters failed with RegistrationError: the newsletter 'weekly' has invalid languages",
            "change that",
        ),
        implements("ctms_newsletters", 'yield Newsletter(slug="weekly", title="Weekly", languages=["english"])'),
    ),
    Case(
        "command of two",
        ("both register 'count' with ctms_commands", "rename one"),
        implements("ctms_commands", 'yield click.Command("count")'),
        implements("ctms_commands", 'yield click.Command("count")'),
        has_place=False,
    ),
    Case(
        "health check of two",
        ("both register 'hub' with ctms_health_checks", "rename one"),
        implements("ctms_health_checks", 'yield HealthCheck(name="hub", check=str)'),
        implements("ctms_health_checks", 'yield HealthCheck(name="hub", check=str)'),
        has_place=False,
    ),
    Case(
        "blueprint of two",
        ("both register 'Hub' with ctms_blueprints", "rename one"),
        ROUTE.format(name="Hub", path="/hub", guard=GUARD),
        ROUTE.format(name="Hub", path="/other", guard=GUARD),
        has_place=False,
    ),
    Case(
        "name not enabled",
        ("CTMS_PLUGINS names nobody, which no installed package brings", "install it or remove the name"),
        HUB,
        environment={"CTMS_PLUGINS": "acme,nobody"},
        has_place=False,
    ),
    Case(
        "name not disabled",
        ("CTMS_PLUGINS_DISABLED names nobody, which no installed package brings", "install it or remove the name"),
        HUB,
        environment={"CTMS_PLUGINS_DISABLED": "nobody"},
        has_place=False,
    ),
    Case(
        "path of the service",
        (
            "ctms_blueprints yields the blueprint 'Hub' with the path /ctms/{other}, which the service has",
            "choose another",
        ),
        ROUTE.format(name="Hub", path="/ctms/<string:other>", guard=GUARD),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "path of two",
        (
            "yields the blueprint 'Other' with the path /hub, which plugin 'acme' of ctms-acme 1.2.3 has",
            "choose another",
        ),
        ROUTE.format(name="Hub", path="/hub", guard=GUARD),
        ROUTE.format(name="Other", path="/hub", guard=GUARD),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "route without a guard",
        (
            "ctms_blueprints yields the blueprint 'Hub' with GET /hub, which nothing guards",
            "@blueprint.guard(permission)",
        ),
        ROUTE.format(name="Hub", path="/hub", guard=""),
        needs_app=True,
    ),
    Case(
        "blueprint of the service",
        ("ctms_blueprints yields the blueprint 'Contacts', a name that the service has", "rename it"),
        ROUTE.format(name="Contacts", path="/hub", guard=GUARD),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "blueprint that cannot be registered",
        ("ctms_blueprints yields the blueprint 'Hub', which cannot be registered (", OFF),
        ROUTE.format(name="Hub", path="hub", guard=GUARD),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "health check of the service",
        ("ctms_health_checks yields 'database', a check that the service has", "rename it"),
        implements("ctms_health_checks", 'yield HealthCheck(name="database", check=str)'),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "command of the service",
        ("ctms_commands yields 'serve', a command that the service has", "rename it"),
        implements("ctms_commands", 'yield click.Command("serve")'),
        needs_app=True,
        has_place=False,
    ),
)
