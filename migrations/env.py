"""How Alembic runs our migrations; `flask db …` and `flask ctms serve` come here."""

import logging

from alembic import context
from flask import current_app
from sqlalchemy import text

logger = logging.getLogger("alembic.env")
migrate = current_app.extensions["migrate"]
metadata = migrate.db.metadata


def is_ours(_item: object, name: str | None, _kind: str, reflected: bool, _compared: object) -> bool:
    """Leave the tables of Procrastinate alone: they have no models here."""
    return not (reflected and name and name.startswith(("procrastinate_", "idx_procrastinate_")))


def run_offline() -> None:
    """Print the SQL instead of running it (`flask db upgrade --sql`)."""
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Migrate, one process at a time: a second one waits and then finds the work done."""
    with migrate.db.engine.connect() as connection:
        # Rebuilding a large table may take hours; waiting for a lock must not make the API wait behind it.
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_lock(hashtext('ctms migrations'))"))
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            transaction_per_migration=True,
            include_object=is_ours,
            **migrate.configure_args,
        )
        try:
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(hashtext('ctms migrations'))"))
            for setting in ("statement_timeout", "lock_timeout"):
                connection.execute(text(f"RESET {setting}"))
            connection.commit()


if context.is_offline_mode():
    run_offline()
else:
    # What an operator has to put right, such as a wrong password, is one line and no traceback.
    with current_app.extensions["ctms.operator_errors"]():
        run_online()
