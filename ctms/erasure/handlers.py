"""The deletion handlers of the app: what must forget a person when the service does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flask import Flask

from ctms.current import extension
from ctms.hooks.plugin import Registered
from ctms.hooks.receivers import DeletionHandler
from ctms.outbox.lanes import HANDLER, Lane, lanes_of, wake
from ctms.pool import Connection


class Handlers:
    """The deletion handlers that are registered."""

    def __init__(self, registered: Sequence[Registered[DeletionHandler]]) -> None:
        self.by_name = {one.value.name: one.value for one in registered}
        self.names = sorted(self.by_name)
        self._lanes = {name: lanes_of(HANDLER, handler) for name, handler in self.by_name.items()}

    def lanes(self, names: Iterable[str] | None = None) -> list[Lane]:
        """Return the lanes of all handlers, or of those named; one that is not registered has none."""
        return [lane for name in (self.names if names is None else names) for lane in self._lanes.get(name, ())]

    def wake(self, connection: Connection, names: Iterable[str] | None = None) -> None:
        """Have what all handlers, or those named, have to do worked off soon."""
        wake(connection, self.lanes(names))


def init_erasure(app: Flask, registered: Sequence[Registered[DeletionHandler]]) -> None:
    """Give the app its deletion handlers."""
    app.extensions["ctms.erasure"] = Handlers(registered)


def handlers() -> Handlers:
    """The deletion handlers of the current app."""
    found: Handlers = extension("ctms.erasure")
    return found
