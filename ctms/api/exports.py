"""`/exports`: files of contacts, which the background service writes, behind links that expire."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import marshmallow as ma
from flask import Response, request, send_file

from ctms.api.blueprint import Blueprint, caller_id, connection, require_authorized
from ctms.api.conditions import ConditionDataField
from ctms.api.openapi import examples
from ctms.api.parameters import path_id
from ctms.api.responses import json_response
from ctms.clients.access import EXPORT_CONTACTS
from ctms.clients.tokens import tokens
from ctms.contacts import fields
from ctms.contacts.fields import Schema, StrictSchema
from ctms.contacts.sparse import FIELDS, FieldsError, parse_fields
from ctms.errors import Conflict, Forbidden, Invalid, NotConfigured, NotFound
from ctms.export import requests
from ctms.export.files import MANIFEST
from ctms.export.formats import FORMATS
from ctms.export.jobs import delete_files, directory_of
from ctms.settings import app_settings

blueprint = Blueprint("Exports", __name__, description="Contacts as files")

UNKNOWN = "Unknown export"
LINK_SECONDS = 3600
"""Seconds for which a link is valid, unless the export expires before."""

_HEADERS = {"Cache-Control": "no-store"}
_FILE = re.compile(r"contacts-\d{5,}\.[a-z.]+|manifest\.json")
_ID = {
    "in": "path",
    "name": "export_id",
    "description": "The id of the export.",
    "schema": {"type": "string", "format": "uuid"},
}
_NAME = {
    "in": "path",
    "name": "name",
    "description": "The name of a file of the export.",
    "schema": {"type": "string"},
}


class ExportBodySchema(StrictSchema):
    """The contacts and fields to export."""

    format = fields.String(choices=FORMATS, load_default=FORMATS[0])
    filter = ConditionDataField(
        load_default=None,
        allow_none=True,
        metadata={"description": "Condition that contacts must match, as in a search. By default all contacts."},
    )
    fields_ = fields.List(
        fields.String(choices=FIELDS),
        max_items=len(FIELDS),
        load_default=None,
        allow_none=True,
        data_key="fields",
        metadata={"description": "Groups and members, as in `email.primary_email` and `newsletters`. By default all."},
    )


class ExportFileSchema(ma.Schema):
    """A file of the export."""

    file = fields.String(metadata={"description": "Name of the file."})
    contacts = ma.fields.Integer()
    bytes = ma.fields.Integer()
    sha256 = fields.String()
    url = fields.String(metadata={"description": "Link to the file, which works without a token until it expires."})


class ExportUpdatesSchema(ma.Schema):
    """The request that lists all later changes."""

    start = fields.Timestamp()
    path = fields.String()


class ExportSchema(ma.Schema):
    """Record of an export, which names nobody, and its files while they are stored."""

    id = fields.UUID()
    requested_at = fields.Timestamp()
    requested_by = fields.String(metadata={"description": "Requester: `client:` and the id of an API client."})
    format = fields.String(choices=FORMATS)
    started_at = fields.Timestamp()
    finished_at = fields.Timestamp()
    expires_at = fields.Timestamp()
    contacts = ma.fields.Integer(allow_none=True)
    problem = fields.String(allow_none=True, metadata={"description": "Why it failed."})
    status = fields.String(
        choices=requests.STATUSES,
        metadata={
            "description": "`pending`: the background service has yet to begin; `expired`: the files are deleted."
        },
    )
    files = ma.fields.List(ma.fields.Nested(ExportFileSchema), allow_none=True)
    manifest = fields.String(allow_none=True, metadata={"description": "Link to `manifest.json`."})
    updates = ma.fields.Nested(ExportUpdatesSchema, allow_none=True)


class SignatureQuery(Schema):
    """The signature of a link."""

    signature = fields.String(1000, required=True)


@blueprint.route("/exports", methods=["POST"])
@blueprint.operation("create_export", errors=(409, 413, 422, 501))
@blueprint.guard(EXPORT_CONTACTS)
@blueprint.arguments(ExportBodySchema(), examples=examples.EXPORT)
@blueprint.response(202, ExportSchema, headers={"Location": "Location", "Cache-Control": "Cache-Control"})
def create_export(asked: dict[str, Any]) -> Response:
    """Export contacts to files, as they are at one instant.

    The background service writes the files; `GET /exports/{export_id}` has links to them when they are whole. They are
    deleted after `CTMS_EXPORT_HOURS`. At most 30 exports of a client may wait, run or have files.
    """
    require_authorized()
    if app_settings().export_dir is None:
        raise NotConfigured("Exports are not configured: set CTMS_EXPORT_DIR")
    wanted = {"format": asked["format"], "filter": asked["filter"], "fields": asked["fields_"]}
    if wanted["fields"] is not None:
        try:
            parse_fields(wanted["fields"])
        except FieldsError as error:  # of an empty list
            raise Invalid([{"loc": ["body", "fields"], "msg": str(error), "type": "too_short"}]) from error
    export_id = requests.add(connection(), wanted, by=f"client:{caller_id()}")
    if export_id is None:
        raise Conflict(
            f"The client has {requests.MAX_PER_CLIENT} exports that wait, run or have files: delete one with"
            " `DELETE /exports/{export_id}`, or wait until one expires"
        )
    return _response(export_id, 202, {"Location": f"/exports/{export_id}"})


@blueprint.route("/exports/<string:export_id>", parameters=[_ID])
@blueprint.operation("read_export", errors=(404, 422))
@blueprint.guard(EXPORT_CONTACTS)
@blueprint.response(200, ExportSchema, headers={"Cache-Control": "Cache-Control"})
def read_export(export_id: str) -> Response:
    """Return the record of an export, with links to its files when they are whole.

    A link is valid for an hour; request the export again for new ones.
    """
    return _response(path_id("export_id", export_id), 200, {})


@blueprint.route("/exports/<string:export_id>", methods=["DELETE"], parameters=[_ID])
@blueprint.operation("delete_export", errors=(404, 422))
@blueprint.guard(EXPORT_CONTACTS)
@blueprint.response(204)
def delete_export(export_id: str) -> Response:
    """Delete the files of an export, or stop it if it waits or runs.

    Its record stays, with the status `expired`: who exported contacts remains known. Deleting it again changes nothing.
    """
    wanted = path_id("export_id", export_id)
    require_authorized()
    was_finished = requests.end(connection(), wanted)
    if was_finished is None:
        raise NotFound(UNKNOWN, headers=_HEADERS)
    if was_finished:  # otherwise the worker that writes the files deletes them
        delete_files(wanted)
    return Response(status=204)


@blueprint.route("/exports/<string:export_id>/files/<string:name>", parameters=[_ID, _NAME])
@blueprint.operation("download_export_file", errors=(403, 404, 422))
@blueprint.arguments(SignatureQuery(), location="query")
@blueprint.response(
    200,
    {"type": "string", "format": "binary"},
    content_type="application/octet-stream",
    headers={"Cache-Control": "Cache-Control"},
)
def download_export_file(query: dict[str, Any], export_id: str, name: str) -> Response:
    """Download a file of an export, by its signed link.

    `GET /exports/{export_id}` returns the link, which is the permission: no token is needed. Ranges are supported, to
    continue a download.
    """
    wanted = path_id("export_id", export_id)
    if not tokens().is_link_signed(_path(wanted, name), query["signature"]):
        raise Forbidden("The link is invalid or has expired: request the export again", headers=_HEADERS)
    folder = directory_of(wanted)
    path = None if folder is None or not _FILE.fullmatch(name) else Path(folder, name)
    if path is None or not path.is_file():
        raise NotFound("The file is no longer stored", headers=_HEADERS)
    response = send_file(
        path.absolute(),
        "application/octet-stream",
        as_attachment=True,
        download_name=name,
        conditional=True,
        etag=False,
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _path(export_id: UUID, name: str) -> str:
    return f"/exports/{export_id}/files/{name}"


def _response(export_id: UUID, status: int, headers: dict[str, str]) -> Response:
    found = requests.find(connection(), export_id)
    if found is None:
        raise NotFound(UNKNOWN, headers=_HEADERS)
    record: dict[str, Any] = {**found.record, "files": None, "manifest": None, "updates": None}
    if found.manifest is not None and found.seconds_left is not None:
        seconds = min(LINK_SECONDS, found.seconds_left)
        record["files"] = [{**one, "url": _link(export_id, one["file"], seconds)} for one in found.manifest["parts"]]
        record["manifest"] = _link(export_id, MANIFEST, seconds)
        record["updates"] = found.manifest["updates"]
    return json_response(json.dumps(record), status, {**_HEADERS, **headers})


def _link(export_id: UUID, name: str, seconds: float) -> str:
    path = _path(export_id, name)
    origin = app_settings().server_prefix or request.host_url.rstrip("/")
    return f"{origin}{path}?{urlencode({'signature': tokens().sign_link(path, seconds)})}"
