"""A fake of Braze for tests: a workspace that keeps profiles, as documented by Braze."""

from __future__ import annotations

from typing import Any

from ctms.testing import ReceivedRequest, Reply

KEY = "a-key"
OWN = ("external_id", "email", "first_name", "last_name", "country", "language", "email_subscribe")


class Workspace:
    """Answers requests; `profiles` are those with an external id, `strangers` those that others created without one."""

    def __init__(self) -> None:
        self.profiles: dict[str, dict[str, Any]] = {}
        self.strangers: list[dict[str, Any]] = []

    def __call__(self, request: ReceivedRequest) -> Reply:
        """Answer."""
        if request.headers["Authorization"] != f"Bearer {KEY}":
            return Reply(401, body={"message": "Invalid API key"})
        answer = {"/users/track": self._track, "/users/delete": self._delete, "/users/export/ids": self._export}
        return answer[request.path](request.json)

    def _track(self, body: dict[str, Any]) -> Reply:
        if len(body["attributes"]) > 75:
            return Reply(400, body={"message": "too many attributes"})
        for attributes in body["attributes"]:
            profile = self.profiles.setdefault(attributes["external_id"], {"custom_attributes": {}})
            for name, value in attributes.items():
                holder = profile if name in OWN else profile["custom_attributes"]
                if value is None:
                    holder.pop(name, None)
                elif not has_null(value):  # it drops the whole of an attribute with a null inside
                    holder[name] = value
        return Reply(201, body={"message": "success", "attributes_processed": len(body["attributes"])})

    def _delete(self, body: dict[str, Any]) -> Reply:
        if len(body) != 1:
            return Reply(400, body={"message": "only one kind of identifier"})
        ((kind, given),) = body.items()
        if len(given) > 50:
            return Reply(400, body={"message": f"too many {kind}"})
        if kind == "email_addresses":
            return self._delete_addresses(given)
        known = [self.profiles.pop(one, None) for one in given]
        return Reply(200, body={"deleted": len([one for one in known if one]), "message": "success"})

    def _delete_addresses(self, given: list[dict[str, Any]]) -> Reply:
        """Delete one profile of each address, as prioritised: the most recently updated one."""
        if any(entry.get("prioritization") != ["most_recently_updated"] for entry in given):
            return Reply(400, body={"message": "prioritization is required"})
        deleted = 0
        for entry in given:
            for profile in self.with_address(entry["email"])[-1:]:
                deleted += 1
                if profile in self.strangers:
                    self.strangers.remove(profile)
                else:
                    del self.profiles[profile["external_id"]]
        return Reply(200, body={"deleted": deleted, "message": "success"})

    def with_address(self, address: str) -> list[dict[str, Any]]:
        """Return the profiles with an address, those of strangers last."""
        profiles = [*self.profiles.values(), *self.strangers]
        return [one for one in profiles if (one.get("email") or "").lower() == address.lower()]

    def _export(self, body: dict[str, Any]) -> Reply:
        if len(body) != 2:
            return Reply(400, body={"message": "only one kind of identifier"})
        if "email_address" in body:
            users = self.with_address(body["email_address"])
        elif len(body["external_ids"]) > 50:
            return Reply(400, body={"message": "too many external_ids"})
        else:
            users = [self.profiles[one] for one in body["external_ids"] if one in self.profiles]
        wanted = body["fields_to_export"]
        found = [{name: value for name, value in user.items() if name in wanted} for user in users]
        return Reply(201, body={"message": "success", "users": found})


def has_null(value: Any) -> bool:
    """Return whether there is a null somewhere inside."""
    if isinstance(value, dict):
        return any(map(has_null, value.values()))
    return any(map(has_null, value)) if isinstance(value, list) else value is None
