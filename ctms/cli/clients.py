"""`flask ctms clients …`: the services that may call the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click
from flask.cli import AppGroup

from ctms.cli import values
from ctms.cli.audit import record
from ctms.cli.output import (
    confirm,
    json_option,
    names,
    say,
    write_done,
    write_json,
    write_record,
    write_table,
    yes_option,
)
from ctms.clients import registry
from ctms.clients.models import ApiClientModel
from ctms.clients.rate_limits import RateLimit
from ctms.database.engine import db

clients = AppGroup("clients", help="API clients: the services that may call the API, their secrets and their roles.")

client_argument = click.argument("client_id", type=values.client_id, metavar="ID")
role_argument = click.argument("role", type=values.stored_text, metavar="ROLE")


def listed(client: ApiClientModel) -> dict[str, Any]:
    """Return the data of a client for a list: never a secret or its hash."""
    limit = registry.rate_limit_of(client)
    return {
        "client_id": client.client_id,
        "email": client.email,
        "enabled": bool(client.enabled),
        "roles": [role.name for role in client.roles],
        "rate_limit": limit.rate if limit else None,
        "rate_limit_burst": limit.burst if limit else None,
        "create_timestamp": client.create_timestamp,
        "update_timestamp": client.update_timestamp,
        "last_access": client.last_access,
    }


def shown(client_id: str) -> dict[str, Any]:
    """Return all data of a client that may be shown. Raises `NotFoundError`."""
    client = registry.find_client(client_id)
    return {
        **listed(client),
        "permissions": registry.client_permissions(client),
        "previous_secret_expires": registry.previous_secret_expires(client),
    }


@clients.command("list")
@json_option
def list_clients(as_json: bool) -> None:
    """List all API clients."""
    with db.session.begin():
        found = [listed(client) for client in registry.list_clients()]
    if as_json:
        write_json(found)
        return
    columns = ("client_id", "email", "enabled", "roles", "rate_limit", "last_access")
    write_table(columns, ([client[column] for column in columns] for client in found))


@clients.command("show")
@client_argument
@json_option
def show_client(client_id: str, as_json: bool) -> None:
    """Show the API client ID, its roles, permissions, rate limit and last access.

    Exits with 4 if there is no such client.
    """
    with db.session.begin():
        found = shown(client_id)
    write_json(found) if as_json else write_record(found)


@clients.command("create")
@client_argument
@click.argument("email", type=values.address, metavar="EMAIL")
@click.option(
    "--role", "roles", type=values.stored_text, multiple=True, metavar="ROLE", help="Grant a role; repeatable."
)
@json_option
def create_client(client_id: str, email: str, roles: tuple[str, ...], as_json: bool) -> None:
    """Create the API client ID and print its secret, only once.

    ID is `id_` followed by letters, digits, `-`, `_` or `.`; EMAIL is the address of the person responsible for the
    client. A client without a role is not authorized to do anything.

    Exits with 4 if a role does not exist (nothing is created), with 10 if the id is taken.
    """
    with db.session.begin():
        secret = registry.create_client(client_id, email, roles)
        record(client_id, roles=sorted(set(roles)))
        data = shown(client_id)
    _write_secret(data, secret, as_json)
    if not roles:
        say(f"without a role it is not authorized to do anything: `flask ctms clients grant {client_id} ROLE`")


@clients.command("delete")
@client_argument
@yes_option
@json_option
def delete_client(client_id: str, yes: bool, as_json: bool) -> None:
    """Delete the API client ID. Its secret and its tokens are invalid from then on.

    Do not reuse its ID soon: tokens that have not expired would be valid for the new client.

    Asks for confirmation; without a terminal it requires --yes. Exits with 4 if there is no such client.
    """
    with db.session.begin():
        data = shown(client_id)
    granted = f", which has the roles {names(data['roles'])}" if data["roles"] else ""
    confirm(f"Delete the API client {client_id} ({data['email']}){granted}?", yes)
    with db.session.begin():
        registry.delete_client(client_id)
        record(client_id)
    write_done(data["client_id"], data, "deleted", as_json)


@clients.command("enable")
@client_argument
@json_option
def enable_client(client_id: str, as_json: bool) -> None:
    """Enable the API client ID again. Exits with 4 if there is no such client."""
    with db.session.begin():
        if changed := registry.set_enabled(client_id, True):
            record(client_id)
        data = shown(client_id)
    write_done(data["client_id"], data, "enabled" if changed else "already enabled", as_json)


@clients.command("disable")
@client_argument
@json_option
def disable_client(client_id: str, as_json: bool) -> None:
    """Reject the API client ID, from its next request on; `enable` reverts this.

    Exits with 4 if there is no such client.
    """
    with db.session.begin():
        if changed := registry.set_enabled(client_id, False):
            record(client_id)
        data = shown(client_id)
    write_done(data["client_id"], data, "disabled" if changed else "already disabled", as_json)


@clients.command("limit")
@client_argument
@click.option("--rate", type=values.rate, metavar="RATE", help="Requests per second, minute or hour: 100/s, 30/m, 5/h.")
@click.option(
    "--burst",
    type=click.IntRange(1, values.MAX_REQUESTS),
    metavar="N",
    help="Maximum number of requests at once, after a pause. By default, the number in RATE.",
)
@click.option("--remove", is_flag=True, help="Remove the limit.")
@json_option
def limit_client(client_id: str, rate: tuple[int, int] | None, burst: int | None, remove: bool, as_json: bool) -> None:
    """Limit the rate of requests of the API client ID, or remove its limit with --remove.

    A request above the limit gets 429 with Retry-After. All instances of the service share the limit. A change takes
    effect within a second. Exits with 4 if there is no such client.
    """
    if (rate is None) is not remove or (burst is not None and remove):
        raise click.UsageError("pass --rate, with or without --burst, or --remove")
    limit = None if rate is None else RateLimit(*rate, rate[0] if burst is None else burst)
    with db.session.begin():
        if changed := registry.set_rate_limit(client_id, limit):
            record(client_id, rate=limit.rate if limit else None, burst=limit.burst if limit else None)
        data = shown(client_id)
    remark = f"limited to {limit.rate}, {limit.burst:,} at once" if limit else "without a rate limit"
    write_done(data["client_id"], data, remark if changed else f"{remark} already", as_json)


@clients.command("rotate-secret")
@client_argument
@click.option(
    "--overlap",
    type=values.duration,
    metavar="DURATION",
    help="Keep the old secret valid for this long: 90s, 30m, 24h, 7d.",
)
@yes_option
@json_option
def rotate_secret(client_id: str, overlap: timedelta | None, yes: bool, as_json: bool) -> None:
    """Create a new secret for the API client ID and print it, only once.

    The old secret ends immediately, or after --overlap, which gives the client time to change. Tokens issued before
    stay valid until they expire (`disable` rejects them).

    Asks for confirmation before it ends a secret immediately: the old one without --overlap, and the previous one if it
    is still within an earlier overlap. Without a terminal it then requires --yes.

    Exits with 4 if there is no such client.
    """
    with db.session.begin():
        earlier = registry.previous_secret_expires(registry.find_client(client_id))
    if overlap is None:
        confirm(f"End the secret of {client_id} now? (--overlap keeps it valid for a while)", yes)
    elif earlier:
        confirm(f"An earlier secret of {client_id} is valid until {earlier:%Y-%m-%d %H:%M:%S %Z}. End it now?", yes)
    with db.session.begin():
        secret = registry.rotate_secret(client_id, overlap)
        record(client_id, overlap_seconds=int(overlap.total_seconds()) if overlap else 0)
        data = shown(client_id)
    _write_secret(data, secret, as_json)
    if data["previous_secret_expires"]:
        say(f"the old secret is valid until {data['previous_secret_expires']:%Y-%m-%d %H:%M:%S %Z}")
    else:
        say("the old secret is no longer valid")


@clients.command("grant")
@client_argument
@role_argument
@json_option
def grant_role(client_id: str, role: str, as_json: bool) -> None:
    """Grant the role ROLE to the API client ID, from its next request on.

    It is no error if the client already has the role. Exits with 4 if there is no such client or role.
    """
    with db.session.begin():
        if changed := registry.grant_role(client_id, role):
            record(client_id, role=role)
        data = shown(client_id)
    write_done(data["client_id"], data, f"has the role {role}" + ("" if changed else " already"), as_json)


@clients.command("revoke")
@client_argument
@role_argument
@json_option
def revoke_role(client_id: str, role: str, as_json: bool) -> None:
    """Revoke the role ROLE from the API client ID, from its next request on.

    It is no error if the client does not have the role. Exits with 4 if there is no such client or role.
    """
    with db.session.begin():
        if changed := registry.revoke_role(client_id, role):
            record(client_id, role=role)
        data = shown(client_id)
    write_done(
        data["client_id"], data, f"lost the role {role}" if changed else f"did not have the role {role}", as_json
    )


def _write_secret(data: dict[str, Any], secret: str, as_json: bool) -> None:
    if as_json:
        write_json({**data, "client_secret": secret})
    else:
        write_record({"client id": data["client_id"], "client secret": secret})
        say("the secret is shown only once")
