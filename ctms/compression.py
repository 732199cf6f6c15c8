"""Compressed responses (RFC 9110, 8.4), for clients that ask for them."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from flask import Response
from werkzeug.datastructures import Accept

from ctms.current import current_request

MIN_SIZE = 1_000
"""Bytes below which a page is not compressed: it fits into one packet."""

# The lowest levels: a page of 1,000 contacts (1.9 MB) takes zstd 1 ms and gzip 5 ms, and becomes 72 and 142 kB.
_LEVEL = 1


def _compress_zstd(data: bytes) -> bytes:
    import zstandard  # noqa: PLC0415  most clients of other routes never need it

    return zstandard.ZstdCompressor(level=_LEVEL).compress(data)


def _compress_gzip(data: bytes) -> bytes:
    return gzip.compress(data, _LEVEL, mtime=0)


_COMPRESS: dict[str, Callable[[bytes], bytes]] = {"zstd": _compress_zstd, "gzip": _compress_gzip}

GZIP = ("gzip",)
ALL = tuple(_COMPRESS)


def compress(response: Response, encodings: tuple[str, ...] = ALL, min_size: int = MIN_SIZE) -> Response:
    """Compress a response of at least `min_size` bytes with the first of the `encodings` that its client prefers.

    zstd is used only where it is named: `*` says that any encoding is acceptable, and few clients know this one.
    """
    response.vary.add("Accept-Encoding")
    data = response.get_data()
    if len(data) < min_size:
        return response
    accepted = current_request().accept_encodings
    best = max(encodings, key=lambda name: _quality(accepted, name))
    if _quality(accepted, best) > 0:  # 0: refused, or not mentioned
        response.set_data(_COMPRESS[best](data))
        response.content_encoding = best
    return response


def _quality(accepted: Accept, name: str) -> float:
    if name == "zstd":
        return next((quality for value, quality in accepted if value.lower() == name), 0.0)
    return accepted.quality(name)
