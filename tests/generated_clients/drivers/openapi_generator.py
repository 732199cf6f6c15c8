"""A driver of the Python client by openapi-generator: each line of JSON in is a step, each line out is its result.

It runs where `ctms_client` is the generated package, and is type-checked there.
"""

from __future__ import annotations

import json
import sys
import traceback
from datetime import datetime
from typing import Any
from uuid import UUID

import ctms_client as ctms
from ctms_client.exceptions import ConflictException, NotFoundException, UnprocessableEntityException


class Driver:
    """The steps, each as a user of the generated client would write it."""

    def __init__(self, url: str) -> None:
        self.configuration = ctms.Configuration(host=url)
        self.contacts = ctms.ContactsApi(ctms.ApiClient(self.configuration))

    def log_in(self, client_id: str, client_secret: str) -> Any:
        api = ctms.TokenApi(ctms.ApiClient(self.configuration))
        token = api.create_token(client_id=client_id, client_secret=client_secret)
        self.configuration.access_token = token.access_token
        return token.token_type

    def create(self, address: str) -> Any:
        contact = ctms.ContactInput(
            email=ctms.EmailInput(primary_email=address, first_name="Ada", email_format="T"),
            fxa=ctms.FxaInput(fxa_id=f"fxa:{address}"),
            newsletters=[ctms.NewsletterInput(name="weekly", lang=None, source="https://example.com/")],
            waitlists=[
                ctms.WaitlistInput(name="vpn", fields={"geo": "ca", "platform": "linux"}),
                ctms.WaitlistInput(name="hub", fields={"seats": {"rows": [1, 2]}}, subscribed=True),
            ],
        )
        return str(self.contacts.create_contact(contact).email.email_id)

    def create_minimal(self, address: str) -> Any:
        contact = ctms.ContactInput(email=ctms.EmailInput(primary_email=address))
        return str(self.contacts.create_contact(contact).email.email_id)

    def read(self, email_id: str) -> Any:
        contact = self.contacts.read_contact(UUID(email_id))
        created: datetime = contact.email.create_timestamp
        return {
            "primary_email": contact.email.primary_email,
            "email_format": contact.email.email_format,
            "year": created.year,
            "fields": {waitlist.name: waitlist.fields for waitlist in contact.waitlists},
            "vpn": contact.vpn_waitlist.geo,
        }

    def list(self, start: str, fxa_id: str) -> Any:
        page = ctms.UpdatesApi(self.contacts.api_client).list_updates(datetime.fromisoformat(start))
        found = self.contacts.find_contacts(fxa_id=fxa_id)
        identities = ctms.IdentitiesApi(self.contacts.api_client).find_identities(fxa_id=fxa_id)
        rules = ctms.WaitlistsApi(self.contacts.api_client).list_waitlists()
        return {
            "updates": [str(contact.email.email_id) for contact in page.items],
            "found": [str(contact.email.email_id) for contact in found],
            "identities": [str(identity.email_id) for identity in identities],
            "waitlists": [rule.name for rule in rules],
        }

    def put_what_was_read(self, email_id: str) -> Any:
        read = self.contacts.read_contact(UUID(email_id))
        put = ctms.ContactPut.from_dict(read.to_dict())
        assert put is not None
        return self.contacts.put_contact(UUID(email_id), put).status

    def put_changed(self, email_id: str, first_name: str) -> Any:
        put = ctms.ContactPut.from_dict(self.contacts.read_contact(UUID(email_id)).to_dict())
        assert put is not None
        put.email.first_name = first_name
        assert put.newsletters
        put.newsletters[0].lang = "fr"
        return self.contacts.put_contact(UUID(email_id), put).email.first_name

    def patch(self, email_id: str, first_name: str) -> Any:
        patch = ctms.ContactPatch(email=ctms.EmailPatch(first_name=first_name))
        return self.contacts.patch_contact(UUID(email_id), patch).email.first_name

    def unsubscribe(self, email_id: str, waitlist: str) -> Any:
        waitlists = [ctms.WaitlistPatch(name=waitlist, subscribed=False)]
        patch = ctms.ContactPatch(waitlists=ctms.ContactPatchWaitlists(waitlists))
        return [entry.subscribed for entry in self.contacts.patch_contact(UUID(email_id), patch).waitlists]

    def unsubscribe_all(self, email_id: str) -> Any:
        patch = ctms.ContactPatch(
            newsletters=ctms.ContactPatchNewsletters("UNSUBSCRIBE"),
            waitlists=ctms.ContactPatchWaitlists("UNSUBSCRIBE"),
        )
        return self.contacts.patch_contact(UUID(email_id), patch).status

    def reset_account(self, email_id: str) -> Any:
        patch = ctms.ContactPatch(fxa=ctms.ContactPatchFxa("DELETE"))
        return self.contacts.patch_contact(UUID(email_id), patch).fxa.fxa_id

    def delete(self, address: str) -> Any:
        return [identity.primary_email for identity in self.contacts.delete_contact(address)]

    def fail_to_read(self, email_id: str) -> Any:
        try:
            self.contacts.read_contact(UUID(email_id))
        except NotFoundException as error:
            assert isinstance(error.data, ctms.Error)
            return [error.status, error.data.detail.actual_instance]

    def fail_to_create_twice(self, address: str) -> Any:
        contact = ctms.ContactInput(email=ctms.EmailInput(primary_email=address, first_name="Another"))
        try:
            self.contacts.create_contact(contact)
        except ConflictException as error:
            assert isinstance(error.data, ctms.ConflictError)
            return [error.status, error.data.detail, error.data.var_field]

    def fail_to_validate(self, address: str) -> Any:
        hub = ctms.WaitlistInput(name="vpn", fields={"more": 1})
        contact = ctms.ContactInput(email=ctms.EmailInput(primary_email=address), waitlists=[hub])
        try:
            self.contacts.create_contact(contact)
        except UnprocessableEntityException as error:
            assert isinstance(error.data, ctms.Error)
            problems = error.data.detail.actual_instance
            assert isinstance(problems, list)
            return [error.status, [problem.loc for problem in problems]]


def main(url: str) -> None:
    """Run the steps of standard input."""
    driver = Driver(url)
    for line in sys.stdin:
        step, arguments = json.loads(line)
        try:
            came = {"came": getattr(driver, step)(**arguments)}
        except Exception:  # noqa: BLE001  for the test to show
            came = {"failed": traceback.format_exc()}
        print(json.dumps(came), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
