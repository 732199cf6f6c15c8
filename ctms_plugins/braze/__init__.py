"""Mirrors contacts to Braze; off without a URL and a key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import marshmallow as ma

from ctms.plugins import Backend, RegistrationError, hookimpl, setting
from ctms_plugins.braze.backend import MOST_IN_A_CALL, Profiles
from ctms_plugins.braze.client import Client


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
        raise ma.ValidationError("must be the REST endpoint of the workspace, as in https://rest.iad-01.braze.com")


def _check_batch(size: int) -> None:
    if not 1 <= size <= MOST_IN_A_CALL:
        raise ma.ValidationError(f"must be from 1 to {MOST_IN_A_CALL}")


@dataclass(frozen=True)
class Settings:
    """Which workspace, and how."""

    url: str | None = setting(
        "URL", "The REST endpoint of the workspace. Unset: nothing is mirrored.", default=None, check=_check_url
    )
    key: str = setting(
        "KEY", "A REST API key that may users.track, users.delete and users.export.ids.", default="", secret=True
    )
    resubscribe: bool = setting(
        "RESUBSCRIBE",
        "Makes who has not opted out here subscribed there, also who has unsubscribed there.",
        default=False,
        read="bool",
    )
    batch: int = setting(
        "BATCH", "Contacts in one call: 50 for some plans.", default=MOST_IN_A_CALL, read="int", check=_check_batch
    )
    concurrency: int = setting("CONCURRENCY", "Calls under way at once.", default=2, read="int")
    timeout: float = setting("TIMEOUT_IN_SECONDS", "How long an answer may take.", default=20.0, read="float")


@hookimpl
def ctms_backends(settings: Settings) -> Iterator[Backend]:
    """Declare the backend, where there are a URL and a key."""
    if not settings.url and not settings.key:
        return
    if not settings.url or not settings.key:
        raise RegistrationError("set both CTMS_PLUGIN_BRAZE_URL and CTMS_PLUGIN_BRAZE_KEY, or neither")
    yield Backend(
        name="braze",
        implementation=Profiles(Client(settings.url, settings.key, settings.timeout), resubscribe=settings.resubscribe),
        max_batch=settings.batch,
        concurrency=settings.concurrency,
        timeout=4 * settings.timeout,  # one call with attributes, two that delete
        description=f"Profiles of {urlsplit(settings.url).hostname}",
    )
