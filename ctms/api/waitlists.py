"""`/waitlists`: which waitlists have rules for their fields, and what these are."""

from __future__ import annotations

import json

import marshmallow as ma
from flask import Flask, Response

from ctms.api.blueprint import Blueprint
from ctms.api.openapi import Api
from ctms.api.openapi.waitlists import describe_entries, list_of
from ctms.api.responses import json_text
from ctms.clients.access import VIEW_CONTACTS
from ctms.contacts import fields
from ctms.contacts.waitlists import Waitlists
from ctms.current import extension

_TEXT = "ctms.waitlists.text"

blueprint = Blueprint("Waitlists", __name__, description="What the fields of waitlists may be")


def _described(words: str) -> dict[str, str]:
    return {"description": words}


class WaitlistRules(ma.Schema):
    """What is known of a waitlist, or of all whose names fit a pattern."""

    name = fields.String(metadata=_described("The name. With a `*` at the end, all names that begin so."))
    title = fields.String()
    description = fields.String()
    plugin = fields.String(metadata=_described("The plugin that brings the rules."))
    schema = ma.fields.Dict(metadata=_described("The JSON Schema (2020-12) of the fields."))


@blueprint.route("/waitlists")
@blueprint.operation("list_waitlists")
@blueprint.guard(VIEW_CONTACTS)
@blueprint.response(200, WaitlistRules(many=True))
def waitlists() -> Response:
    """List the waitlists that have rules for their fields.

    The first whose name fits decides: exact names come first, then patterns, the longest first. A waitlist that none
    fits may have any fields.
    """
    return json_text(extension(_TEXT))


def init_waitlist_documents(app: Flask, api: Api) -> None:
    """Describe the fields of the app's waitlists, in `/waitlists` and in the OpenAPI document.

    Raises `PluginError` where a plugin's rules cannot be described.
    """
    of_app: Waitlists = app.extensions["ctms.waitlists"]
    app.extensions[_TEXT] = json.dumps(list_of(of_app), ensure_ascii=False, separators=(",", ":"))
    describe_entries(api.spec.components, of_app)
