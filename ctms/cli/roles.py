"""`flask ctms roles …`: named sets of permissions."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup

from ctms.cli import values
from ctms.cli.audit import record
from ctms.cli.output import confirm, json_option, names, write_done, write_json, write_record, write_table, yes_option
from ctms.clients import roles as domain
from ctms.clients.models import Role
from ctms.database.engine import db

roles = AppGroup("roles", help="Roles: named sets of permissions for API clients.")

role_argument = click.argument("name", type=values.stored_text, metavar="ROLE")
permission_argument = click.argument("permission", type=values.stored_text, metavar="PERMISSION")


def role_data(role: Role) -> dict[str, Any]:
    """Return the data of a role."""
    return {
        "name": role.name,
        "description": role.description,
        "permissions": domain.permissions_of(role),
        "clients": [client.client_id for client in role.clients],
    }


@roles.command("list")
@json_option
def list_roles(as_json: bool) -> None:
    """List all roles."""
    with db.session.begin():
        found = [role_data(role) for role in domain.list_roles()]
    if as_json:
        write_json(found)
        return
    columns = ("name", "description", "permissions")
    write_table(columns, ([role[column] for column in columns] for role in found))


@roles.command("show")
@role_argument
@json_option
def show_role(name: str, as_json: bool) -> None:
    """Show the role ROLE: its permissions, and the API clients that have it.

    Exits with 4 if there is no such role.
    """
    with db.session.begin():
        found = role_data(domain.find_role(name))
    write_json(found) if as_json else write_record(found)


@roles.command("create")
@click.argument("name", type=values.new_name, metavar="ROLE")
@click.option("--description", type=values.stored_text, metavar="TEXT", help="Its purpose.")
@json_option
def create_role(name: str, description: str | None, as_json: bool) -> None:
    """Create the role ROLE, without permissions: `grant` adds them.

    ROLE consists of letters, digits, `-`, `_`, `.` or `:`. Exits with 10 if the name is taken.
    """
    with db.session.begin():
        data = role_data(domain.create_role(name, description))
        record(name)
    write_done(name, data, "created", as_json)


@roles.command("delete")
@role_argument
@yes_option
@json_option
def delete_role(name: str, yes: bool, as_json: bool) -> None:
    """Delete the role ROLE, and revoke it from all API clients.

    Asks for confirmation; without a terminal it requires --yes. Exits with 4 if there is no such role, with 10 for the
    role admin.
    """
    with db.session.begin():
        data = role_data(domain.find_deletable_role(name))
    losers = f", which these API clients have: {names(data['clients'])}" if data["clients"] else ""
    confirm(f"Delete the role {name}{losers}?", yes)
    with db.session.begin():
        domain.delete_role(name)
        record(name)
    write_done(name, data, "deleted", as_json)


@roles.command("grant")
@role_argument
@permission_argument
@json_option
def grant_permission(name: str, permission: str, as_json: bool) -> None:
    """Grant the permission PERMISSION to the role ROLE, with immediate effect.

    It is no error if the role already has the permission. Exits with 4 if there is no such role or permission.
    """
    with db.session.begin():
        if changed := domain.grant_permission(name, permission):
            record(name, permission=permission)
        data = role_data(domain.find_role(name))
    write_done(name, data, f"has the permission {permission}" + ("" if changed else " already"), as_json)


@roles.command("revoke")
@role_argument
@permission_argument
@json_option
def revoke_permission(name: str, permission: str, as_json: bool) -> None:
    """Revoke the permission PERMISSION from the role ROLE, with immediate effect.

    It is no error if the role does not have the permission. Exits with 4 if there is no such role or permission, with
    10 for the role admin, which has every permission.
    """
    with db.session.begin():
        if changed := domain.revoke_permission(name, permission):
            record(name, permission=permission)
        data = role_data(domain.find_role(name))
    remark = f"lost the permission {permission}" if changed else f"did not have the permission {permission}"
    write_done(name, data, remark, as_json)
