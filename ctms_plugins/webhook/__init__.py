"""Signed messages about contacts to a URL of yours, as Standard Webhooks defines them; off without a URL."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import marshmallow as ma

from ctms.plugins import Backend, DeletionHandler, HealthCheck, RegistrationError, hookimpl, setting
from ctms_plugins.webhook.backend import Changes
from ctms_plugins.webhook.client import Client
from ctms_plugins.webhook.erasure import Erasures, VerifiedErasures


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
    """Where messages go, and what is in them."""

    url: str | None = setting(
        "URL",
        "Where is posted that a contact has changed or is deleted. Unset: nowhere.",
        default=None,
        check=_check_url,
    )
    erasure_url: str | None = setting(
        "ERASURE_URL", "Where is posted who is to be forgotten. Unset: nowhere.", default=None, check=_check_url
    )
    verify_url: str | None = setting(
        "VERIFY_URL", "Where is asked whether they are. Unset: nobody is asked.", default=None, check=_check_url
    )
    verify_after: float = setting("VERIFY_AFTER_IN_SECONDS", "How long after an erasure is asked.", default=0.0)
    secrets: list[str] = setting(  # noqa: RUF009  it is a field
        "SECRETS",
        "The secrets that sign, separated by commas: a new one beside the old while you rotate.",
        default=list,
        secret=True,
        check=_check_secrets,
    )
    document: bool = setting("DOCUMENT", "Sends the whole contact, not only its id.", default=False)
    allow_private: bool = setting(
        "ALLOW_PRIVATE", "Allows addresses that are not public, and plain http.", default=False
    )
    ca_file: Path | None = setting(  # noqa: RUF009
        "CA_FILE",
        "The authorities that https is held to (PEM). Unset: the usual ones.",
        default=None,
    )
    timeout: float = setting("TIMEOUT_IN_SECONDS", "How long an answer may take.", default=10.0)
    concurrency: int = setting("CONCURRENCY", "Messages about contacts under way at once.", default=4)


def _client(settings: Settings, *urls: str) -> Client:
    if not settings.secrets:
        raise RegistrationError("messages are signed: set CTMS_PLUGIN_WEBHOOK_SECRETS")
    if not settings.allow_private and any(urlsplit(url).scheme != "https" for url in urls):
        raise RegistrationError("the URL of a webhook is https, unless CTMS_PLUGIN_WEBHOOK_ALLOW_PRIVATE is true")
    return Client(
        settings.secrets, allow_private=settings.allow_private, timeout=settings.timeout, ca_file=settings.ca_file
    )


@hookimpl
def ctms_backends(settings: Settings) -> Iterator[Backend]:
    """Declare the backend, where there is a URL. A message is about one contact, and so is a call."""
    if settings.url:
        yield Backend(
            name="webhook",
            implementation=Changes(_client(settings, settings.url), settings.url, document=settings.document),
            max_batch=1,
            concurrency=settings.concurrency,
            timeout=3 * settings.timeout,
            description=f"Signed messages to {urlsplit(settings.url).hostname}",
        )


@hookimpl
def ctms_deletion_handlers(settings: Settings) -> Iterator[DeletionHandler]:
    """Declare the deletion handler, where there is a URL."""
    if settings.verify_url and not settings.erasure_url:
        raise RegistrationError("nothing to verify: set CTMS_PLUGIN_WEBHOOK_ERASURE_URL, too")
    if settings.erasure_url is None:
        return
    if settings.verify_url is None:
        erasures = Erasures(_client(settings, settings.erasure_url), settings.erasure_url)
    else:
        client = _client(settings, settings.erasure_url, settings.verify_url)
        erasures = VerifiedErasures(client, settings.erasure_url, settings.verify_url)
    yield DeletionHandler(
        name="webhook",
        implementation=erasures,
        verify_after=settings.verify_after,
        timeout=3 * settings.timeout,
        description=f"Signed messages to {urlsplit(settings.erasure_url).hostname}",
    )


@hookimpl
def ctms_health_checks(settings: Settings) -> Iterator[HealthCheck]:
    """Declare the check of the authorities' file: without it no message is sent, and all else goes on."""
    path = settings.ca_file
    if path is not None and (settings.url or settings.erasure_url):
        yield HealthCheck(name="webhook", check=lambda: _problem(path))


def _problem(path: Path) -> str | None:
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return f"the file of CTMS_PLUGIN_WEBHOOK_CA_FILE cannot be read ({error.strerror}): no message is sent"
