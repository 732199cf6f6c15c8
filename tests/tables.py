"""A plugin with a table, permissions, routes, a command, a health check and a deletion handler, as a package."""

from __future__ import annotations

from pathlib import Path

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "acme-{name}"
version = "1.2.3"

[project.entry-points.ctms]
{name} = "acme_{name}"

[tool.hatch.build.targets.wheel]
packages = ["acme_{name}"]
"""

PLUGIN = '''\
import json
from pathlib import Path

import click
from flask import Response

from ctms.plugins import (
    Blueprint, DeletionHandler, HealthCheck, Migrations, Permission, ScalarQuery, connection, fetch_scalar, hookimpl,
    reading, writing,
)

blueprint = Blueprint("{title}", __name__, url_prefix="/{name}")


@blueprint.route("/stamps")
@blueprint.guard("{name}:read")
@blueprint.response(200)
def stamps():
    """Count the stamps."""
    found = fetch_scalar(ScalarQuery("SELECT count(*) FROM plugin_{name}.stamps", []))
    return Response(json.dumps(found), content_type="application/json")


@blueprint.route("/stamps", methods=["POST"])
@blueprint.guard("{name}:write")
@blueprint.response(204)
def add():
    """Add a stamp."""
    connection().execute("INSERT INTO plugin_{name}.stamps (text) VALUES ('of a route')")
    return Response(status=204)


@click.command("{name}")
@click.argument("text", required=False)
def command(text):
    """Add a stamp, or count them."""
    if text:
        with writing() as acquired:
            acquired.execute("INSERT INTO plugin_{name}.stamps (text) VALUES (%s)", [text])
            if text == "fails":
                raise LookupError(text)
    with reading() as acquired:
        click.echo(acquired.execute("SELECT count(*) FROM plugin_{name}.stamps").fetchone()[0])


def enough():
    with reading() as acquired:
        found = acquired.execute("SELECT count(*) FROM plugin_{name}.stamps").fetchone()[0]
    return None if found else "no stamps"


class Handler:
    def erase(self, identities):
        with writing() as acquired:
            for one in identities:
                acquired.execute("DELETE FROM plugin_{name}.stamps WHERE text = %s", [one["primary_email"]])


@hookimpl
def ctms_blueprints():
    yield blueprint


@hookimpl
def ctms_commands():
    yield command


@hookimpl
def ctms_health_checks():
    yield HealthCheck(name="{name}", check=enough)


@hookimpl
def ctms_deletion_handlers():
    yield DeletionHandler(name="{name}", implementation=Handler())


@hookimpl
def ctms_permissions():
    yield Permission(name="{name}:read", description="Read stamps")
    yield Permission(name="{name}:write", description="Add stamps")


@hookimpl
def ctms_migrations():
    yield Migrations(folder=Path(__file__).parent / "migrations")
'''

REVISION = '''\
"""{about}"""

from alembic import op

revision = {revision!r}
down_revision = {down!r}


def upgrade():
    {upgrade}


def downgrade():
    {downgrade}
'''


def revision(number: str, down: str | None, upgrade: str, downgrade: str = "pass", about: str = "A revision") -> str:
    """Return the text of a file with a revision."""
    return REVISION.format(revision=number, down=down, upgrade=upgrade, downgrade=downgrade, about=about)


FIRST = revision(
    "0001",
    None,
    'op.execute("CREATE TABLE stamps (id serial PRIMARY KEY, text text)")',
    'op.execute("DROP TABLE stamps")',
)
SECOND = revision(
    "0002",
    "0001",
    'op.execute("ALTER TABLE stamps ADD COLUMN email_id uuid REFERENCES public.emails ON DELETE CASCADE")',
    'op.execute("ALTER TABLE stamps DROP COLUMN email_id")',
)
REVISIONS = {"0001_stamps.py": FIRST, "0002_contacts.py": SECOND}


def plugin(name: str = "stamps") -> str:
    """Return the code of the plugin."""
    return PLUGIN.replace("{name}", name).replace("{title}", name.capitalize())


def write(
    folder: Path, name: str = "stamps", *, revisions: dict[str, str] | None = None, source: str | None = None
) -> Path:
    """Write the package of the plugin; returns its folder."""
    project = folder / f"acme-{name}"
    migrations = project / f"acme_{name}" / "migrations"
    migrations.mkdir(parents=True)
    (project / "pyproject.toml").write_text(PROJECT.format(name=name))
    (migrations.parent / "__init__.py").write_text(plugin(name) if source is None else source)
    for file, text in (REVISIONS if revisions is None else revisions).items():
        (migrations / file).write_text(text)
    return project
