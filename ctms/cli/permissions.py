"""`flask ctms permissions …`: what callers may do."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ctms.cli import values
from ctms.cli.audit import record
from ctms.cli.output import confirm, json_option, names, write_done, write_json, write_table, yes_option
from ctms.clients import roles as domain
from ctms.clients.models import PermissionModel
from ctms.database.engine import db

permissions = AppGroup("permissions", help="Permissions: what callers may do. Routes require them, roles grant them.")


def permission_data(permission: PermissionModel) -> dict[str, Any]:
    """Return the data of a permission. The role `admin` is always among those that grant it."""
    return {
        "name": permission.name,
        "description": permission.description,
        "roles": domain.roles_with(permission),
        "plugin": permission.plugin,
    }


@permissions.command("list")
@json_option
def list_permissions(as_json: bool) -> None:
    """List all permissions, the roles that grant them, and the plugins that declare them."""
    with db.session.begin():
        found = [permission_data(permission) for permission in domain.list_permissions()]
    if as_json:
        write_json(found)
        return
    columns = ("name", "description", "roles", "plugin")
    write_table(columns, ([permission[column] for column in columns] for permission in found))


@permissions.command("create")
@click.argument("name", type=values.new_name, metavar="PERMISSION")
@click.option("--description", type=values.stored_text, metavar="TEXT", help="What it allows.")
@json_option
def create_permission(name: str, description: str | None, as_json: bool) -> None:
    """Create the permission PERMISSION. The role admin has it at once; `flask ctms roles grant` grants it to others.

    PERMISSION consists of letters, digits, `-`, `_`, `.` or `:`. Exits with 10 if the name is taken.
    """
    with db.session.begin():
        data = permission_data(domain.create_permission(name, description))
        record(name)
    write_done(name, data, "created", as_json)


@permissions.command("delete")
@click.argument("name", type=values.stored_text, metavar="PERMISSION")
@yes_option
@json_option
def delete_permission(name: str, yes: bool, as_json: bool) -> None:
    """Delete the permission PERMISSION, and revoke it from all roles.

    Asks for confirmation; without a terminal it requires --yes. Exits with 4 if there is no such permission, with 10
    for those that routes of CTMS require.
    """
    with db.session.begin():
        data = permission_data(domain.find_deletable_permission(name))
    confirm(f"Delete the permission {name}, which these roles grant: {names(data['roles'])}?", yes)
    with db.session.begin():
        domain.delete_permission(name)
        record(name)
    write_done(name, data, "deleted", as_json)
