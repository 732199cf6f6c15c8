"""The requests of the client and how their responses are read, without sending them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, Protocol, Self, TypedDict, TypeVar
from urllib.parse import quote

import attrs
import httpx

from ctms_client.errors import InvalidResponseError, error_of
from ctms_client.generated import models
from ctms_client.retries import REPEATABLE

T = TypeVar("T")


class Model(Protocol):
    """A generated model."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        ...


Body = Model | Mapping[str, Any]
"""A body: a generated model, or a JSON object, which the service validates."""


@attrs.define
class Contact(models.Contact):
    """A contact. `etag` identifies its state: pass it as `if_match` to write only if the contact has not changed."""

    etag: str | None = attrs.field(init=False, default=None)

    @classmethod
    def from_response(cls, response: httpx.Response) -> Self:
        """Return the contact in a response."""
        contact = cls.from_dict(response.json())
        contact.etag = response.headers.get("ETag")
        return contact


class Identities(TypedDict, total=False):
    """The identities by which contacts are found."""

    email_id: uuid.UUID | str
    primary_email: str
    basket_token: uuid.UUID | str
    sfdc_id: str
    mofo_contact_id: str
    mofo_email_id: str
    amo_user_id: str
    fxa_id: str
    fxa_primary_email: str


@dataclass(frozen=True)
class Request(Generic[T]):
    """A request and how its response is read. `repeatable` overrides what the method says about retries."""

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    params: Mapping[str, str] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for `httpx`."""
        headers = dict(self.headers)
        if self.content is not None:
            headers["Content-Type"] = "application/json"
        extensions = {} if self.repeatable is None else {REPEATABLE: self.repeatable}
        return {
            "method": self.method,
            "url": self.path,
            "params": self.params,
            "content": self.content,
            "headers": headers,
            "extensions": extensions,
        }

    def result(self, response: httpx.Response) -> T:
        """Return what the response contains. Raises `ResponseError` or `InvalidResponseError`."""
        if not response.is_success:
            raise error_of(response)
        try:
            return self.parse(response)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidResponseError(f"unexpected response with status {response.status_code}") from error


def get(email_id: uuid.UUID | str) -> Request[Contact]:
    """Return the request that reads a contact."""
    return Request("GET", _path(email_id), Contact.from_response)


def find(identities: Mapping[str, Any]) -> Request[list[models.ListedContact]]:
    """Return the request that finds contacts. Raises `TypeError` for an unknown identity, which CTMS would ignore."""
    unknown = sorted(set(identities) - set(Identities.__annotations__))
    if unknown:
        raise TypeError(f"no identities: {', '.join(unknown)}")

    def parse(response: httpx.Response) -> list[models.ListedContact]:
        return [models.ListedContact.from_dict(one) for one in response.json()]

    return Request("GET", "/ctms", parse, params={name: str(value) for name, value in identities.items()})


def create(contact: Body) -> Request[Contact]:
    """Return the request that creates a contact.

    The contact gets its id here unless it has one: the request then has the same effect when it is repeated.
    """
    body = json_of(contact)
    email = body.get("email")
    if isinstance(email, Mapping) and email.get("email_id") is None:
        body = {**body, "email": {**email, "email_id": str(uuid.uuid4())}}
    return Request("POST", "/ctms", Contact.from_response, content=encode(body), repeatable=True)


def replace(email_id: uuid.UUID | str, contact: Body, if_match: str | None) -> Request[Contact]:
    """Return the request that creates or replaces a contact."""
    headers = _conditional(if_match)
    return Request("PUT", _path(email_id), Contact.from_response, content=encode(json_of(contact)), headers=headers)


def upsert(primary_email: str, contact: Body, if_match: str | None) -> Request[Contact]:
    """Return the request that creates or replaces the contact with an address."""
    return Request(
        "PUT",
        "/ctms",
        Contact.from_response,
        params={"primary_email": primary_email},
        content=encode(json_of(contact)),
        headers=_conditional(if_match),
    )


def update(email_id: uuid.UUID | str, patch: Body, if_match: str | None) -> Request[Contact]:
    """Return the request that changes a contact partially."""
    headers = _conditional(if_match)
    return Request("PATCH", _path(email_id), Contact.from_response, content=encode(json_of(patch)), headers=headers)


def delete(primary_email: str, if_match: str | None) -> Request[list[models.Identity]]:
    """Return the request that deletes all data about an address."""

    def parse(response: httpx.Response) -> list[models.Identity]:
        return [models.Identity.from_dict(one) for one in response.json()]

    return Request("DELETE", _path(primary_email), parse, headers=_conditional(if_match))


def json_of(body: Body) -> dict[str, Any]:
    """Return the JSON object of a model or a mapping."""
    return dict(body) if isinstance(body, Mapping) else body.to_dict()


def encode(body: Any) -> bytes:
    """Return JSON. UUIDs, dates and times become text."""
    return json.dumps(body, default=_text, ensure_ascii=False, separators=(",", ":")).encode()


def _text(value: object) -> str:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, date):  # or a time: `datetime` is a `date`
        return value.isoformat()
    raise TypeError(f"no JSON: {type(value).__name__}")


def _path(last: uuid.UUID | str) -> str:
    return f"/ctms/{quote(str(last), safe='')}"


def _conditional(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": if_match}
