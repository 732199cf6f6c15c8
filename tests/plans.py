"""What the planner is asked about: tables with many rows, analysed, so that its answer is always the same.

All is done inside the caller's transaction. Autovacuum does not see rows that are not committed, and it waits for the
lock that `ANALYZE` holds until the end: nothing changes between the statistics and the question.
"""

from __future__ import annotations

from typing import Any

from ctms.database.pool import Connection

MANY = 5000


def fill_contacts(connection: Connection, number: int = MANY) -> None:
    """Insert so many contacts, each with a Firefox Account, and analyse their tables."""
    connection.execute(
        """
        WITH contacts AS (
            INSERT INTO emails (email_id, primary_email)
            SELECT gen_random_uuid(), 'planned-' || n || '@example.com' FROM generate_series(1, %s) AS n
            RETURNING email_id, primary_email)
        INSERT INTO fxa (email_id, fxa_id, primary_email)
        SELECT email_id, email_id::text, 'account-' || primary_email FROM contacts""",
        (number,),
    )
    connection.execute("ANALYZE emails, fxa")


def plan_of(connection: Connection, sql: str, values: Any = ()) -> str:
    """Return the plan of a statement."""
    return "\n".join(line for (line,) in connection.execute(f"EXPLAIN {sql}", values).fetchall())
