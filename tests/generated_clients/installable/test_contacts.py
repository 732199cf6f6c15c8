"""The operations on single contacts, against the served app."""

from __future__ import annotations

import inspect
from typing import Any
from uuid import UUID, uuid4

import pytest
from ctms_client import (
    AsyncClient,
    Client,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PreconditionFailedError,
    async_client,
    client,
    models,
)
from ctms_client.generated.api.contacts import find_contacts
from ctms_client.generated.api.merges import merge_contact
from ctms_client.generated.api.waitlists import list_waitlists
from ctms_client.operations import Identities

from tests.serving import Served


@pytest.fixture
def address() -> str:
    return f"{uuid4().hex[:20]}@example.com"


def test_the_life_of_a_contact(ctms: Any, address: str) -> None:
    created = ctms.contacts.create({"email": {"primary_email": address}, "newsletters": [{"name": "weekly"}]})
    email_id = created.email.email_id
    assert isinstance(email_id, UUID)

    assert ctms.contacts.get(email_id) == created
    patch = models.ContactPatch(newsletters=[models.NewsletterPatch(name="weekly", subscribed=False)])
    updated = ctms.contacts.update(email_id, patch, if_match=created.etag)
    assert [one.subscribed for one in updated.newsletters] == [False]
    assert updated.etag != created.etag

    replaced = ctms.contacts.replace(email_id, models.ContactPut.from_dict({**updated.to_dict(), "newsletters": []}))
    assert replaced.newsletters == []
    assert [one.email.email_id for one in ctms.contacts.find(primary_email=address.upper())] == [email_id]

    (deleted,) = ctms.contacts.delete(address)
    assert (deleted.email_id, deleted.primary_email) == (email_id, address)
    with pytest.raises(NotFoundError):
        ctms.contacts.get(email_id)
    assert ctms.contacts.find(primary_email=address) == []


def test_an_id_of_the_caller_is_kept(ctms: Any, address: str) -> None:
    email_id = uuid4()

    body = {"email": {"primary_email": address, "email_id": email_id}}

    assert ctms.contacts.create(body).email.email_id == email_id
    assert ctms.contacts.create(body).email.email_id == email_id  # the same contact again
    assert body == {"email": {"primary_email": address, "email_id": email_id}}


def test_a_conflict(ctms: Any, address: str) -> None:
    body = models.ContactInput(email=models.EmailInput(primary_email=address))
    ctms.contacts.create(body)

    with pytest.raises(ConflictError, match="Contact already exists") as raised:
        ctms.contacts.create(body)

    assert raised.value.field == "primary_email"


def test_a_contact_that_has_changed(ctms: Any, address: str) -> None:
    contact = ctms.contacts.create({"email": {"primary_email": address}})
    email_id = contact.email.email_id
    ctms.contacts.update(email_id, {"email": {"first_name": "Ada"}})

    with pytest.raises(PreconditionFailedError):
        ctms.contacts.update(email_id, {"email": {"first_name": "Grace"}}, if_match=contact.etag)
    with pytest.raises(PreconditionFailedError):
        ctms.contacts.replace(email_id, contact, if_match=contact.etag)
    with pytest.raises(PreconditionFailedError):
        ctms.contacts.delete(address, if_match=contact.etag)

    assert ctms.contacts.get(email_id).email.first_name == "Ada"


@pytest.mark.parametrize("local", ["a+b", "a/b", "a%2Fb", "a?b#c", "á", "a&b=c"])
def test_addresses_that_need_quoting(ctms: Any, local: str) -> None:
    address = f"{local}{uuid4().hex[:12]}@bücher.example"
    contact = ctms.contacts.create({"email": {"primary_email": address}})

    (found,) = ctms.contacts.find(primary_email=address)
    (deleted,) = ctms.contacts.delete(address)

    assert found.email.email_id == deleted.email_id == contact.email.email_id


def test_an_invalid_body_is_refused_by_the_service(ctms: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"body\.email"):
        ctms.contacts.create({})
    with pytest.raises(TypeError, match="no JSON: object"):
        ctms.contacts.create({"email": object()})


def test_an_unknown_identity_is_refused(ctms: Any) -> None:
    with pytest.raises(TypeError, match="no identities: email"):
        ctms.contacts.find(email="ada@example.com")
    with pytest.raises(InvalidRequestError, match="No identifiers provided"):
        ctms.contacts.find()


def test_the_identities_are_those_of_the_document() -> None:
    parameters = set(inspect.signature(find_contacts.sync).parameters)

    assert set(Identities.__annotations__) == parameters - {"client", "x_request_id"}


def test_a_merged_contact(service: Served, address: str) -> None:
    with Client(service.url, service.client_id, service.client_secret) as ctms:
        target, source = (
            ctms.contacts.create({"email": {"primary_email": f"{name}.{address}"}}).email.email_id for name in "ab"
        )
        merged = merge_contact.sync(target, client=ctms.generated, body=models.MergeRequest(from_=source))
        assert isinstance(merged, models.Merge)

        with pytest.raises(NotFoundError) as raised:
            ctms.contacts.get(source)

    assert raised.value.merged_into == str(target)


def test_other_operations_use_the_token(service: Served) -> None:
    with Client(service.url, service.client_id, service.client_secret) as ctms:
        found = list_waitlists.sync(client=ctms.generated)

    assert isinstance(found, list)
    assert "relay any" in {one.name for one in found}


@pytest.mark.anyio
async def test_other_operations_use_the_token_asynchronously(service: Served) -> None:
    async with AsyncClient(service.url, service.client_id, service.client_secret) as ctms:
        found = await list_waitlists.asyncio(client=ctms.generated)

    assert isinstance(found, list)


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (client.Contacts, async_client.AsyncContacts)])
def test_both_clients_have_the_same_methods(one: type, other: type) -> None:
    def methods(kind: type, close: str) -> dict[str, list[str]]:
        found = {
            name: list(inspect.signature(f).parameters) for name, f in inspect.getmembers(kind, inspect.isfunction)
        }
        return {name: found[name] for name in found if not name.startswith("_") and name != close}

    assert methods(one, "close") == methods(other, "aclose")
