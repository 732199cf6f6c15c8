"""The tables of API clients, roles and permissions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ctms.database.engine import Model


class ApiClientModel(Model):
    """A service that may call the API. Secrets are stored as argon2id hashes; the previous one may still be valid."""

    __tablename__ = "api_client"

    client_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    email: Mapped[str] = mapped_column(String(255))
    enabled: Mapped[bool | None]
    hashed_secret: Mapped[str] = mapped_column(String)
    previous_hashed_secret: Mapped[str | None] = mapped_column(String)
    previous_secret_expires: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    create_timestamp: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    update_timestamp: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )
    last_access: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    rate_limit_requests: Mapped[int | None]
    rate_limit_seconds: Mapped[int | None]
    rate_limit_burst: Mapped[int | None]

    roles: Mapped[list[Role]] = relationship(
        secondary="api_client_roles", back_populates="clients", order_by="Role.name", passive_deletes=True
    )


class RateLimitBucket(Model):
    """The tokens that processes may still lease for a client with a rate limit. The table is not logged."""

    __tablename__ = "rate_limit_buckets"

    client_id: Mapped[str] = mapped_column(
        String(255), ForeignKey("api_client.client_id", ondelete="CASCADE"), primary_key=True
    )
    tokens: Mapped[float]
    granted: Mapped[int]
    refilled_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Role(Model):
    """A named set of permissions that clients are granted."""

    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    description: Mapped[str | None] = mapped_column(Text)

    clients: Mapped[list[ApiClientModel]] = relationship(
        secondary="api_client_roles",
        back_populates="roles",
        order_by="ApiClientModel.client_id",
        passive_deletes=True,
    )
    permissions: Mapped[list[PermissionModel]] = relationship(
        secondary="role_permissions",
        back_populates="roles",
        order_by="PermissionModel.name",
        passive_deletes=True,
    )


class PermissionModel(Model):
    """A named right of a caller; routes name the permission that they need. `plugin` declared it, if one did."""

    __tablename__ = "permissions"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    description: Mapped[str | None] = mapped_column(Text)
    plugin: Mapped[str | None] = mapped_column(String(255))

    roles: Mapped[list[Role]] = relationship(
        secondary="role_permissions", back_populates="permissions", order_by="Role.name", passive_deletes=True
    )


class ClientRole(Model):
    """A role granted to a client."""

    __tablename__ = "api_client_roles"
    __table_args__ = (UniqueConstraint("api_client_id", "role_id", name="uix_api_client_roles"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    api_client_id: Mapped[str] = mapped_column(String(255), ForeignKey("api_client.client_id", ondelete="CASCADE"))
    role_id: Mapped[int] = mapped_column(ForeignKey("roles.id", ondelete="CASCADE"))


class RolePermission(Model):
    """A permission granted to a role."""

    __tablename__ = "role_permissions"
    __table_args__ = (UniqueConstraint("role_id", "permission_id", name="uix_role_permissions"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    role_id: Mapped[int] = mapped_column(ForeignKey("roles.id", ondelete="CASCADE"))
    permission_id: Mapped[int] = mapped_column(ForeignKey("permissions.id", ondelete="CASCADE"))
