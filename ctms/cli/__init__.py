"""`flask ctms …`: what operators run. One file per group of commands."""

from __future__ import annotations

import click

from ctms.cli.backends import backends
from ctms.cli.clients import clients
from ctms.cli.contacts import contacts
from ctms.cli.db import db
from ctms.cli.delete_bulk import delete_bulk
from ctms.cli.erasures import erasures
from ctms.cli.group import Group
from ctms.cli.opt_out import opt_out_command
from ctms.cli.permissions import permissions
from ctms.cli.plugins import plugins
from ctms.cli.roles import roles
from ctms.cli.serve import serve
from ctms.cli.settings import settings
from ctms.cli.suppressions import suppressions
from ctms.cli.worker import worker


@click.group("ctms", cls=Group)
def ctms() -> None:
    """Run and operate the contact service.

    Data goes to standard output, remarks go to standard error. Every command exits with 0 when it did its work,
    1 when it could not (a bad setting, a database out of reach, no answer to its question), 2 when it was called
    wrongly, 3 when it did a part of it (it was stopped, or some failed) or found what is not as it should be, 4 when
    what it names does not exist and 10 when what it would make exists already or what it would break is needed.
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
    erasures,
    suppressions,
):
    ctms.add_command(command)
