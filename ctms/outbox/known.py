"""The receivers of deletions: those of this process's plugins, and others that a service has run with.

An edit reaches the backends of the process that makes it. A deletion must reach all of them: a process without the
variables of a plugin would otherwise call an erasure done although the plugin's system keeps the data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ctms.database.pool import Connection
from ctms.outbox.models import Receiver

_FIND = f"SELECT kind, name FROM {Receiver.__tablename__}"


def find_known(connection: Connection) -> Mapping[str, set[str]]:
    """Return the names of the backends and deletion handlers that the database knows, by kind."""
    found: dict[str, set[str]] = defaultdict(set)
    for kind, name in connection.execute(_FIND).fetchall():
        found[kind].add(name)
    return found
