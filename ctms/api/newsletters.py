"""`/newsletters`: the newsletters that plugins declare."""

from __future__ import annotations

import json
from typing import Any

import marshmallow as ma
from apispec.core import Components
from flask import Flask, Response

from ctms.api.blueprint import Blueprint
from ctms.api.openapi import Api
from ctms.api.responses import json_response
from ctms.clients.access import VIEW_CONTACTS
from ctms.contacts import fields
from ctms.contacts.newsletter_rules import NewsletterRegistry
from ctms.current import extension
from ctms.hooks.plugin import Registered
from ctms.hooks.registrations import Newsletter

_TEXT = "ctms.newsletters.text"

KNOWN_NAMES = "x-extensible-enum"
"""Extension that lists the known values of a member that may have others."""

blueprint = Blueprint("Newsletters", __name__, description="Newsletters that contacts can subscribe to")


def _described(words: str) -> dict[str, str]:
    return {"description": words}


class DeclaredNewsletterSchema(ma.Schema):
    """Newsletter that contacts can subscribe to."""

    slug = fields.String(metadata=_described("The `name` of its subscriptions."))
    title = fields.String()
    description = fields.String()
    languages = ma.fields.List(
        fields.String(), metadata=_described("Languages in which it is published; empty if they are not known.")
    )
    active = ma.fields.Boolean(
        metadata=_described("Whether it takes new subscriptions. If not, it is retired, and stored ones may be kept.")
    )
    requires_double_opt_in = ma.fields.Boolean(
        metadata=_described(
            "Whether a front end must have the address confirmed before it subscribes a person. The service does not"
            " check it."
        )
    )
    vendor_ids = ma.fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        metadata=_described("Its ids in other systems, by the name of the system."),
    )
    plugin = fields.String(metadata=_described("Plugin that declares it."))


@blueprint.route("/newsletters")
@blueprint.operation("list_newsletters")
@blueprint.guard(VIEW_CONTACTS)
@blueprint.response(200, DeclaredNewsletterSchema(many=True))
def newsletters() -> Response:
    """List the declared newsletters, by slug.

    With `CTMS_NEWSLETTERS=enforce`, new subscriptions to other newsletters, and to those that are not active, get 422.
    """
    return json_response(extension(_TEXT))


def init_newsletter_documents(app: Flask, api: Api) -> None:
    """Describe the app's newsletters, in `/newsletters` and in the OpenAPI document."""
    of_app: NewsletterRegistry = app.extensions["ctms.newsletter_registry"]
    listed = [_listed(one) for one in of_app.declared]
    app.extensions[_TEXT] = json.dumps(listed, ensure_ascii=False, separators=(",", ":"))
    _describe_names(api.spec.components, [one["slug"] for one in listed if one["active"]])


def _listed(registered: Registered[Newsletter]) -> dict[str, Any]:
    one = registered.value
    return {
        "slug": one.slug,
        "title": one.title,
        "description": one.description,
        "languages": list(one.languages),
        "active": one.active,
        "requires_double_opt_in": one.requires_double_opt_in,
        "vendor_ids": dict(one.vendor_ids),
        "plugin": registered.plugin.name,
    }


def _describe_names(components: Components, active: list[str]) -> None:
    """List the active newsletters at the name of a subscription in requests.

    An `enum` would not do: stored subscriptions to others may be sent again.
    """
    for entry in ("NewsletterInput", "NewsletterPatch"):
        name = components.schemas[entry]["properties"]["name"]
        name["description"] = "The `slug` of a newsletter: see `GET /newsletters`."
        if active:
            name[KNOWN_NAMES] = active
