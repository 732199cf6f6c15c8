"""The administration of roles and permissions.

The functions run in the session's transaction, which the caller begins and commits. The role `admin` has every
permission by its name (see `ctms.clients.access`), regardless of its grants.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import selectinload

from ctms.clients.access import (
    ADMIN_ROLE,
    DELETE_CONTACTS,
    EXPORT_CONTACTS,
    LIST_CONTACTS,
    MANAGE_CONTACTS,
    MERGE_CONTACTS,
    SEARCH_CONTACTS,
    VIEW_CONTACTS,
    VIEW_ERASURES,
    VIEW_HISTORY,
)
from ctms.clients.models import PermissionModel, Role
from ctms.database.engine import Base, db
from ctms.errors import ConflictError, NotFoundError, PluginError
from ctms.hooks.manager import app_plugins
from ctms.hooks.plugin import Registered
from ctms.hooks.registrations import Permission as DeclaredPermission

BUILT_IN_PERMISSIONS = (
    VIEW_CONTACTS,
    LIST_CONTACTS,
    MANAGE_CONTACTS,
    DELETE_CONTACTS,
    VIEW_ERASURES,
    VIEW_HISTORY,
    EXPORT_CONTACTS,
    MERGE_CONTACTS,
    SEARCH_CONTACTS,
)
"""The permissions that the routes of CTMS require."""


def init_permissions(declared: Sequence[Registered[DeclaredPermission]]) -> None:
    """Raise `PluginError` where a plugin declares a permission of the service."""
    for one in declared:
        if one.value.name in BUILT_IN_PERMISSIONS:
            raise PluginError(
                f"{one.plugin.title}: ctms_permissions yields {one.value.name!r}, a permission that the service has:"
                " rename it",
                one.plugin.name,
            )


def add_row(row: Base, taken: str) -> None:
    """Insert a new row. Raises `ConflictError` with the message `taken` when its name is in use."""
    db.session.add(row)
    try:
        db.session.flush()
    except IntegrityError as error:
        if isinstance(error.orig, psycopg.errors.UniqueViolation):
            raise ConflictError(taken) from error
        raise


def list_roles() -> list[Role]:
    """Return all roles, by name."""
    loaded = (selectinload(Role.permissions), selectinload(Role.clients))
    return list(db.session.scalars(select(Role).options(*loaded).order_by(Role.name)))


def find_role(name: str, *, lock: bool = False) -> Role:
    """Return a role, with `lock` locking its row against other operators. Raises `NotFoundError`."""
    query = select(Role).where(Role.name == name)
    role = db.session.scalar(query.with_for_update(key_share=True) if lock else query)
    if role is None:
        raise NotFoundError(f"there is no role {name}: `flask ctms roles list` lists them")
    return role


def permissions_of(role: Role) -> list[str]:
    """Return the names of the permissions that the role grants."""
    if role.name == ADMIN_ROLE:
        return list(db.session.scalars(select(PermissionModel.name).order_by(PermissionModel.name)))
    return [permission.name for permission in role.permissions]


def create_role(name: str, description: str | None = None) -> Role:
    """Create a role without permissions. Raises `ConflictError` when the name is taken."""
    role = Role(name=name, description=description)
    add_row(role, f"there is a role {name} already")
    return role


def find_deletable_role(name: str) -> Role:
    """Return a role if it may be deleted. Raises `NotFoundError`, and `ConflictError` for `admin`."""
    role = find_role(name)
    if role.name == ADMIN_ROLE:
        raise ConflictError(f"the role {ADMIN_ROLE} cannot be deleted: it is the one that has every permission")
    return role


def delete_role(name: str) -> None:
    """Delete a role and its grants to clients. Raises as `find_deletable_role` does."""
    db.session.delete(find_deletable_role(name))
    db.session.flush()


def grant_permission(role_name: str, permission_name: str) -> bool:
    """Grant a permission to a role. Returns False when the role already has it. Raises `NotFoundError`."""
    role, permission = find_role(role_name, lock=True), find_permission(permission_name, lock=True)
    if permission in role.permissions:
        return False
    role.permissions.append(permission)
    db.session.flush()
    return True


def revoke_permission(role_name: str, permission_name: str) -> bool:
    """Revoke a permission from a role. Returns False when the role does not have it.

    Raises `NotFoundError`, and `ConflictError` for `admin`.
    """
    role, permission = find_role(role_name, lock=True), find_permission(permission_name)
    if role.name == ADMIN_ROLE:
        raise ConflictError(f"the role {ADMIN_ROLE} has every permission by its name: none can be taken from it")
    if permission not in role.permissions:
        return False
    role.permissions.remove(permission)
    db.session.flush()
    return True


def list_permissions() -> list[PermissionModel]:
    """Return all permissions, by name."""
    query = select(PermissionModel).options(selectinload(PermissionModel.roles)).order_by(PermissionModel.name)
    return list(db.session.scalars(query))


def find_permission(name: str, *, lock: bool = False) -> PermissionModel:
    """Return a permission, with `lock` locking its row against other operators. Raises `NotFoundError`."""
    query = select(PermissionModel).where(PermissionModel.name == name)
    permission = db.session.scalar(query.with_for_update(key_share=True) if lock else query)
    if permission is None:
        raise NotFoundError(f"there is no permission {name}: `flask ctms permissions list` lists them")
    return permission


def roles_with(permission: PermissionModel) -> list[str]:
    """Return the names of the roles that grant the permission; `admin` always does."""
    return sorted({ADMIN_ROLE, *(role.name for role in permission.roles)})


def create_permission(name: str, description: str | None = None) -> PermissionModel:
    """Create a permission that only `admin` has. Raises `ConflictError` when the name is taken."""
    permission = PermissionModel(name=name, description=description)
    add_row(permission, f"there is a permission {name} already")
    return permission


def find_deletable_permission(name: str) -> PermissionModel:
    """Return a permission if it may be deleted. Raises `NotFoundError`, and `ConflictError` if routes need it.

    The next upgrade would store a permission of a plugin that is on again, granted to nobody.
    """
    permission = find_permission(name)
    if permission.name in BUILT_IN_PERMISSIONS:
        raise ConflictError(f"the permission {name} cannot be deleted: routes of the API ask for it")
    for one in app_plugins().collect("ctms_permissions"):
        if one.value.name == name:
            raise ConflictError(f"the permission {name} cannot be deleted: {one.plugin.title} declares it")
    return permission


def delete_permission(name: str) -> None:
    """Delete a permission and its grants to roles. Raises as `find_deletable_permission` does."""
    db.session.delete(find_deletable_permission(name))
    db.session.flush()
