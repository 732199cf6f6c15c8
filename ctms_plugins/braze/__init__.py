"""A backend and deletion handler for Braze; disabled without a URL and a key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import marshmallow as ma

from ctms.plugins import Backend, DeletionHandler, RegistrationError, hookimpl, setting
from ctms_plugins.braze.backend import MAX_CONTACTS_PER_CALL, Profiles
from ctms_plugins.braze.calls import MAX_IDS
from ctms_plugins.braze.client import BrazeClient
from ctms_plugins.braze.erasure import MAX_ROUNDS, ProfileErasures


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise ma.ValidationError("must be the REST endpoint of the workspace, as in https://rest.iad-01.braze.com")


def _check_batch(size: int) -> None:
    if not 1 <= size <= MAX_CONTACTS_PER_CALL:
        raise ma.ValidationError(f"must be from 1 to {MAX_CONTACTS_PER_CALL}")


@dataclass(frozen=True)
class Settings:
    """The settings of the plugin `braze`."""

    url: str | None = setting(
        "URL", "REST endpoint of the workspace. If unset, nothing is sent.", default=None, check=_check_url
    )
    key: str = setting(
        "KEY",
        "REST API key with the permissions users.track, users.delete and users.export.ids.",
        default="",
        secret=True,
    )
    resubscribe: bool = setting(
        "RESUBSCRIBE",
        "Whether to subscribe all contacts in Braze that have not opted out here, even if they unsubscribed there.",
        default=False,
    )
    batch: int = setting(
        "BATCH",
        "Maximum number of contacts per call; 50 on some plans.",
        default=MAX_CONTACTS_PER_CALL,
        check=_check_batch,
    )
    verify_after: float = setting(
        "VERIFY_AFTER_IN_SECONDS",
        "Delay before an erasure is verified, in seconds, since Braze deletes profiles asynchronously.",
        default=3600.0,
    )
    concurrency: int = setting("CONCURRENCY", "Maximum number of concurrent calls.", default=2)
    timeout: float = setting("TIMEOUT_IN_SECONDS", "Timeout of a request, in seconds.", default=20.0)


def _client(settings: Settings) -> BrazeClient | None:
    if not settings.url and not settings.key:
        return None
    if not settings.url or not settings.key:
        raise RegistrationError("set both CTMS_PLUGIN_BRAZE_URL and CTMS_PLUGIN_BRAZE_KEY, or neither")
    return BrazeClient(settings.url, settings.key, settings.timeout)


@hookimpl
def ctms_backends(settings: Settings) -> Iterator[Backend]:
    """Declare the backend if a URL and a key are set."""
    client = _client(settings)
    if client is not None:
        yield Backend(
            name="braze",
            implementation=Profiles(client, resubscribe=settings.resubscribe),
            max_batch=settings.batch,
            concurrency=settings.concurrency,
            timeout=4 * settings.timeout,  # one call with attributes, two that delete
            description=f"Profiles of {urlsplit(settings.url or '').hostname}",
        )


@hookimpl
def ctms_deletion_handlers(settings: Settings) -> Iterator[DeletionHandler]:
    """Declare the deletion handler if a URL and a key are set."""
    client = _client(settings)
    if client is not None:
        yield DeletionHandler(
            name="braze",
            implementation=ProfileErasures(client, patience=2 * settings.timeout),
            max_batch=MAX_IDS,
            verify_after=settings.verify_after,
            timeout=(MAX_ROUNDS + 4) * settings.timeout,  # the rounds, then exports
            description=f"All profiles of {urlsplit(settings.url or '').hostname} with an address",
        )
