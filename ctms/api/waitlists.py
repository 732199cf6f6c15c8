"""`/waitlists`: the rules for the fields of waitlists."""

from __future__ import annotations

import json

import marshmallow as ma
from flask import Flask, Response

from ctms.api.blueprint import Blueprint
from ctms.api.openapi import Api
from ctms.api.openapi.waitlists import describe_entries, list_of
from ctms.api.responses import json_response
from ctms.clients.access import VIEW_CONTACTS
from ctms.contacts import fields
from ctms.contacts.waitlist_rules import WaitlistRegistry
from ctms.current import extension

_TEXT = "ctms.waitlists.text"

blueprint = Blueprint("Waitlists", __name__, description="Rules for the fields of waitlists")


def _described(words: str) -> dict[str, str]:
    return {"description": words}


class WaitlistRules(ma.Schema):
    """Rules of a waitlist, or of all waitlists whose names match a pattern."""

    name = fields.String(metadata=_described("Name of the waitlist, or with a `*` at the end, a prefix of names."))
    title = fields.String()
    description = fields.String()
    plugin = fields.String(metadata=_described("Plugin that defines the rules."))
    schema = ma.fields.Dict(metadata=_described("JSON Schema (2020-12) of the fields."))


@blueprint.route("/waitlists")
@blueprint.operation("list_waitlists")
@blueprint.guard(VIEW_CONTACTS)
@blueprint.response(200, WaitlistRules(many=True))
def waitlists() -> Response:
    """List the waitlists that have rules for their fields.

    The first match applies: exact names come first, then patterns, the longest first. A waitlist without a match may
    have any fields.
    """
    return json_response(extension(_TEXT))


def init_waitlist_documents(app: Flask, api: Api) -> None:
    """Describe the fields of the app's waitlists, in `/waitlists` and in the OpenAPI document.

    Raises `PluginError` if a plugin's rules cannot be described.
    """
    of_app: WaitlistRegistry = app.extensions["ctms.waitlist_registry"]
    app.extensions[_TEXT] = json.dumps(list_of(of_app), ensure_ascii=False, separators=(",", ":"))
    describe_entries(api.spec.components, of_app)
