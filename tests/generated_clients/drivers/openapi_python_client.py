"""A driver of the client by openapi-python-client: each line of JSON in is a step, each line out is its result.

It runs where `ctms_client` is the generated package, and is type-checked there.
"""

from __future__ import annotations

import base64
import json
import sys
import traceback
from datetime import datetime
from typing import Any
from uuid import UUID

from ctms_client import AuthenticatedClient, models
from ctms_client.api.contacts import (
    create_contact,
    delete_contact,
    find_contacts,
    patch_contact,
    put_contact,
    read_contact,
)
from ctms_client.api.identities import find_identities
from ctms_client.api.token import create_token
from ctms_client.api.updates import list_updates
from ctms_client.api.waitlists import list_waitlists
from ctms_client.types import Unset


class Driver:
    """The steps, each as a user of the generated client would write it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = AuthenticatedClient(url, "")

    def log_in(self, client_id: str, client_secret: str) -> Any:
        basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        client = AuthenticatedClient(self.url, basic, prefix="Basic")
        token = create_token.sync(client=client, body=models.TokenRequest())
        assert isinstance(token, models.Token)
        self.client = AuthenticatedClient(self.url, token.access_token)
        return token.token_type

    def create(self, address: str) -> Any:
        email = models.EmailInput(primary_email=address, first_name="Ada", email_format="T")
        vpn, hub = models.WaitlistInputFields(), models.WaitlistInputFields()
        vpn["geo"], vpn["platform"] = "ca", "linux"
        hub["seats"] = {"rows": [1, 2]}
        contact = models.ContactInput(
            email=email,
            fxa=models.FxaInput(fxa_id=f"fxa:{address}"),
            newsletters=[models.NewsletterInput(name="weekly", lang=None, source="https://example.com/")],
            waitlists=[
                models.WaitlistInput(name="vpn", fields=vpn),
                models.WaitlistInput(name="hub", fields=hub, subscribed=True),
            ],
        )
        created = create_contact.sync(client=self.client, body=contact)
        assert isinstance(created, models.Contact)
        return str(created.email.email_id)

    def create_minimal(self, address: str) -> Any:
        body = models.ContactInput(email=models.EmailInput(primary_email=address))
        created = create_contact.sync(client=self.client, body=body)
        assert isinstance(created, models.Contact)
        return str(created.email.email_id)

    def read(self, email_id: str) -> Any:
        contact = self._read(email_id)
        created: datetime = contact.email.create_timestamp
        return {
            "primary_email": contact.email.primary_email,
            "email_format": contact.email.email_format,
            "year": created.year,
            "fields": {waitlist.name: waitlist.fields.to_dict() for waitlist in contact.waitlists},
            "vpn": contact.vpn_waitlist.geo,
        }

    def list(self, start: str, fxa_id: str) -> Any:
        page = list_updates.sync(client=self.client, start=datetime.fromisoformat(start))
        assert isinstance(page, models.Updates)
        found = find_contacts.sync(client=self.client, fxa_id=fxa_id)
        identities = find_identities.sync(client=self.client, fxa_id=fxa_id)
        rules = list_waitlists.sync(client=self.client)
        assert isinstance(found, list)
        assert isinstance(identities, list)
        assert isinstance(rules, list)
        return {
            "updates": [str(contact.email.email_id) for contact in page.items],
            "found": [str(contact.email.email_id) for contact in found],
            "identities": [str(identity.email_id) for identity in identities],
            "waitlists": [rule.name for rule in rules],
        }

    def put_what_was_read(self, email_id: str) -> Any:
        return self._put(email_id, models.ContactPut.from_dict(self._read(email_id).to_dict())).status.value

    def put_changed(self, email_id: str, first_name: str) -> Any:
        put = models.ContactPut.from_dict(self._read(email_id).to_dict())
        put.email.first_name = first_name
        assert isinstance(put.newsletters, list)
        put.newsletters[0].lang = "fr"
        return self._put(email_id, put).email.first_name

    def patch(self, email_id: str, first_name: str) -> Any:
        patch = models.ContactPatch(email=models.EmailPatch(first_name=first_name))
        return self._patch(email_id, patch).email.first_name

    def unsubscribe(self, email_id: str, waitlist: str) -> Any:
        patch = models.ContactPatch(waitlists=[models.WaitlistPatch(name=waitlist, subscribed=False)])
        return [entry.subscribed for entry in self._patch(email_id, patch).waitlists]

    def unsubscribe_all(self, email_id: str) -> Any:
        patch = models.ContactPatch(newsletters="UNSUBSCRIBE", waitlists="UNSUBSCRIBE")
        return self._patch(email_id, patch).status.value

    def reset_account(self, email_id: str) -> Any:
        return self._patch(email_id, models.ContactPatch(fxa="DELETE")).fxa.fxa_id

    def delete(self, address: str) -> Any:
        deleted = delete_contact.sync(address, client=self.client)
        assert isinstance(deleted, list)
        return [identity.primary_email for identity in deleted]

    def fail_to_read(self, email_id: str) -> Any:
        response = read_contact.sync_detailed(UUID(email_id), client=self.client)
        assert isinstance(response.parsed, models.Error)
        return [response.status_code, response.parsed.detail]

    def fail_to_create_twice(self, address: str) -> Any:
        body = models.ContactInput(email=models.EmailInput(primary_email=address, first_name="Another"))
        response = create_contact.sync_detailed(client=self.client, body=body)
        assert isinstance(response.parsed, models.ConflictError)
        assert not isinstance(response.parsed.field, Unset)
        return [response.status_code, response.parsed.detail, response.parsed.field]

    def fail_to_validate(self, address: str) -> Any:
        fields = models.WaitlistInputFields()
        fields["more"] = 1
        body = models.ContactInput(
            email=models.EmailInput(primary_email=address),
            waitlists=[models.WaitlistInput(name="vpn", fields=fields)],
        )
        response = create_contact.sync_detailed(client=self.client, body=body)
        assert isinstance(response.parsed, models.Error)
        assert isinstance(response.parsed.detail, list)
        return [response.status_code, [problem.loc for problem in response.parsed.detail]]

    def _read(self, email_id: str) -> models.Contact:
        contact = read_contact.sync(UUID(email_id), client=self.client)
        assert isinstance(contact, models.Contact)
        return contact

    def _put(self, email_id: str, body: models.ContactPut) -> models.Contact:
        contact = put_contact.sync(UUID(email_id), client=self.client, body=body)
        assert isinstance(contact, models.Contact), contact
        return contact

    def _patch(self, email_id: str, body: models.ContactPatch) -> models.Contact:
        contact = patch_contact.sync(UUID(email_id), client=self.client, body=body)
        assert isinstance(contact, models.Contact), contact
        return contact


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
