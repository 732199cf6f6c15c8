"""Client secrets: made, hashed (argon2id) and checked, in the same time whether the client exists or not."""

from __future__ import annotations

import secrets
from functools import cache
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# argon2-cffi's defaults are RFC 9106's second recommended set: 64 MiB, three passes, four lanes.
_hasher = PasswordHasher()
# Each check takes 64 MiB and a core: more at once would only make all of them slower, and the process larger.
_room = BoundedSemaphore(2)


def make_secret() -> str:
    """Return a new secret: `secret_` and 32 random bytes in URL-safe base64."""
    return f"secret_{secrets.token_urlsafe(32)}"


def hash_secret(secret: str) -> str:
    """Return the argon2id hash of a secret, as it is stored."""
    return _hasher.hash(secret)


def secret_matches(hashed: str | None, secret: str) -> bool:
    """Check a secret. Without a hash the answer is no, after as long a time as with one."""
    with _room:
        try:
            return _hasher.verify(hashed or _nobodys_hash(), secret) and hashed is not None
        except (VerificationError, InvalidHashError):
            return False


@cache
def _nobodys_hash() -> str:
    return hash_secret(make_secret())
