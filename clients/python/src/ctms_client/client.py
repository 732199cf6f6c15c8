"""The synchronous client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self, TypeVar, Unpack
from uuid import UUID

import httpx

from ctms_client import operations, searches
from ctms_client.batches import MAX_ITEMS, BatchOptions, batch_requests
from ctms_client.generated import AuthenticatedClient, models
from ctms_client.operations import Body, Contact, Identities, Request
from ctms_client.paging import MAX_LIMIT, FeedCursor, Paged, feed_start
from ctms_client.retries import Retries, RetryTransport
from ctms_client.searches import SearchCursor
from ctms_client.session import DEFAULT_TIMEOUT, Session, transport_error

T = TypeVar("T")


class Client:
    """A client of one service. It may be used by many threads at once.

    `url` is where the service is, `client_id` and `client_secret` are those of an API client. `transport` replaces the
    one of `httpx`, for example to use a proxy: `httpx.HTTPTransport(proxy=…)`. All methods raise exceptions of
    `ctms_client.errors`.

    Close it after use, or use it as a context manager. `contacts` has the operations on single contacts. `generated`
    calls all others: pass it to a function `sync` of `ctms_client.generated.api`.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: str,
        *,
        timeout: httpx.Timeout | float = DEFAULT_TIMEOUT,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        session = Session(url, client_id, client_secret, timeout)
        retrying = RetryTransport(transport or httpx.HTTPTransport(), retries or Retries())
        self._http = httpx.Client(transport=retrying, **session.arguments())
        self.contacts = Contacts(self)
        self.generated = AuthenticatedClient(session.url, token="").set_httpx_client(self._http)

    def send(self, request: Request[T]) -> T:
        """Send a request and return what the response contains."""
        try:
            response = self._http.request(**request.arguments())
        except httpx.TransportError as error:
            raise transport_error(request.method, error) from error
        return request.result(response)

    def updates(
        self,
        since: datetime | str | None = None,
        *,
        position: str | None = None,
        mofo_relevant: bool | None = None,
        deleted: bool | None = None,
        stale_ok: bool | None = None,
        limit: int = MAX_LIMIT,
    ) -> Paged[models.Updates, models.ListedContact]:
        """Return the contacts that have changed since then, oldest first.

        `position` continues where an earlier feed was, with its parameters. With `deleted`, its pages also list
        contacts that were deleted, or that are no longer `mofo_relevant`. With `stale_ok`, the service may read from a
        replica of its database; nothing is missed. Raises `GoneError` while it is iterated if deletions are no longer
        listed for that position.
        """
        options = {"limit": limit, "mofo_relevant": mofo_relevant, "deleted": deleted, "stale_ok": stale_ok}
        start = feed_start(since, position, options)
        return Paged(self.send, FeedCursor("/updates", models.Updates.from_dict, start))

    def events(
        self, since: datetime | str | None = None, *, position: str | None = None, limit: int = MAX_LIMIT
    ) -> Paged[models.Events, models.SubscriptionEvent]:
        """Return the events of subscriptions since then, oldest first. `position` continues an earlier feed."""
        start = feed_start(since, position, {"limit": limit})
        return Paged(self.send, FeedCursor("/events", models.Events.from_dict, start))

    def search(
        self,
        condition: models.Condition | Body,
        *,
        fields: Sequence[str] | None = None,
        limit: int = MAX_LIMIT,
        position: str = "",
    ) -> Paged[models.SearchPage, models.SparseContact]:
        """Return the contacts that match a condition, by id.

        With `fields`, such as `email.primary_email`, they have only these parts. `position` continues where an earlier
        search with the same condition was: it is empty before the first page and after the last one.
        """
        return Paged(self.send, SearchCursor(condition, fields, limit, position))

    def count(self, condition: models.Condition | Body) -> models.SearchCount:
        """Return the number of contacts that match a condition, an estimate unless it is `exact`."""
        return self.send(searches.count(condition))

    def batch(
        self,
        items: Iterable[models.BatchItem | Body],
        *,
        chunk: int = MAX_ITEMS,
        atomic: bool = False,
        key: str | None = None,
    ) -> Iterator[models.BatchItemResult]:
        """Create and update any number of contacts; yield the result of each item, by its `index` in `items`.

        Requests of up to `chunk` items are sent while the results are read, so read all of them. Each has an
        `Idempotency-Key`, so it is repeated safely. To continue after a crash, call this with the same items, `chunk`
        and `key` within 24 hours: what is stored already is not written again. Use a key that is hard to guess.

        With `atomic`, all are stored in one request, or `ConflictError` is raised, whose `body` has the `items` that
        cannot be stored. Raises `ValueError` if these are too many for one request.
        """
        options = BatchOptions(chunk=chunk, atomic=atomic, key=key)
        for request in batch_requests(items, options):
            yield from self.send(request)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Contacts:
    """The operations on single contacts."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, email_id: UUID | str) -> Contact:
        """Return a contact. Raises `NotFoundError` if there is none with this id."""
        return self._client.send(operations.get(email_id))

    def find(self, **identities: Unpack[Identities]) -> list[models.ListedContact]:
        """Return the contacts that match all identities."""
        return self._client.send(operations.find(identities))

    def create(self, contact: models.ContactInput | Body) -> Contact:
        """Create a contact. Raises `ConflictError` if another one has one of its identities."""
        return self._client.send(operations.create(contact))

    def replace(
        self, email_id: UUID | str, contact: models.ContactPut | Body, *, if_match: str | None = None
    ) -> Contact:
        """Create a contact, or replace all data of the contact with this id."""
        return self._client.send(operations.replace(email_id, contact, if_match))

    def upsert(
        self, primary_email: str, contact: models.ContactInput | Body, *, if_match: str | None = None
    ) -> Contact:
        """Create a contact, or replace all data of the contact with this address.

        To change only what is given, use `Client.batch`.
        """
        return self._client.send(operations.upsert(primary_email, contact, if_match))

    def update(
        self, email_id: UUID | str, patch: models.ContactPatch | Body, *, if_match: str | None = None
    ) -> Contact:
        """Change what the patch contains.

        With `if_match`, the `etag` of a contact, raises `PreconditionFailedError` if it has changed.
        """
        return self._client.send(operations.update(email_id, patch, if_match))

    def delete(self, primary_email: str, *, if_match: str | None = None) -> list[models.Identity]:
        """Delete all data about an address; return the identities of the deleted contacts.

        Raises `NotFoundError` if there is no such contact, also if an attempt whose response was lost has deleted it.
        """
        return self._client.send(operations.delete(primary_email, if_match))
