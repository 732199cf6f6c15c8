"""Alembic's environment for the migrations of CTMS and of plugins, for `flask db …` and `flask ctms serve`.

The attribute `revisions` of the configuration determines how they run and what they may raise, and, for a plugin's, the
schema in which their tables and their version table are created.
"""

import logging
import time
from functools import partial

from alembic import context
from flask import current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

logger = logging.getLogger("alembic.env")
migrate = current_app.extensions["migrate"]
revisions = context.config.attributes["revisions"]
schema = revisions.schema
POLL_SECONDS = 0.2
metadata = migrate.db.metadata if schema is None else None


def is_ours(_item: object, name: str | None, _kind: str, reflected: bool, _compared: object) -> bool:
    """Exclude the tables of Procrastinate and the partitions of events: they have no models."""
    return not (
        reflected and name and name.startswith(("procrastinate_", "idx_procrastinate_", "subscription_events_"))
    )


def enter_session() -> None:
    """Set what a revision expects, even after one that has changed it."""
    # Rebuilding a large table may take hours; waiting for a lock must not block the API.
    context.execute("SET statement_timeout = 0")
    context.execute("SET lock_timeout = '5s'")
    if schema is not None:
        context.execute(f'SET search_path = "{schema}", public')


def run_offline() -> None:
    """Print the SQL instead of running it (`flask db upgrade --sql`)."""
    context.configure(
        dialect_name="postgresql",
        target_metadata=metadata,
        literal_binds=True,
        version_table_schema=schema,
        on_version_apply=partial(revisions.store_compatibility, context.script),
    )
    if schema is not None:
        revisions.prepare(context.script, partial(context.execute, f'SET search_path = "{schema}", public'))
    with context.begin_transaction():
        if not context.get_starting_revision_argument():
            for statement in revisions.schema_statements():
                context.execute(statement)
        context.run_migrations()


def wait_for_lock(connection: Connection) -> None:
    """Wait without limit until no other process migrates, and report it."""
    connection.execute(text("SET statement_timeout = 0"))
    connection.execute(text("SET lock_timeout = 0"))
    is_reported = False
    while not connection.execute(text("SELECT pg_try_advisory_lock(hashtext('ctms migrations'))")).scalar():
        # Not one statement that waits: CREATE INDEX CONCURRENTLY of the other process would wait for its end.
        connection.commit()
        if not is_reported:
            logger.warning("another process migrates the database: waiting until it has finished")
            is_reported = True
        time.sleep(POLL_SECONDS)
    connection.commit()


def leave(connection: Connection) -> None:
    """Release the lock, and reset what revisions have set."""
    if connection.closed:  # by a revision: it is in the pool, and still has the lock
        migrate.db.engine.dispose()
        return
    try:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(hashtext('ctms migrations'))"))
        connection.execute(text("RESET ALL"))
        connection.execute(text("RESET ROLE"))
        connection.commit()
    except DBAPIError:  # the connection is lost, and the lock with it; the cause has already been raised
        connection.invalidate()


def run_online() -> None:
    """Migrate, one process at a time: a second one waits and then finds nothing to do."""
    with migrate.db.engine.connect() as connection:
        wait_for_lock(connection)
        context.configure(
            connection=connection,
            target_metadata=metadata,
            transaction_per_migration=True,
            include_object=is_ours,
            version_table_schema=schema,
            on_version_apply=partial(revisions.store_compatibility, context.script),
            **migrate.configure_args,
        )
        revisions.prepare(context.script, enter_session, connection)
        try:
            enter_session()
            revisions.enter_schema(connection, create=not context.get_context().opts.get("dont_mutate"))
            with context.begin_transaction():
                context.run_migrations()
        finally:
            leave(connection)


if context.is_offline_mode():
    run_offline()
else:
    # A problem that an operator can fix, such as a wrong password, is one line without a traceback.
    with revisions.explained():
        run_online()
