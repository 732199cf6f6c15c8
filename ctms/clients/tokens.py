"""Bearer tokens: JWTs signed with HS256, whose `sub` is `api_client:<client_id>` (RFC 7519)."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property, lru_cache, partial

import jwt
from flask import Flask

from ctms.current import extension
from ctms.database.generated_secrets import secret_key
from ctms.settings import Settings

_ALGORITHM = "HS256"
_SUBJECT = "api_client:"
_LINK_SUBJECT = "link:"
_CACHE_SIZE = 4096
_EXPIRED = "expired"


class InvalidToken(Exception):
    """The token is not one of ours, has expired (`expired`), or has claims that CTMS does not know."""

    @property
    def expired(self) -> bool:
        """True when the token was valid and has expired."""
        return self.args == (_EXPIRED,)


class Tokens:
    """Issues and verifies tokens. The first key signs; tokens of the `older` keys are still accepted."""

    def __init__(self, key: Callable[[], str], older: tuple[str, ...], lifetime: int) -> None:
        self.lifetime = lifetime
        self._key = key
        self._older = older
        # Clients send the same token many times: its signature is verified once. Failures are not cached.
        self._decode_once = lru_cache(_CACHE_SIZE)(self._decode)

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        return (self._key(), *self._older)  # lazily: the key may be in a file, and creating the app must not read it

    def issue(self, client_id: str) -> str:
        """Return a token for the client, valid for `lifetime` seconds."""
        claims = {"sub": f"{_SUBJECT}{client_id}", "exp": int(time.time()) + self.lifetime}
        return jwt.encode(claims, self._keys[0], algorithm=_ALGORITHM)

    def verify(self, token: str) -> str:
        """Return the client id that the token was issued to. Raises `InvalidToken`."""
        client_id, expires = self._decode_once(token)
        if expires <= time.time():
            raise InvalidToken(_EXPIRED)
        return client_id

    def sign_link(self, path: str, seconds: float) -> str:
        """Return a signature of the path that is valid for some seconds. It is not a token of a client."""
        claims = {"sub": f"{_LINK_SUBJECT}{path}", "exp": int(time.time() + seconds)}
        return jwt.encode(claims, self._keys[0], algorithm=_ALGORITHM)

    def is_link_signed(self, path: str, signature: str) -> bool:
        """Return whether the signature is valid for the path."""
        options = {"require": ["exp", "sub"]}
        for key in self._keys:
            try:
                claims = jwt.decode(signature, key, algorithms=[_ALGORITHM], options=options)  # type: ignore[arg-type]
            except jwt.InvalidTokenError:
                continue
            return bool(claims["sub"] == f"{_LINK_SUBJECT}{path}")
        return False

    def _decode(self, token: str) -> tuple[str, float]:
        for key in self._keys:
            try:
                claims = jwt.decode(token, key, algorithms=[_ALGORITHM], options={"require": ["exp", "sub"]})
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError as error:
                raise InvalidToken(_EXPIRED) from error
            except jwt.InvalidTokenError as error:
                raise InvalidToken("invalid") from error
            subject = claims["sub"]
            if not subject.startswith(_SUBJECT) or "\0" in subject:  # PostgreSQL accepts no NUL in text
                raise InvalidToken("subject")
            return subject.removeprefix(_SUBJECT), float(claims["exp"])
        raise InvalidToken("signature")


def init_tokens(app: Flask, settings: Settings) -> None:
    """Register the tokens with the app."""
    app.extensions["ctms.tokens"] = Tokens(
        partial(secret_key, settings), settings.secret_key_fallbacks, settings.token_expiration
    )


def tokens() -> Tokens:
    """Return the `Tokens` of the current app."""
    found: Tokens = extension("ctms.tokens")
    return found
