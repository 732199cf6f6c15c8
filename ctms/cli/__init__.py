"""`flask ctms …`: the operators' commands. One file per group of commands."""

from __future__ import annotations

import click

from ctms.cli.backends import backends
from ctms.cli.clients import clients
from ctms.cli.contacts import contacts
from ctms.cli.db import db
from ctms.cli.delete_bulk import delete_bulk
from ctms.cli.erasures import erasures
from ctms.cli.group import Group
from ctms.cli.merges import duplicates_command, merge_command
from ctms.cli.opt_out import opt_out_command
from ctms.cli.permissions import permissions
from ctms.cli.plugins import plugins
from ctms.cli.retention import retention
from ctms.cli.roles import roles
from ctms.cli.serve import serve
from ctms.cli.settings import settings
from ctms.cli.subject_access import subject_access
from ctms.cli.suppressions import suppressions
from ctms.cli.worker import worker


@click.group("ctms", cls=Group)
def ctms() -> None:
    """Run and operate the contact service.

    Data goes to standard output, remarks go to standard error. Exit statuses: 0 success; 1 failure (such as an invalid
    setting, an unreachable database, a declined confirmation); 2 wrong usage; 3 partly done (interrupted, or some items
    failed), or problems found; 4 the named object does not exist; 10 the object already exists, or is still needed.
    """


for command in (
    serve,
    worker,
    backends,
    contacts,
    clients,
    roles,
    permissions,
    plugins,
    settings,
    db,
    delete_bulk,
    opt_out_command,
    duplicates_command,
    merge_command,
    erasures,
    retention,
    suppressions,
    subject_access,
):
    ctms.add_command(command)
