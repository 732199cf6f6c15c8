"""Conditional requests: ETag, `If-None-Match` (304) and `If-Match` (412)."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.contacts.factories import full, minimal
from tests.contacts.rows import insert_contact
from tests.http import ApiClient, assert_error

GONE = "The contact has changed"
NEEDS_STRONG_TAG = 'If-Match needs a strong tag: send the ETag without W/, as in "5f3a"'


@pytest.fixture
def contact(api: ApiClient) -> dict[str, Any]:
    contact = full()
    assert api.post("/ctms", contact).status_code == 201
    return contact


@pytest.fixture
def path(contact: dict[str, Any]) -> str:
    return f"/ctms/{contact['email']['email_id']}"


def tag(api: ApiClient, path: str) -> str:
    return str(api.get(path).headers["ETag"])


class TestEtag:
    def test_it_is_strong_and_of_the_state(self, api: ApiClient, path: str, contact: dict[str, Any]) -> None:
        first = tag(api, path)

        assert first.startswith('"')
        assert first.endswith('"')
        assert tag(api, path) == first
        changed = api.patch(path, {"waitlists": [{"name": "vpn", "subscribed": False}]})
        assert changed.headers["ETag"] == tag(api, path) != first
        replaced = api.put(path, contact)
        assert replaced.headers["ETag"] == tag(api, path) != changed.headers["ETag"]

    def test_a_created_contact_has_it(self, api: ApiClient) -> None:
        created = api.post("/ctms", minimal())

        assert created.headers["ETag"] == tag(api, created.headers["Location"])

    def test_two_contacts_have_two(self, api: ApiClient) -> None:
        assert len({api.post("/ctms", minimal()).headers["ETag"] for _ in range(2)}) == 2


class TestIfNoneMatch:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
    def test_an_unchanged_contact_is_not_modified(self, api: ApiClient, path: str, method: str, form: str) -> None:
        known = tag(api, path)

        answer = api.request(method, path, headers={"If-None-Match": form.format(known)})

        assert answer.status_code == 304
        assert answer.data == b""
        assert answer.headers["ETag"] == known

    @pytest.mark.parametrize("form", ['"other"', "", "nonsense"])
    def test_another_is(self, api: ApiClient, path: str, form: str) -> None:
        assert api.get(path, headers={"If-None-Match": form}).status_code == 200
        known = tag(api, path)
        api.patch(path, {})
        assert api.get(path, headers={"If-None-Match": known}).status_code == 200

    def test_a_missing_contact_is_not_found_despite_the_condition(self, api: ApiClient) -> None:
        assert api.get(f"/ctms/{uuid.uuid4()}", headers={"If-None-Match": "*"}).status_code == 404

    @pytest.mark.parametrize("form", ["{}", "*"])
    def test_a_write_ignores_it(self, api: ApiClient, path: str, form: str) -> None:
        changed = api.patch(path, {}, headers={"If-None-Match": form.format(tag(api, path))})

        assert changed.status_code == 200
        assert changed.json["status"] == "ok"


class TestIfMatch:
    @pytest.mark.parametrize("form", ['"other"', "W/{}", "*"])
    def test_a_read_ignores_it(self, api: ApiClient, path: str, form: str) -> None:
        known = tag(api, path)
        headers = {"If-Match": form.format(known)}

        assert api.get(path, headers=headers).status_code == 200
        assert api.get(path, headers={**headers, "If-None-Match": '"other"'}).status_code == 200
        assert api.get(path, headers={**headers, "If-None-Match": known}).status_code == 304

    def write(self, api: ApiClient, method: str, contact: dict[str, Any], **headers: str) -> Any:
        path = f"/ctms/{contact['email']['email_id']}"
        if method == "DELETE":
            return api.delete(f"/ctms/{contact['email']['primary_email']}", headers=headers)
        body = contact if method == "PUT" else {"email": {"first_name": "Joan"}}
        return api.request(method, path, json=body, headers=headers)

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
    @pytest.mark.parametrize("form", ["{}", '"other", {}', "*"])
    def test_the_state_that_is_meant_is_written(
        self, api: ApiClient, contact: dict[str, Any], path: str, method: str, form: str
    ) -> None:
        answer = self.write(api, method, contact, **{"If-Match": form.format(tag(api, path))})

        assert answer.status_code == {"PUT": 201, "PATCH": 200, "DELETE": 200}[method]

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
    @pytest.mark.parametrize("form", ['"other"', "", "nonsense"])
    def test_any_other_is_left(
        self, api: ApiClient, contact: dict[str, Any], path: str, method: str, form: str
    ) -> None:
        before = api.get(path)

        answer = self.write(api, method, contact, **{"If-Match": form.format(before.headers["ETag"])})

        assert_error(answer, 412, GONE)
        assert api.get(path).json == before.json

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
    @pytest.mark.parametrize("form", ["W/{}", 'W/"other"', '"other", W/{}'])
    def test_a_weak_tag_matches_nothing_and_the_error_explains_it(
        self, api: ApiClient, contact: dict[str, Any], path: str, method: str, form: str
    ) -> None:
        """RFC 9110, 13.1.1."""
        before = api.get(path)

        answer = self.write(api, method, contact, **{"If-Match": form.format(before.headers["ETag"])})

        assert_error(answer, 412, NEEDS_STRONG_TAG)
        assert api.get(path).json == before.json

    def test_a_weak_tag_beside_the_strong_one_does_no_harm(
        self, api: ApiClient, contact: dict[str, Any], path: str
    ) -> None:
        known = tag(api, path)

        assert self.write(api, "PATCH", contact, **{"If-Match": f"W/{known}, {known}"}).status_code == 200

    @pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
    def test_a_state_that_is_past_is_not_written(
        self, api: ApiClient, contact: dict[str, Any], path: str, method: str
    ) -> None:
        known = tag(api, path)
        api.patch(path, {"email": {"last_name": "Smith"}})

        assert_error(self.write(api, method, contact, **{"If-Match": known}), 412, GONE)

    @pytest.mark.parametrize("form", ["*", '"other"'])
    def test_a_missing_contact_matches_no_tag(self, api: ApiClient, form: str) -> None:
        contact = full()

        assert_error(self.write(api, "PUT", contact, **{"If-Match": form}), 412, GONE)
        assert_error(self.write(api, "PATCH", contact, **{"If-Match": form}), 404, "Unknown email_id")
        address = contact["email"]["primary_email"]
        assert_error(self.write(api, "DELETE", contact, **{"If-Match": form}), 404, f"email {address} not found!")
        assert api.get(f"/ctms/{contact['email']['email_id']}").status_code == 404

    def test_odd_contacts_have_states_too(self, api: ApiClient) -> None:
        email_id = insert_contact(primary_email="Jane at home", basket_token="odd")
        known = tag(api, f"/ctms/{email_id}")

        changed = api.patch(f"/ctms/{email_id}", {"email": {"first_name": "J"}}, headers={"If-Match": known})

        assert changed.status_code == 200
        gone = api.delete("/ctms/jane at HOME", headers={"If-Match": changed.headers["ETag"]})
        assert gone.status_code == 200
