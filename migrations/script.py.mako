<%!
    def literal(value):
        """Return Python code with the quotes that formatters prefer."""
        return repr(value).replace("'", '"')
%>\
"""${message}

Revision ID: ${up_revision}
Revises:${" " if down_revision else ""}${down_revision | comma,n}
"""

from alembic import op
${imports if imports else ""}
revision = ${literal(up_revision)}
down_revision = ${literal(down_revision)}
branch_labels = ${literal(branch_labels)}
depends_on = ${literal(depends_on)}

# Which older code works with these tables. "unchanged": what worked before, since this revision only adds. The id of an
# earlier revision: the code from that one on, which no longer uses what is dropped. None: no older code; it does not start.
oldest_compatible = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
