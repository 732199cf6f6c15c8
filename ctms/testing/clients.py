"""API clients for tests."""

from __future__ import annotations

from collections.abc import Iterable

from argon2 import PasswordHasher
from sqlalchemy import select

from ctms.clients.models import ApiClientModel, PermissionModel, Role
from ctms.database.engine import db

# argon2id is slow on purpose; most tests do not need its strength.
QUICK_HASHER = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

SECRET = "secret_for_tests"  # noqa: S105  opens nothing
_HASHED = QUICK_HASHER.hash(SECRET)


def create_client(client_id: str, *, roles: Iterable[str] = (), enabled: bool = True) -> str:
    """Store a client whose secret is `SECRET`; return its id."""
    found = db.session.scalars(select(Role).where(Role.name.in_(roles))).all()
    assert {role.name for role in found} == set(roles)
    db.session.add(
        ApiClientModel(
            client_id=client_id,
            email="client@example.com",
            enabled=enabled,
            hashed_secret=_HASHED,
            roles=list(found),
        )
    )
    db.session.commit()
    return client_id


def create_role(name: str, permissions: Iterable[str]) -> str:
    """Store a role with the permissions; return its name."""
    found = db.session.scalars(select(PermissionModel).where(PermissionModel.name.in_(permissions))).all()
    missing = set(permissions) - {permission.name for permission in found}
    assert not missing, f"no permission {', '.join(sorted(missing))} is stored: does the plugin declare it?"
    db.session.add(Role(name=name, permissions=list(found)))
    db.session.commit()
    return name
