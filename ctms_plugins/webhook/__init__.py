"""Signed messages about contacts (Standard Webhooks), sent to your URL; disabled without a URL.

Without a URL nothing else of the package is imported: `requests` takes long to import.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import marshmallow as ma

from ctms.plugins import Backend, DeletionHandler, HealthCheck, RegistrationError, hookimpl, setting

if TYPE_CHECKING:
    from ctms_plugins.webhook.client import WebhookClient


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ma.ValidationError("must be a URL as in https://hooks.example.com/ctms, without a user in it")


def _check_secrets(secrets: list[str]) -> None:
    for secret in secrets:
        try:
            size = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
        except ValueError:
            size = 0
        if not 24 <= size <= 64:
            raise ma.ValidationError("must be secrets as in whsec_…, Base64 of 24 to 64 bytes, separated by commas")


@dataclass(frozen=True)
class Settings:
    """The settings of the plugin `webhook`."""

    url: str | None = setting(
        "URL",
        "URL that receives changes and deletions of contacts. If unset, none are sent.",
        default=None,
        check=_check_url,
    )
    erasure_url: str | None = setting(
        "ERASURE_URL", "URL that receives erasures. If unset, none are sent.", default=None, check=_check_url
    )
    verify_url: str | None = setting(
        "VERIFY_URL", "URL that verifies erasures. If unset, none are verified.", default=None, check=_check_url
    )
    verify_after: float = setting(
        "VERIFY_AFTER_IN_SECONDS", "Delay before an erasure is verified, in seconds.", default=0.0
    )
    secrets: list[str] = setting(  # noqa: RUF009  it is a field
        "SECRETS",
        "Comma-separated list of signing secrets; during a rotation, the new and the old one.",
        default=list,
        secret=True,
        check=_check_secrets,
    )
    document: bool = setting("DOCUMENT", "Whether messages contain the whole contact, not only its id.", default=False)
    allow_private: bool = setting("ALLOW_PRIVATE", "Whether to allow private addresses and plain http.", default=False)
    ca_file: Path | None = setting(  # noqa: RUF009
        "CA_FILE",
        "File of trusted certificate authorities for https (PEM). If unset, the default ones.",
        default=None,
    )
    timeout: float = setting("TIMEOUT_IN_SECONDS", "Timeout of a request, in seconds.", default=10.0)
    concurrency: int = setting("CONCURRENCY", "Maximum number of concurrent messages about contacts.", default=4)


def _client(settings: Settings, *urls: str) -> WebhookClient:
    from ctms_plugins.webhook.client import WebhookClient  # noqa: PLC0415

    if not settings.secrets:
        raise RegistrationError("messages are signed: set CTMS_PLUGIN_WEBHOOK_SECRETS")
    if not settings.allow_private and any(urlsplit(url).scheme != "https" for url in urls):
        raise RegistrationError("the URL of a webhook must be https, unless CTMS_PLUGIN_WEBHOOK_ALLOW_PRIVATE is true")
    return WebhookClient(
        settings.secrets, allow_private=settings.allow_private, timeout=settings.timeout, ca_file=settings.ca_file
    )


@hookimpl
def ctms_backends(settings: Settings) -> Iterator[Backend]:
    """Declare the backend if a URL is set. Each message, and so each call, is about one contact."""
    if settings.url:
        from ctms_plugins.webhook.backend import ChangeMessages  # noqa: PLC0415

        yield Backend(
            name="webhook",
            implementation=ChangeMessages(_client(settings, settings.url), settings.url, document=settings.document),
            max_batch=1,
            concurrency=settings.concurrency,
            timeout=3 * settings.timeout,
            description=f"Signed messages to {urlsplit(settings.url).hostname}",
        )


@hookimpl
def ctms_deletion_handlers(settings: Settings) -> Iterator[DeletionHandler]:
    """Declare the deletion handler if a URL is set."""
    if settings.verify_url and not settings.erasure_url:
        raise RegistrationError("nothing to verify: set CTMS_PLUGIN_WEBHOOK_ERASURE_URL too")
    if settings.erasure_url is None:
        return
    from ctms_plugins.webhook.erasure import ErasureMessages, VerifiedErasureMessages  # noqa: PLC0415

    if settings.verify_url is None:
        erasures = ErasureMessages(_client(settings, settings.erasure_url), settings.erasure_url)
    else:
        client = _client(settings, settings.erasure_url, settings.verify_url)
        erasures = VerifiedErasureMessages(client, settings.erasure_url, settings.verify_url)
    yield DeletionHandler(
        name="webhook",
        implementation=erasures,
        verify_after=settings.verify_after,
        timeout=3 * settings.timeout,
        description=f"Signed messages to {urlsplit(settings.erasure_url).hostname}",
    )


@hookimpl
def ctms_health_checks(settings: Settings) -> Iterator[HealthCheck]:
    """Declare the check of the CA file: without it no message is sent, but everything else keeps working."""
    path = settings.ca_file
    if path is not None and (settings.url or settings.erasure_url):
        yield HealthCheck(name="webhook", check=lambda: _problem(path))


def _problem(path: Path) -> str | None:
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return f"the file of CTMS_PLUGIN_WEBHOOK_CA_FILE cannot be read ({error.strerror}): no message is sent"
