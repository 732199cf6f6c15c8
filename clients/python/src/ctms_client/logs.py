"""The log of `httpx`, which contains the URL of each request, without the personal data in ours."""

from __future__ import annotations

import logging

import httpx

_BASE_URLS: set[str] = set()
_ADDRESS_IN_PATH = ("@", "%40")


class _RedactUrls(logging.Filter):
    """Removes queries and addresses from the URLs of requests to CTMS."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_redact(one) if isinstance(one, httpx.URL) else one for one in record.args)
        return True


_FILTER = _RedactUrls()


def redact_urls(base_url: str) -> None:
    """Remove personal data from what `httpx` logs about requests to this service."""
    _BASE_URLS.add(str(httpx.URL(base_url)).rstrip("/"))
    logging.getLogger("httpx").addFilter(_FILTER)  # has no effect the second time


def _redact(url: httpx.URL) -> str:
    text = str(url)
    if not any(text.startswith(base) for base in _BASE_URLS):
        return text
    parts = text.partition("?")[0].split("/")
    return "/".join("…" if any(sign in part for sign in _ADDRESS_IN_PATH) else part for part in parts)
