"""Fingerprints of addresses: keyed HMACs, by which an address is found again and from which nobody gets it back.

Without the key a list of likely addresses could be tried against them; so it is kept apart from the database
(HMAC-SHA-256, RFC 2104).
"""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Callable
from functools import cached_property

from flask import Flask

from ctms.addresses import comparison_key, spellings
from ctms.current import extension
from ctms.database import erasure_key
from ctms.errors import OperatorError
from ctms.settings import Settings

KEY_MISSING = (
    "CTMS_ERASURE_KEY is not set: what is erased cannot be found by address afterwards, and no address can be forgotten"
    " or suppressed"
)
NO_KEY = "CTMS_ERASURE_KEY is not set: without it no address can be forgotten, suppressed or looked for"


class Fingerprints:
    """Makes fingerprints, where there is a key (`CTMS_ERASURE_KEY`)."""

    def __init__(self, key: Callable[[], str | None]) -> None:
        self._find_key = key

    @cached_property
    def _key(self) -> bytes | None:
        found = self._find_key()  # at the first fingerprint, not when the app is made: it may lie in a file
        return found.encode() if found else None

    @property
    def available(self) -> bool:
        """True when there is a key."""
        return self._key is not None

    def of(self, address: str) -> bytes | None:
        """Return the fingerprint of an address, the same in any spelling (32 bytes); None without a key."""
        # Not of the database's `lower`, which depends on its locale: a fingerprint outlives a change of the server.
        return None if self._key is None else self._digest(self._key, comparison_key(address))

    def all_of(self, address: str) -> list[bytes]:
        """Return the fingerprint of an address and those that earlier versions made of its spellings; [] without a key.

        Earlier versions made one of each spelling: NFC, without outer white space, in Python's lower case.
        """
        if self._key is None:
            return []
        earlier = (unicodedata.normalize("NFC", one.strip()).lower() for one in spellings(address))
        return [self._digest(self._key, text) for text in dict.fromkeys((comparison_key(address), *earlier))]

    def mark(self, purpose: str, text: str) -> bytes | None:
        """Return the fingerprint of something else than an address, exactly as it is; None without a key.

        Those of one purpose are not those of another.
        """
        # No address has a NUL in it, so none has this fingerprint.
        return None if self._key is None else hmac.digest(self._key, f"{purpose}\0{text}".encode(), "sha256")

    @staticmethod
    def _digest(key: bytes, text: str) -> bytes:
        return hmac.digest(key, text.encode(errors="surrogatepass"), "sha256")


def init_fingerprints(app: Flask, settings: Settings) -> None:
    """Give the app its fingerprints."""
    app.extensions["ctms.fingerprints"] = Fingerprints(lambda: erasure_key(settings))


def fingerprints() -> Fingerprints:
    """The fingerprints of the current app."""
    found: Fingerprints = extension("ctms.fingerprints")
    return found


def require_key() -> None:
    """Raise `OperatorError` unless there is a key."""
    if not fingerprints().available:
        raise OperatorError(NO_KEY)
