"""Batches: the requests for any number of items, and their results."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

import httpx

from ctms_client.generated import models
from ctms_client.operations import Body, Request, encode, json_of

MAX_ITEMS = 1000
MAX_BYTES = 8 * 1024 * 1024
"""Size of the items in a request, below the limit of the service."""

Results = list[models.BatchItemResult]


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Options of a batch, as `Client.batch` describes them."""

    chunk: int = MAX_ITEMS
    atomic: bool = False
    key: str | None = None


def batch_requests(items: Iterable[Body], options: BatchOptions) -> Iterator[Request[Results]]:
    """Yield a request for each chunk of the items.

    Raises `ValueError` if a chunk can have no item, or if `atomic` is given for more items than a request can have.
    """
    if not 1 <= options.chunk <= MAX_ITEMS:
        raise ValueError(f"chunk must be from 1 to {MAX_ITEMS}")
    chunks = _chunks(items, options.chunk)
    if options.atomic:
        first = [chunk for chunk, _ in zip(chunks, range(2), strict=False)]
        if len(first) > 1:
            raise ValueError(f"an atomic batch has at most {options.chunk} items and {MAX_BYTES} bytes")
        chunks = iter(first)
    return _requests(chunks, options)


def _requests(chunks: Iterator[list[bytes]], options: BatchOptions) -> Iterator[Request[Results]]:
    key = options.key or str(uuid.uuid4())
    offset = 0
    for number, chunk in enumerate(chunks):
        yield Request(
            "POST",
            "/ctms/batch",
            _parser(offset),
            params={"atomic": "true"} if options.atomic else None,
            content=b'{"items":[' + b",".join(chunk) + b"]}",
            headers={"Idempotency-Key": f"{key}-{number}"},
        )
        offset += len(chunk)


def _chunks(items: Iterable[Body], length: int) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    size = 0
    for item in items:
        encoded = encode(json_of(item))
        if chunk and (len(chunk) == length or size + len(encoded) > MAX_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(encoded)
        size += len(encoded) + 1
    if chunk:
        yield chunk


def _parser(offset: int) -> Callable[[httpx.Response], Results]:
    def parse(response: httpx.Response) -> Results:
        results = models.BatchResults.from_dict(response.json()).items
        for result in results:
            result.index += offset
            for error in result.errors:
                error.loc[2] = result.index  # body, items, index
        return results

    return parse


class AsyncResults(AsyncIterator[models.BatchItemResult]):
    """The results of requests that are sent one after the other."""

    def __init__(
        self, send: Callable[[Request[Results]], Awaitable[Results]], requests: Iterator[Request[Results]]
    ) -> None:
        self._send = send
        self._requests = requests
        self._results: Iterator[models.BatchItemResult] = iter(())

    async def __anext__(self) -> models.BatchItemResult:
        while True:
            for result in self._results:
                return result
            request = next(self._requests, None)
            if request is None:
                raise StopAsyncIteration
            self._results = iter(await self._send(request))
