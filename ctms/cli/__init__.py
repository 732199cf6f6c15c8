"""`flask ctms …`: the operators' commands. One file per group of commands."""

from __future__ import annotations

import click

from ctms.startup import quick_imports

with quick_imports():
    from ctms.cli.group import Group

COMMANDS = {
    "audit": "ctms.cli.audit:audit",
    "backends": "ctms.cli.backends:backends",
    "clients": "ctms.cli.clients:clients",
    "contacts": "ctms.cli.contacts:contacts",
    "db": "ctms.cli.db:db",
    "delete-bulk": "ctms.cli.delete_bulk:delete_bulk",
    "documents": "ctms.cli.documents:documents",
    "duplicates": "ctms.cli.merges:duplicates_command",
    "erasures": "ctms.cli.erasures:erasures",
    "export": "ctms.cli.export:export",
    "import": "ctms.cli.import_contacts:import_command",
    "merge": "ctms.cli.merges:merge_command",
    "opt-out": "ctms.cli.opt_out:opt_out_command",
    "permissions": "ctms.cli.permissions:permissions",
    "plugins": "ctms.cli.plugins:plugins",
    "retention": "ctms.cli.retention:retention",
    "roles": "ctms.cli.roles:roles",
    "serve": "ctms.cli.serve:serve",
    "settings": "ctms.cli.settings:settings",
    "subject-access": "ctms.cli.subject_access:subject_access",
    "suppressions": "ctms.cli.suppressions:suppressions",
    "worker": "ctms.cli.worker:worker",
}
"""The built-in commands, `module:attribute` by name."""


@click.group("ctms", cls=Group, built_in=COMMANDS)
def ctms() -> None:
    """Run and operate the contact service.

    Data goes to standard output, remarks go to standard error. Exit statuses: 0 success; 1 failure (such as an invalid
    setting, an unreachable database, a declined confirmation); 2 wrong usage; 3 partly done (interrupted, or some items
    failed), or problems found; 4 the named object does not exist; 10 the object already exists, or is still needed.
    """
