"""The rules for writes, as clients see them: stored values, dates that are kept, the extent of a change."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contacts.factories import full, minimal
from tests.contacts.rows import LONG_AGO, count, execute, set_back
from tests.http import ApiClient, assert_error


def by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


@pytest.fixture
def stored(api: ApiClient) -> dict[str, Any]:
    """Return the body of a full contact, whose rows all date from 2020."""
    contact = full()
    api.post("/ctms", contact)
    set_back(contact["email"]["email_id"])
    return contact


@pytest.fixture
def path(stored: dict[str, Any]) -> str:
    return f"/ctms/{stored['email']['email_id']}"


class TestDefaults:
    @pytest.mark.parametrize("group", ["amo", "fxa", "mofo"])
    @pytest.mark.parametrize("value", [None, {}, "defaults"])
    def test_groups_that_say_nothing_are_not_stored(self, api: ApiClient, group: str, value: Any) -> None:
        shown = api.post("/ctms", minimal()).json[group]
        given = {key: default for key, default in shown.items() if not key.endswith("_timestamp")}

        created = api.post("/ctms", {**minimal(), group: given if value == "defaults" else value})

        assert created.status_code == 201
        assert created.json[group] == shown
        assert count(group, created.json["email"]["email_id"]) == 0

    @pytest.mark.parametrize("group", ["amo", "fxa", "mofo"])
    def test_replacing_a_group_by_nothing_removes_it(
        self, api: ApiClient, stored: dict[str, Any], path: str, group: str
    ) -> None:
        api.put(path, {**stored, group: {}})

        assert count(group, stored["email"]["email_id"]) == 0

    @pytest.mark.parametrize("group", ["amo", "fxa", "mofo"])
    def test_a_change_that_leaves_only_defaults_removes_the_group(
        self, api: ApiClient, stored: dict[str, Any], path: str, group: str
    ) -> None:
        members = {key: False if value is True else None for key, value in stored[group].items()}
        last = members.popitem()

        assert api.patch(path, {group: members}).status_code == 200
        assert count(group, stored["email"]["email_id"]) == 1
        assert api.patch(path, {group: dict([last])}).status_code == 200
        assert count(group, stored["email"]["email_id"]) == 0

    def test_a_change_to_defaults_stores_nothing(self, api: ApiClient) -> None:
        created = api.post("/ctms", minimal())

        changed = api.patch(created.headers["Location"], {"amo": {"user": False, "username": None}, "fxa": {}})

        assert changed.json["amo"]["create_timestamp"] is None
        assert count("amo", created.json["email"]["email_id"]) == count("fxa", created.json["email"]["email_id"]) == 0

    def test_entries_are_stored_with_their_defaults(self, api: ApiClient) -> None:
        created = api.post("/ctms", {**minimal(), "newsletters": [{"name": "n"}], "waitlists": [{"name": "w"}]}).json

        (newsletter,), (waitlist,) = created["newsletters"], created["waitlists"]
        assert newsletter.items() >= {"subscribed": True, "format": "H", "lang": "en", "source": None}.items()
        assert waitlist.items() >= {"subscribed": True, "fields": {}, "source": None, "unsub_reason": None}.items()


class TestTimes:
    def test_replacing_keeps_the_date_of_consent(self, api: ApiClient, stored: dict[str, Any], path: str) -> None:
        newsletters = [*stored["newsletters"][:1], {"name": "new"}]

        replaced = api.put(path, {**stored, "newsletters": newsletters}).json

        now = replaced["email"]["update_timestamp"]
        assert now > LONG_AGO
        kept = [replaced["email"], replaced["amo"], by_name(replaced["newsletters"])["ambassadors"]]
        for part in kept + replaced["waitlists"]:
            assert part["create_timestamp"] == LONG_AGO
            assert part["update_timestamp"] == now
        assert by_name(replaced["newsletters"])["new"]["create_timestamp"] == now
        assert set(by_name(replaced["newsletters"])) == {"ambassadors", "new"}

    @pytest.mark.parametrize("table", ["fxa", "mofo"])
    def test_replacing_updates_the_hidden_timestamps(
        self, api: ApiClient, stored: dict[str, Any], path: str, table: str
    ) -> None:
        api.put(path, stored)

        email_id = stored["email"]["email_id"]
        moved = f"SELECT update_timestamp > '2021-01-01' AND create_timestamp < '2021-01-01' FROM {table}"
        assert execute(f"{moved} WHERE email_id = :email_id", email_id=email_id) is True

    def test_a_change_updates_the_timestamps_of_changed_rows(
        self, api: ApiClient, stored: dict[str, Any], path: str
    ) -> None:
        changed = api.patch(path, {"amo": {"username": "Jo"}, "newsletters": [{"name": "hubs", "lang": "de"}]}).json

        now = changed["email"]["update_timestamp"]
        assert now > LONG_AGO
        assert changed["amo"]["update_timestamp"] == now
        assert by_name(changed["newsletters"])["hubs"]["update_timestamp"] == now
        assert by_name(changed["newsletters"])["ambassadors"]["update_timestamp"] == LONG_AGO
        assert all(entry["update_timestamp"] == LONG_AGO for entry in changed["waitlists"])
        created = [changed["email"], changed["amo"], *changed["newsletters"], *changed["waitlists"]]
        assert {part["create_timestamp"] for part in created} == {LONG_AGO}

    def test_times_that_clients_send_are_ignored(self, api: ApiClient) -> None:
        contact = minimal(create_timestamp=LONG_AGO, update_timestamp=LONG_AGO)

        created = api.post("/ctms", {**contact, "newsletters": [{"name": "n", "create_timestamp": LONG_AGO}]}).json

        assert created["email"]["create_timestamp"] > LONG_AGO
        assert created["newsletters"][0]["create_timestamp"] > LONG_AGO


class TestChangingGroups:
    @pytest.mark.parametrize("group", ["amo", "fxa", "mofo"])
    def test_delete_resets_a_group(self, api: ApiClient, stored: dict[str, Any], path: str, group: str) -> None:
        before = api.get(path).json

        changed = api.patch(path, {group: "DELETE"}).json

        assert changed[group] == api.post("/ctms", minimal()).json[group]
        assert count(group, stored["email"]["email_id"]) == 0
        for other in {"amo", "fxa", "mofo"} - {group}:
            assert changed[other] == before[other]

    @pytest.mark.parametrize("group", ["email", "amo", "fxa", "mofo", "newsletters", "waitlists"])
    @pytest.mark.parametrize("value", [None, 1, "delete", "UNSUBSCRIBE ", True])
    def test_other_words_and_null_are_refused(self, api: ApiClient, path: str, group: str, value: Any) -> None:
        before = api.get(path).json

        assert_error(api.patch(path, {group: value}), 422, at=[["body", group]])
        assert api.get(path).json == before

    @pytest.mark.parametrize(("group", "word"), [("email", "DELETE"), ("amo", "UNSUBSCRIBE"), ("waitlists", "DELETE")])
    def test_a_word_works_only_where_it_belongs(self, api: ApiClient, path: str, group: str, word: str) -> None:
        assert_error(api.patch(path, {group: word}), 422, at=[["body", group]])

    def test_null_clears_only_nullable_members(self, api: ApiClient, path: str) -> None:
        changed = api.patch(path, {"email": {"first_name": None, "basket_token": None}}).json

        assert changed["email"]["first_name"] is changed["email"]["basket_token"] is None
        for member in ("primary_email", "email_format", "double_opt_in"):
            assert_error(api.patch(path, {"email": {member: None}}), 422, at=[["body", "email", member]])

    def test_an_address_may_change_to_another_case_of_itself(
        self, api: ApiClient, stored: dict[str, Any], path: str
    ) -> None:
        shouted = stored["email"]["primary_email"].replace("jane", "JANE")

        assert api.patch(path, {"email": {"primary_email": shouted}}).json["email"]["primary_email"] == shouted


class TestChangingLists:
    def test_entries_are_added_or_changed_by_name_and_others_left(self, api: ApiClient, path: str) -> None:
        before = by_name(api.get(path).json["newsletters"])

        changed = api.patch(
            path, {"newsletters": [{"name": "new", "format": "T"}, {"name": "ambassadors", "subscribed": True}]}
        )

        after = by_name(changed.json["newsletters"])
        assert list(after) == ["ambassadors", "hubs", "new"]
        assert after["hubs"] == before["hubs"]
        assert after["new"].items() >= {"format": "T", "lang": "en", "subscribed": True}.items()
        touched = {"subscribed": True, "update_timestamp": changed.json["email"]["update_timestamp"]}
        assert after["ambassadors"] == {**before["ambassadors"], **touched}

    @pytest.mark.parametrize("name", ["newsletters", "waitlists"])
    def test_an_unknown_name_that_is_not_subscribed_is_not_added(self, api: ApiClient, path: str, name: str) -> None:
        before = api.get(path).json[name]

        changed = api.patch(path, {name: [{"name": "stranger", "subscribed": False}]})

        assert changed.status_code == 200
        assert changed.json[name] == before

    def test_a_known_name_that_is_not_subscribed_is_left(self, api: ApiClient, path: str) -> None:
        changed = api.patch(path, {"newsletters": [{"name": "hubs", "subscribed": False, "unsub_reason": "bored"}]})

        hubs = by_name(changed.json["newsletters"])["hubs"]
        assert hubs["subscribed"] is False
        assert hubs["unsub_reason"] == "bored"

    @pytest.mark.parametrize("name", ["newsletters", "waitlists"])
    def test_unsubscribe_leaves_all_and_forgets_none(self, api: ApiClient, path: str, name: str) -> None:
        before = api.get(path).json[name]

        changed = api.patch(path, {name: "UNSUBSCRIBE"}).json

        assert [entry["subscribed"] for entry in changed[name]] == [False] * len(before)
        assert [entry["create_timestamp"] for entry in changed[name]] == [LONG_AGO] * len(before)
        moved = [entry["name"] for entry in changed[name] if entry["update_timestamp"] > LONG_AGO]
        assert moved == [entry["name"] for entry in before if entry["subscribed"]]

    def test_fields_are_replaced_as_a_whole(self, api: ApiClient, path: str) -> None:
        changed = api.patch(path, {"waitlists": [{"name": "vpn", "fields": {"geo": "de"}}]}).json

        assert by_name(changed["waitlists"])["vpn"]["fields"] == {"geo": "de"}
        assert changed["vpn_waitlist"] == {"geo": "de", "platform": None}

    def test_an_empty_list_changes_nothing(self, api: ApiClient, path: str) -> None:
        before = api.get(path).json

        changed = api.patch(path, {"newsletters": [], "waitlists": []}).json

        assert changed["newsletters"] == before["newsletters"]
        assert changed["waitlists"] == before["waitlists"]


class TestAddressPolicy:
    @pytest.mark.parametrize("odd", ["jane", "jane@", "@example.com", "a b@example.com", "x@y@z.com", "jane@localhost"])
    def test_invalid_addresses_are_never_stored(self, api: ApiClient, path: str, odd: str) -> None:
        contact = full()
        contact["email"]["primary_email"] = odd
        elsewhere = f"/ctms/{contact['email']['email_id']}"

        for refused in (
            api.post("/ctms", contact),
            api.put(elsewhere, contact),
            api.patch(path, {"email": {"primary_email": odd}}),
        ):
            body = assert_error(refused, 422, at=[["body", "email", "primary_email"]])
            assert body["detail"][0]["type"] == "email_parsing"
            assert odd not in body["detail"][0]["msg"]
        assert api.get(elsewhere).status_code == 404

    def test_one_that_is_stored_may_stay_and_be_repeated(
        self, api: ApiClient, stored: dict[str, Any], path: str
    ) -> None:
        email_id, odd = stored["email"]["email_id"], "Jane at home"
        execute("UPDATE emails SET primary_email = :odd WHERE email_id = :email_id", odd=odd, email_id=email_id)
        stored["email"]["primary_email"] = odd

        for written in (
            api.patch(path, {"email": {"first_name": "Jo"}}),
            api.patch(path, {"email": {"primary_email": odd}}),
            api.put(path, stored),
        ):
            assert written.status_code in {200, 201}
            assert written.json["email"]["primary_email"] == odd
        assert_error(api.patch(path, {"email": {"primary_email": odd.lower()}}), 422)
        assert_error(api.put(path, {**stored, "email": {**stored["email"], "primary_email": "Jane"}}), 422)
        assert api.delete(f"/ctms/{odd}").status_code == 200

    @pytest.mark.parametrize(
        "address", ["jörg@example.com", "jane@bücher.example", '"two words"@example.com', "o'neil+tag@example.co.uk"]
    )
    def test_international_and_unusual_addresses_are_taken(self, api: ApiClient, address: str) -> None:
        created = api.post("/ctms", minimal(primary_email=address))

        assert created.status_code == 201
        assert created.json["email"]["primary_email"] == address
        assert len(api.get("/ctms", query_string={"primary_email": address}).json) == 1
        assert api.delete(f"/ctms/{address}").status_code == 200
