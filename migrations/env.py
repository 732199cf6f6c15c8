"""How Alembic runs our migrations and those of plugins; `flask db …` and `flask ctms serve` come here.

The attribute `schema` of the configuration is the schema of the plugin whose migrations are run: their tables and their
version table are created there.
"""

import logging

from alembic import context
from flask import current_app
from sqlalchemy import Connection, text

logger = logging.getLogger("alembic.env")
migrate = current_app.extensions["migrate"]
schema = context.config.attributes.get("schema")
metadata = migrate.db.metadata if schema is None else None


def is_ours(_item: object, name: str | None, _kind: str, reflected: bool, _compared: object) -> bool:
    """Leave the tables of Procrastinate alone: they have no models here."""
    return not (reflected and name and name.startswith(("procrastinate_", "idx_procrastinate_")))


def run_offline() -> None:
    """Print the SQL instead of running it (`flask db upgrade --sql`)."""
    context.configure(
        dialect_name="postgresql", target_metadata=metadata, literal_binds=True, version_table_schema=schema
    )
    with context.begin_transaction():
        if schema is not None:
            context.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            context.execute(f'SET search_path = "{schema}", public')
        context.run_migrations()


def enter_schema(connection: Connection) -> None:
    """Create the schema of the plugin if it is missing, and have the plugin's migrations create their tables there."""
    if not context.get_context().opts.get("dont_mutate"):
        exists = text("SELECT FROM pg_namespace WHERE nspname = :schema")
        # Not `IF NOT EXISTS`, which also needs the privilege to create schemas where the schema exists.
        if connection.execute(exists, {"schema": schema}).first() is None:
            connection.execute(text(f'CREATE SCHEMA "{schema}"'))
    connection.execute(text(f'SET search_path = "{schema}", public'))
    connection.commit()


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
            version_table_schema=schema,
            **migrate.configure_args,
        )
        try:
            if schema is not None:
                enter_schema(connection)
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(hashtext('ctms migrations'))"))
            for setting in ("statement_timeout", "lock_timeout", "search_path"):
                connection.execute(text(f"RESET {setting}"))
            connection.commit()


if context.is_offline_mode():
    run_offline()
else:
    # What an operator has to put right, such as a wrong password, is one line and no traceback.
    with current_app.extensions["ctms.operator_errors"]():
        run_online()
