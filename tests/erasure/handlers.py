"""A plugin with deletion handlers, for tests of what is written down for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ctms.plugins import DeletionHandler, Identities, hookimpl

CRM = "crm"
SHOP = "shop"


class Erases:
    """Forgets, as it says."""

    def erase(self, identities: Sequence[Identities]) -> None:
        """Forget these."""


class Handlers:
    """The plugin."""

    @hookimpl
    def ctms_deletion_handlers(self) -> Iterator[DeletionHandler]:
        """Give two handlers, not in the order of their names."""
        yield DeletionHandler(name=SHOP, implementation=Erases())
        yield DeletionHandler(name=CRM, implementation=Erases())
