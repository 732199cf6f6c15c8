"""The contacts that the identities of `POST /erasures` match, and the number of look-ups."""

from __future__ import annotations

from typing import Any

import pytest

from ctms.addresses import spellings
from ctms.database.pool import Connection
from tests.contacts.factories import full
from tests.http import ApiClient

pytestmark = pytest.mark.usefixtures("nothing_erased")


def test_two_addresses_of_an_item_are_not_multiplied(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    execute = Connection.execute

    def counted(self: Any, query: Any, params: Any = None, **options: Any) -> Any:
        sent.extend(len(one) for one in params or () if isinstance(one, list))
        return execute(self, query, params, **options)

    item = {"primary_email": "Éa@é.é.é.example.com", "fxa_primary_email": "Öb@ö.ö.ö.example.com"}
    monkeypatch.setattr(Connection, "execute", counted)

    answer = api.post("/erasures", {"identities": [item]})

    assert answer.json["unknown"] == 1
    assert max(sent) <= max(len(spellings(text)) for text in item.values())


def test_all_identities_of_an_item_must_match(api: ApiClient) -> None:
    first, second = (api.post("/ctms", full()).json for _ in range(2))
    mixed = {"primary_email": first["email"]["primary_email"], "fxa_primary_email": second["fxa"]["primary_email"]}
    both = {**mixed, "fxa_primary_email": first["fxa"]["primary_email"], "sfdc_id": first["email"]["sfdc_id"]}

    assert api.post("/erasures", {"identities": [mixed]}).json["contacts"] == 0
    assert api.post("/erasures", {"identities": [{**both, "sfdc_id": "other"}]}).json["contacts"] == 0
    assert api.post("/erasures", {"identities": [both]}).json["contacts"] == 1
