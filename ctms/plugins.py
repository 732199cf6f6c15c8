"""The public plugin API: everything that a plugin may import from CTMS, except `ctms.testing` in its tests.

These names are stable; anything else may change in any version.
"""

from __future__ import annotations

from ctms.api.blueprint import Blueprint, connection, fetch_scalar
from ctms.api.transactions import reading, writing
from ctms.contacts.fields import Message
from ctms.database.pool import Connection, ScalarQuery
from ctms.environment import setting
from ctms.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    OperatorError,
)
from ctms.hooks.receivers import (
    Accepted,
    Backend,
    ContactState,
    DeletionHandler,
    Done,
    Identities,
    Outcome,
    Outcomes,
    Pause,
    Refused,
    SlowDown,
    TryLater,
)
from ctms.hooks.registrations import HealthCheck, Migrations, Newsletter, Permission, RegistrationError, Waitlist
from ctms.hooks.specs import hookimpl

__all__ = [
    "Accepted",
    "ApiError",
    "Backend",
    "BadRequest",
    "Blueprint",
    "Conflict",
    "Connection",
    "ContactState",
    "DeletionHandler",
    "Done",
    "Forbidden",
    "HealthCheck",
    "Identities",
    "Invalid",
    "Message",
    "Migrations",
    "Newsletter",
    "NotFound",
    "OperatorError",
    "Outcome",
    "Outcomes",
    "Pause",
    "Permission",
    "Refused",
    "RegistrationError",
    "ScalarQuery",
    "SlowDown",
    "TryLater",
    "Waitlist",
    "connection",
    "fetch_scalar",
    "hookimpl",
    "reading",
    "setting",
    "writing",
]
