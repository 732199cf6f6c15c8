"""The API clients on record: who they are, and whether a secret is theirs."""

from __future__ import annotations

import re

from sqlalchemy import func, select, text

from ctms.clients.access import ADMIN_ROLE
from ctms.clients.models import ApiClient, Role
from ctms.clients.secrets import hash_secret, make_secret, secret_matches
from ctms.database import db
from ctms.pool import reading

FIRST_CLIENT = "id_admin"
CLIENT_ID = re.compile(r"id_[-_.a-zA-Z0-9]+")

_SECRETS = """
    SELECT hashed_secret, CASE WHEN previous_secret_expires > now() THEN previous_hashed_secret END
    FROM api_client WHERE client_id = %s AND enabled"""


def authenticate(client_id: str, secret: str) -> bool:
    """Check a client's secret, or the one before it while that is still valid.

    An unknown or disabled client takes as long as a wrong secret.
    """
    known = (None, None)
    if CLIENT_ID.fullmatch(client_id):
        with reading() as connection:
            known = connection.execute(_SECRETS, (client_id,)).fetchone() or known
    current, previous = known
    if secret_matches(current, secret):
        return True
    return previous is not None and secret_matches(previous, secret)


def create_first_client() -> tuple[str, str] | None:
    """Make the client `id_admin` with the role `admin` when there is no client yet; returns its id and secret."""
    secret = make_secret()
    with db.session.begin():
        db.session.execute(text("SELECT pg_advisory_xact_lock(hashtext('ctms first client'))"))
        if db.session.scalar(select(func.count()).select_from(ApiClient)):
            return None
        admin = db.session.scalars(select(Role).where(Role.name == ADMIN_ROLE)).one()
        db.session.add(
            ApiClient(
                client_id=FIRST_CLIENT,
                email="admin@localhost",
                enabled=True,
                hashed_secret=hash_secret(secret),
                roles=[admin],
            )
        )
    return FIRST_CLIENT, secret
