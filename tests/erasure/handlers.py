"""A plugin with deletion handlers, for tests of their tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ctms.plugins import DeletionHandler, Identities, hookimpl

CRM = "crm"
SHOP = "shop"


class Erases:
    """A deletion handler that reports success."""

    def erase(self, identities: Sequence[Identities]) -> None:
        """Report these as deleted."""


class Handlers:
    """A plugin with two deletion handlers."""

    @hookimpl
    def ctms_deletion_handlers(self) -> Iterator[DeletionHandler]:
        """Yield two handlers, not sorted by name."""
        yield DeletionHandler(name=SHOP, implementation=Erases())
        yield DeletionHandler(name=CRM, implementation=Erases())
