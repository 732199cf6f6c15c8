"""Client secrets: generation, hashing (argon2id) and verification, which takes as long for unknown clients."""

from __future__ import annotations

import secrets
from functools import cache
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# argon2-cffi's defaults are RFC 9106's second recommended set: 64 MiB, three passes, four lanes.
_hasher = PasswordHasher()
# Each verification takes 64 MiB and a core: more at once would slow down all of them and enlarge the process.
_slots = BoundedSemaphore(2)


def generate_secret() -> str:
    """Return a new secret: `secret_` and 32 random bytes in URL-safe base64."""
    return f"secret_{secrets.token_urlsafe(32)}"


def hash_secret(secret: str) -> str:
    """Return the argon2id hash of a secret, for storage."""
    return _hasher.hash(secret)


def verify_secret(hashed: str | None, secret: str) -> bool:
    """Return whether the secret matches the hash. Without a hash, return False after the same time."""
    with _slots:
        try:
            return _hasher.verify(hashed or _dummy_hash(), secret) and hashed is not None
        except (VerificationError, InvalidHashError):
            return False


@cache
def _dummy_hash() -> str:
    return hash_secret(generate_secret())
