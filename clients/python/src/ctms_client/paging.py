"""What the service returns page by page, as iterators that can be continued later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from ctms_client.operations import Request

MAX_LIMIT = 1000


class Page(Protocol):
    """A page, as it is generated."""

    items: list[Any]


class FeedPage(Page, Protocol):
    """A page of a feed, as it is generated."""

    next_: str | None
    end: datetime


P = TypeVar("P", bound=Page)
F = TypeVar("F", bound=FeedPage)
I = TypeVar("I")  # noqa: E741


class Cursor(Protocol[P]):
    """A place in a list, and the request for the page there."""

    @property
    def position(self) -> str:
        """The place, as a text to be stored."""
        ...

    def request(self) -> Request[P]:
        """Return the request for the page."""
        ...

    def advance(self, page: P) -> bool:
        """Move behind the page; return whether there are more."""
        ...


class FeedCursor(Generic[F]):
    """A place in `/updates` or `/events`: the query of the next request."""

    def __init__(self, path: str, parse: Callable[[Mapping[str, Any]], F], position: str) -> None:
        self.position = position
        self._path = path
        self._parse = parse

    def request(self) -> Request[F]:
        """Return the request for the page."""

        def parse(response: httpx.Response) -> F:
            return self._parse(response.json())

        return Request("GET", f"{self._path}?{self.position}", parse)

    def advance(self, page: F) -> bool:
        """Move behind the page: after the last one, to the end of the period."""
        if page.next_ is not None:
            self.position = urlsplit(page.next_).query
            return True
        kept = {name: value for name, value in parse_qsl(self.position) if name not in {"start", "end", "after"}}
        self.position = urlencode({"start": page.end.isoformat(), **kept})
        return False


class Paged(Generic[P, I]):
    """Items that are read page by page while it is iterated.

    A feed yields what has changed since `position`, and ends at the newest change. Iterate again for later changes.
    """

    def __init__(self, send: Callable[[Request[P]], P], cursor: Cursor[P]) -> None:
        self._send = send
        self._cursor = cursor

    @property
    def position(self) -> str:
        """Where to continue, as a text to be stored.

        It moves when the iterator is asked for what follows a page. So store it after the items before it have been
        processed: none is missed, and at most one page is repeated.
        """
        return self._cursor.position

    def pages(self) -> Iterator[P]:
        """Yield the pages, which have `items` and further members."""
        has_more = True
        while has_more:
            page = self._send(self._cursor.request())
            yield page
            has_more = self._cursor.advance(page)

    def __iter__(self) -> Iterator[I]:
        for page in self.pages():
            yield from page.items


class AsyncPaged(Generic[P, I]):
    """The asynchronous form of `Paged`."""

    def __init__(self, send: Callable[[Request[P]], Awaitable[P]], cursor: Cursor[P]) -> None:
        self._send = send
        self._cursor = cursor

    @property
    def position(self) -> str:
        """Where to continue, as a text to be stored: see `Paged.position`."""
        return self._cursor.position

    def pages(self) -> AsyncIterator[P]:
        """Yield the pages, which have `items` and further members."""
        return _AsyncPages(self._send, self._cursor)

    def __aiter__(self) -> AsyncIterator[I]:
        return AsyncItems(self.pages())


# No asynchronous generators: one that is left early must be closed by its user.


class _AsyncPages(AsyncIterator[P]):
    def __init__(self, send: Callable[[Request[P]], Awaitable[P]], cursor: Cursor[P]) -> None:
        self._send = send
        self._cursor = cursor
        self._page: P | None = None
        self._has_more = True

    async def __anext__(self) -> P:
        if self._page is not None:
            self._has_more = self._cursor.advance(self._page)
            self._page = None
        if not self._has_more:
            raise StopAsyncIteration
        self._page = await self._send(self._cursor.request())
        return self._page


class AsyncItems(AsyncIterator[I]):
    """The items of pages."""

    def __init__(self, pages: AsyncIterator[Page]) -> None:
        self._pages = pages
        self._items: Iterator[I] = iter(())

    async def __anext__(self) -> I:
        while True:
            for item in self._items:
                return item
            self._items = iter((await anext(self._pages)).items)


def feed_start(since: datetime | str | None, position: str | None, options: Mapping[str, object]) -> str:
    """Return the first position of a feed. Raises `TypeError` unless either `since` or `position` is given."""
    if (since is None) == (position is None):
        raise TypeError("either since or position is required")
    if position is not None:
        return position
    start = since.isoformat() if isinstance(since, datetime) else since
    given = {name: value for name, value in options.items() if value is not None}
    return urlencode({"start": start, **{name: _text(value) for name, value in given.items()}})


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
