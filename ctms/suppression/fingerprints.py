"""Fingerprints of addresses: keyed HMACs (HMAC-SHA-256, RFC 2104).

A fingerprint identifies an address but does not reveal it. The key is kept apart from the database: anybody with both
could test likely addresses against the fingerprints.
"""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Callable
from functools import cached_property, lru_cache

from flask import Flask

from ctms.addresses import CACHE_SIZE, comparison_key, spellings
from ctms.current import extension
from ctms.database.generated_secrets import erasure_key
from ctms.errors import OperatorError
from ctms.settings import Settings

KEY_MISSING = (
    "CTMS_ERASURE_KEY is not set: what is erased cannot be found by address afterwards, and no address can be forgotten"
    " or suppressed"
)
NO_KEY = "CTMS_ERASURE_KEY is not set: without it no address can be forgotten, suppressed or looked for"


class Fingerprints:
    """A fingerprint function with the app's key (`CTMS_ERASURE_KEY`), if it has one."""

    def __init__(self, key: Callable[[], str | None]) -> None:
        self._find_key = key

    @cached_property
    def _key(self) -> bytes | None:
        found = self._find_key()  # lazily: the key may be in a file, and creating the app must not read it
        return found.encode() if found else None

    @property
    def available(self) -> bool:
        """True when a key is set."""
        return self._key is not None

    def of(self, address: str) -> bytes | None:
        """Return the fingerprint of an address (32 bytes), the same for every spelling; None without a key."""
        # The database's `lower` depends on its locale, and a fingerprint must survive a change of the server.
        return None if self._key is None else self._digest(self._key, comparison_key(address))

    def all_of(self, address: str) -> list[bytes]:
        """Return the fingerprint of an address and those that earlier versions stored for it; [] without a key.

        Earlier versions had one for each spelling: NFC, without outer white space, in Python's lower case, except where
        that is another address, with a final sigma.
        """
        if self._key is None:
            return []
        spelt = spellings(address)
        if len(spelt) == 1 and address.isascii() and not address[:1].isspace() and not address[-1:].isspace():
            return [self._digest(self._key, address.lower())]  # most addresses: both forms are the same
        key = comparison_key(address)
        earlier = (unicodedata.normalize("NFC", one.strip()).lower() for one in spelt)
        texts = dict.fromkeys((key, *(text for text in earlier if comparison_key(text) == key)))
        return [self._digest(self._key, text) for text in texts]

    def of_text(self, purpose: str, text: str) -> bytes | None:
        """Return the fingerprint of any other text, compared exactly; None without a key.

        The same text has a different fingerprint for each purpose.
        """
        # No address contains a NUL, so no address has this fingerprint.
        return None if self._key is None else hmac.digest(self._key, f"{purpose}\0{text}".encode(), "sha256")

    @staticmethod
    @lru_cache(CACHE_SIZE)  # bulk work looks for an address under several aspects
    def _digest(key: bytes, text: str) -> bytes:
        return hmac.digest(key, text.encode(errors="surrogatepass"), "sha256")


def init_fingerprints(app: Flask, settings: Settings) -> None:
    """Register the fingerprints with the app."""
    app.extensions["ctms.fingerprints"] = Fingerprints(lambda: erasure_key(settings))


def fingerprints() -> Fingerprints:
    """Return the fingerprints of the current app."""
    found: Fingerprints = extension("ctms.fingerprints")
    return found


def require_key() -> None:
    """Raise `OperatorError` unless a key is set."""
    if not fingerprints().available:
        raise OperatorError(NO_KEY)
