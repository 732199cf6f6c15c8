"""The text of SQL statements, and SQL expressions for values that PostgreSQL renders as JSON."""

from __future__ import annotations


def timestamp(column: str) -> str:
    """Return SQL that renders a timestamp as ISO 8601 with six decimals and `+00:00`.

    PostgreSQL's own format drops trailing zeros.
    """
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')"""


def compact(statement: str) -> str:
    """Collapse the white space of a statement without spaces in its literals.

    psycopg caches the conversion of statements of up to 4,096 characters; each use of a longer one costs 10 µs.
    """
    return " ".join(statement.split())
