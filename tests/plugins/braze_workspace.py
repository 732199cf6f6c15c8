"""What stands for Braze in tests: a workspace that keeps profiles, as its documentation says."""

from __future__ import annotations

from typing import Any

from ctms.testing import Received, Reply

KEY = "a-key"
OWN = ("external_id", "email", "first_name", "last_name", "country", "language", "email_subscribe")


class Workspace:
    """Answers requests; `profiles` are those that it has."""

    def __init__(self) -> None:
        self.profiles: dict[str, dict[str, Any]] = {}

    def __call__(self, request: Received) -> Reply:
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
        if len(body["external_ids"]) > 50:
            return Reply(400, body={"message": "too many external_ids"})
        known = [self.profiles.pop(one, None) for one in body["external_ids"]]
        return Reply(200, body={"deleted": len([one for one in known if one]), "message": "success"})

    def _export(self, body: dict[str, Any]) -> Reply:
        if len(body["external_ids"]) > 50:
            return Reply(400, body={"message": "too many external_ids"})
        wanted = body["fields_to_export"]
        users = [self.profiles[one] for one in body["external_ids"] if one in self.profiles]
        found = [{name: value for name, value in user.items() if name in wanted} for user in users]
        return Reply(201, body={"message": "success", "users": found})


def has_null(value: Any) -> bool:
    """Tell whether there is a null somewhere inside."""
    if isinstance(value, dict):
        return any(map(has_null, value.values()))
    return any(map(has_null, value)) if isinstance(value, list) else value is None
