"""API clients: authentication by secret, and their administration.

The functions for operators run in the session's transaction, which the caller begins and commits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import selectinload

from ctms.clients.access import ADMIN_ROLE
from ctms.clients.models import ApiClientModel, RateLimitBucket, Role
from ctms.clients.rate_limits import RateLimit, make_rate_limit
from ctms.clients.refusals import TokenFailure
from ctms.clients.roles import add_row, find_role, permissions_of
from ctms.clients.secrets import generate_secret, hash_secret, verify_secret
from ctms.database.engine import db, session_connection
from ctms.database.pool import reading
from ctms.errors import NotFoundError
from ctms.history.audit import record_act

FIRST_CLIENT = "id_admin"
CLIENT_ID = re.compile(r"id_[-_.a-zA-Z0-9]+")

_SECRETS = """
    SELECT hashed_secret, CASE WHEN previous_secret_expires > now() THEN previous_hashed_secret END, enabled
    FROM api_client WHERE client_id = %s"""


class InvalidCredentials(Exception):
    """The client id or secret is wrong; `cause` is for operators and must not reach the caller."""

    def __init__(self, cause: TokenFailure) -> None:
        super().__init__(cause)
        self.cause = cause


def authenticate(client_id: str, secret: str) -> None:
    """Check a client's secret against the current one, and the previous one while it is valid.

    Raises `InvalidCredentials`. An unknown or disabled client takes as long as a wrong secret.
    """
    known = None
    if CLIENT_ID.fullmatch(client_id):
        with reading() as connection:
            known = connection.execute(_SECRETS, (client_id,)).fetchone()
    # A disabled client is checked against no hash, like an unknown one.
    current, previous, enabled = known if known and known[2] else (None, None, None)
    right = verify_secret(current, secret) or (previous is not None and verify_secret(previous, secret))
    if known is None:
        raise InvalidCredentials(TokenFailure.UNKNOWN_CLIENT)
    if not enabled:
        raise InvalidCredentials(TokenFailure.DISABLED_CLIENT)
    if not right:
        raise InvalidCredentials(TokenFailure.WRONG_SECRET)


def create_first_client(by: str) -> tuple[str, str] | None:
    """Create the client `id_admin` with the role `admin` if no client exists, and return its id and secret.

    The audit log names the actor `by`.
    """
    with db.session.begin():
        db.session.execute(text("SELECT pg_advisory_xact_lock(hashtext('ctms first client'))"))
        if db.session.scalar(select(func.count()).select_from(ApiClientModel)):
            return None
        record_act(session_connection(), by, "clients create", FIRST_CLIENT, roles=[ADMIN_ROLE])
        return FIRST_CLIENT, create_client(FIRST_CLIENT, "admin@localhost", [ADMIN_ROLE])


def list_clients() -> list[ApiClientModel]:
    """Return all clients, by id."""
    loaded = selectinload(ApiClientModel.roles).selectinload(Role.permissions)
    return list(db.session.scalars(select(ApiClientModel).options(loaded).order_by(ApiClientModel.client_id)))


def find_client(client_id: str, *, lock: bool = False) -> ApiClientModel:
    """Return a client, with `lock` locking its row against other operators. Raises `NotFoundError`."""
    client = db.session.get(ApiClientModel, client_id, with_for_update={"key_share": True} if lock else None)
    if client is None:
        raise NotFoundError(f"there is no API client {client_id}")
    return client


def client_permissions(client: ApiClientModel) -> list[str]:
    """Return the names of all permissions that the client's roles grant."""
    return sorted({name for role in client.roles for name in permissions_of(role)})


def create_client(client_id: str, email: str, roles: Iterable[str] = ()) -> str:
    """Create an enabled client with these roles and return its secret, which cannot be read again.

    Raises `NotFoundError` for an unknown role and `ConflictError` when the id is taken.
    """
    granted = [find_role(name, lock=True) for name in sorted(set(roles))]
    secret = generate_secret()
    client = ApiClientModel(
        client_id=client_id, email=email, enabled=True, hashed_secret=hash_secret(secret), roles=granted
    )
    add_row(client, f"there is an API client {client_id} already")
    return secret


def delete_client(client_id: str) -> None:
    """Delete a client and its grants. Raises `NotFoundError`."""
    db.session.delete(find_client(client_id, lock=True))
    db.session.flush()


def set_enabled(client_id: str, enabled: bool) -> bool:
    """Enable or disable a client; its tokens are accepted or refused from the next request on.

    Returns False when nothing changed. Raises `NotFoundError`.
    """
    client = find_client(client_id, lock=True)
    # Old rows may hold NULL, which disables a client as false does.
    changed = bool(client.enabled) is not enabled
    client.enabled = enabled
    db.session.flush()
    return changed


def rate_limit_of(client: ApiClientModel) -> RateLimit | None:
    """Return the rate limit of a client, None if it has none."""
    return make_rate_limit((client.rate_limit_requests, client.rate_limit_seconds, client.rate_limit_burst))


def set_rate_limit(client_id: str, limit: RateLimit | None) -> bool:
    """Set or remove the rate limit of a client, which takes effect within a second.

    Returns False when nothing changed. Raises `NotFoundError`.
    """
    client = find_client(client_id, lock=True)
    if rate_limit_of(client) == limit:
        return False
    columns = limit or (None, None, None)
    client.rate_limit_requests, client.rate_limit_seconds, client.rate_limit_burst = columns
    db.session.flush()
    if limit is None:
        db.session.execute(delete(RateLimitBucket).where(RateLimitBucket.client_id == client_id))
    return True


def previous_secret_expires(client: ApiClientModel) -> datetime | None:
    """Return when the previous secret expires, None if it is not valid by the database's clock."""
    return db.session.scalar(
        select(ApiClientModel.previous_secret_expires).where(
            ApiClientModel.client_id == client.client_id, ApiClientModel.previous_secret_expires > func.now()
        )
    )


def rotate_secret(client_id: str, overlap: timedelta | None) -> str:
    """Give a client a new secret and return it. The current one stays valid for `overlap`, or expires now.

    Only one previous secret is kept: one that is still valid from an earlier rotation expires now. Raises
    `NotFoundError`.
    """
    client = find_client(client_id, lock=True)
    secret = generate_secret()
    values = {
        ApiClientModel.hashed_secret: hash_secret(secret),
        ApiClientModel.previous_hashed_secret: client.hashed_secret if overlap else None,
        ApiClientModel.previous_secret_expires: func.now() + overlap if overlap else None,
    }
    db.session.execute(update(ApiClientModel).where(ApiClientModel.client_id == client_id).values(values))
    db.session.refresh(client)
    return secret


def grant_role(client_id: str, role_name: str) -> bool:
    """Grant a role to a client. Returns False when the client already has it. Raises `NotFoundError`."""
    client, role = find_client(client_id, lock=True), find_role(role_name, lock=True)
    if role in client.roles:
        return False
    client.roles.append(role)
    db.session.flush()
    return True


def revoke_role(client_id: str, role_name: str) -> bool:
    """Revoke a role from a client. Returns False when the client does not have it. Raises `NotFoundError`."""
    client, role = find_client(client_id, lock=True), find_role(role_name)
    if role not in client.roles:
        return False
    client.roles.remove(role)
    db.session.flush()
    return True
