"""The deletion handlers of the app: systems that must delete a person's data when the service does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flask import Flask

from ctms.current import extension
from ctms.database.pool import Connection
from ctms.hooks.plugin import Registered
from ctms.hooks.receivers import DeletionHandler
from ctms.outbox.lanes import HANDLER, Lane, lanes_of, notify


class DeletionHandlers:
    """The registered deletion handlers."""

    def __init__(self, registered: Sequence[Registered[DeletionHandler]]) -> None:
        self.by_name = {one.value.name: one.value for one in registered}
        self.names = sorted(self.by_name)
        self._lanes = {name: lanes_of(HANDLER, handler) for name, handler in self.by_name.items()}

    def lanes(self, names: Iterable[str] | None = None) -> list[Lane]:
        """Return the lanes of all handlers, or of the named ones; an unregistered handler has none."""
        return [lane for name in (self.names if names is None else names) for lane in self._lanes.get(name, ())]

    def notify(self, connection: Connection, names: Iterable[str] | None = None) -> None:
        """Notify the lanes of all handlers, or of the named ones, that tasks are waiting."""
        notify(connection, self.lanes(names))


def init_deletion_handlers(app: Flask, registered: Sequence[Registered[DeletionHandler]]) -> None:
    """Register the deletion handlers with the app."""
    app.extensions["ctms.erasure"] = DeletionHandlers(registered)


def deletion_handlers() -> DeletionHandlers:
    """Return the deletion handlers of the current app."""
    found: DeletionHandlers = extension("ctms.erasure")
    return found
