"""Runs of the retention rules, numbers of anonymised contacts, and origins of erasures that name a rule

Revision ID: d1a63f0c7e49
Revises: d1628a4fe749
"""

from alembic import op

revision = "d1a63f0c7e49"
down_revision = "d1628a4fe749"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"


def upgrade() -> None:
    # A longer limit needs no rewrite of the table.
    op.execute("ALTER TABLE erasures ALTER COLUMN origin TYPE varchar(63)")
    op.execute("""
        CREATE TABLE retention_runs (
            id uuid NOT NULL CONSTRAINT retention_runs_pkey PRIMARY KEY,
            started_at timestamptz NOT NULL,
            finished_at timestamptz,
            started_by text NOT NULL,
            max_contacts integer NOT NULL,
            found integer NOT NULL DEFAULT 0,
            erased integer NOT NULL DEFAULT 0,
            anonymised integer NOT NULL DEFAULT 0,
            held integer NOT NULL DEFAULT 0,
            changed integer NOT NULL DEFAULT 0,
            failed integer NOT NULL DEFAULT 0,
            outcome varchar(20)
        )""")
    op.execute("CREATE INDEX idx_retention_runs_started_at ON retention_runs (started_at)")
    op.execute("""
        CREATE TABLE anonymous_counts (
            month date NOT NULL,
            rule varchar(40) NOT NULL,
            created_year integer NOT NULL,
            country varchar(2) NOT NULL,
            language varchar(3) NOT NULL,
            kind varchar(20) NOT NULL,
            name varchar(63) NOT NULL,
            subscribed boolean NOT NULL,
            contacts integer NOT NULL,
            CONSTRAINT anonymous_counts_pkey
                PRIMARY KEY (month, rule, created_year, country, language, kind, name, subscribed)
        )""")


def downgrade() -> None:
    op.execute("DROP TABLE anonymous_counts")
    op.execute("DROP TABLE retention_runs")
    op.execute("UPDATE erasures SET origin = left(origin, 20) WHERE length(origin) > 20")
    op.execute("ALTER TABLE erasures ALTER COLUMN origin TYPE varchar(20)")
