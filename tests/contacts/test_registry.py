"""The registry is the only list of parts and identities: a copy of the project is extended there, and used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory

from ctms.contacts.parts import Identity
from ctms.contacts.registry import IDENTITIES, PARTS
from ctms.paths import MIGRATIONS
from ctms.testing.servers import empty_database
from ctms_plugins.braze import mapping
from tests.contacts.factories import full

ROOT = Path(__file__).parents[2]
REGISTRY, MODELS = "ctms/contacts/registry.py", "ctms/contacts/models.py"
REVISION = "migrations/versions/20991231_0123456789ab_hub.py"
ID = "11111111-2222-4333-8444-555555555555"
OTHER_ID = "99999999-2222-4333-8444-555555555555"

MIGRATION = f'''
from alembic import op

revision = "0123456789ab"
down_revision = "{ScriptDirectory(MIGRATIONS).get_current_head()}"


def upgrade():
    for columns, table in (
        ("user_id varchar(40) UNIQUE, address varchar(255), rooms boolean, plan varchar(20), UNIQUE (email_id)", "hub"),
        ("name varchar(255) NOT NULL, subscribed boolean, UNIQUE (email_id, name)", "interests"),
    ):
        op.execute(
            f"""CREATE TABLE {{table}} (
                id serial PRIMARY KEY, email_id uuid NOT NULL REFERENCES emails ON DELETE CASCADE, {{columns}},
                create_timestamp timestamptz DEFAULT now() NOT NULL, update_timestamp timestamptz DEFAULT now() NOT NULL
            )"""
        )
    op.execute("CREATE INDEX idx_hub_address ON hub (lower(address))")


def downgrade():
    op.execute("DROP TABLE hub, interests")
'''

ADDED_MODELS = '''

class Hub(_SubDocument, Model):
    """The person's rooms."""

    __tablename__ = "hub"
    __table_args__ = (Index("idx_hub_address", text("lower(address)")),)

    user_id: Mapped[str | None] = mapped_column(String(40), unique=True)
    address: Mapped[str | None] = mapped_column(String(255))
    rooms: Mapped[bool | None]
    plan: Mapped[str | None] = mapped_column(String(20))


class Interest(_Entry, Model):
    """An interest of the person."""

    __tablename__ = "interests"
    __table_args__ = (UniqueConstraint("email_id", "name"),)

    name: Mapped[str] = mapped_column(String(255))
    subscribed: Mapped[bool | None]
'''

ADDED_PARTS = '''
class HubSchema(fields.Schema):
    """Rooms of the person."""

    user_id = fields.String(40, load_default=None)
    address = fields.String(255, load_default=None)
    rooms = fields.Boolean(load_default=True)
    plan = fields.String(20, load_default="free")


class InterestSchema(fields.Schema):
    """Interest of the person."""

    name = fields.String(255, required=True)
    subscribed = fields.Boolean(load_default=True)
    update_timestamp = fields.Timestamp()


HUB = Part("hub", "h", models.Hub, HubSchema, classified={**_ROW, ACCOUNT: ("user_id", "address", "rooms", "plan")})
INTERESTS = Part("interests", "s", models.Interest, InterestSchema, many=True)

'''

Edit = tuple[str, str, str]
LAST_IDENTITY = '        Identity("fxa_primary_email", FXA, "primary_email", is_address=True),\n'
PART: tuple[Edit, ...] = (
    (REVISION, "", MIGRATION),
    (MODELS, "", ADDED_MODELS),
    (REGISTRY, "\nPARTS: ", ADDED_PARTS),
    (REGISTRY, "MOFO, NEWSLETTERS, ", "HUB, INTERESTS, "),
    (REGISTRY, LAST_IDENTITY, '        Identity("hub_user_id", HUB, "user_id"),\n'),
    (REGISTRY, LAST_IDENTITY, '        Identity("hub_address", HUB, "address", is_address=True),\n'),
)
IDENTITY: tuple[Edit, ...] = ((REGISTRY, LAST_IDENTITY, '        Identity("amo_username", AMO, "username"),\n'),)


@pytest.fixture
def extended(tmp_path: Path, postgres: str, worker_id: str) -> Callable[..., dict[str, Any]]:
    """Copy the project, insert texts (file, before which text, what), and send requests to the copy."""

    def run(edits: tuple[Edit, ...], *requests: tuple[str, str, Any]) -> dict[str, Any]:
        for folder in ("ctms", "ctms_plugins", "migrations"):
            shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name, before, added in edits:
            file = tmp_path / name
            old = file.read_text() if file.exists() else ""
            assert not before or old.count(before) == 1, f"{name} has no place for {added}"
            file.write_text(old.replace(before, added + before) if before else old + added)
        url = empty_database(postgres, f"extended_{worker_id}")
        done = subprocess.run(
            [sys.executable, "-P", ROOT / "tests/contacts/extended_app.py", url],
            input=json.dumps(requests),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert Path(found["package"]).is_relative_to(tmp_path)
        assert not found["differs"]
        return found

    return run


@pytest.mark.long
def test_a_part_needs_a_migration_a_model_and_an_entry(extended: Callable[..., dict[str, Any]]) -> None:
    assert len({file for file, _, _ in PART}) == 3
    hub = {"user_id": "h-1", "address": "Jane@hub.example.com", "rooms": False, "plan": "paid"}
    given = full(hub=hub, interests=[{"name": "maps"}, {"name": "art", "subscribed": False}])
    given["email"]["email_id"] = ID
    other = {"email": {"primary_email": "other@example.com", "email_id": OTHER_ID}}
    path, changed = f"/ctms/{ID}", {"hub": {"rooms": True}, "interests": [{"name": "maps", "subscribed": False}]}

    found = extended(
        PART,
        ("POST", "/ctms", given),
        ("POST", "/ctms", given),
        ("GET", "/ctms?hub_user_id=h-1", None),
        ("GET", "/identities?hub_address=jane@HUB.example.com", None),
        ("GET", "/updates?start=2020-01-01", None),
        ("PATCH", path, changed),
        ("POST", "/ctms", {**other, "hub": {"user_id": "h-1"}}),
        ("PATCH", path, {"hub": {"plan": "x" * 21}}),
        ("PUT", f"/ctms/{OTHER_ID}", {**other, "hub": {"plan": "paid"}, "interests": [{"name": "sea"}]}),
        ("PATCH", f"/ctms/{OTHER_ID}", {"hub": {"plan": "free"}, "interests": "UNSUBSCRIBE"}),
        ("SQL", "SELECT count(*) FROM hub", None),
        ("PUT", f"/ctms/{OTHER_ID}", other),
        ("SQL", "SELECT count(*) FROM interests", None),
        ("POST", "/access-requests", {"address": "JANE@hub.example.com"}),
        ("POST", "/erasures", {"identities": [{"hub_user_id": "h-1"}, {"hub_address": "JANE@hub.example.com"}]}),
        ("SQL", "SELECT count(*) FROM hub", None),
        ("GET", path, None),
        ("GET", "/openapi.json", None),
    )

    created, again, by_id, by_address, updates, patched, taken, too_long, *others = found["results"]
    second, unsubscribed, hubs, emptied, interests, access, erased, hubs_left, unknown, openapi = others
    assert list(created)[:5] == ["amo", "email", "fxa", "hub", "interests"]
    assert created["hub"] == hub
    assert [(one["name"], one["subscribed"]) for one in created["interests"]] == [("art", False), ("maps", True)]
    assert again == created
    assert by_id == updates["items"] == [{name: value for name, value in created.items() if name != "status"}]
    assert by_address[0].keys() == {*IDENTITIES, "hub_user_id", "hub_address"}
    assert (by_address[0]["hub_user_id"], by_address[0]["hub_address"]) == ("h-1", hub["address"])
    assert patched["hub"] == {**hub, "rooms": True}
    assert [one["subscribed"] for one in patched["interests"]] == [False, False]
    assert taken == {"detail": "Contact already exists", "field": "hub_user_id"}
    assert too_long["detail"][0]["loc"] == ["body", "hub", "plan"]
    assert second["hub"] == {"user_id": None, "address": None, "rooms": True, "plan": "paid"}
    assert unsubscribed["interests"][0]["subscribed"] is False
    assert unsubscribed["hub"] == emptied["hub"] == {**second["hub"], "plan": "free"}
    assert hubs == 1, "a row with nothing but defaults is left"
    assert (emptied["interests"], interests) == ([], 2)
    (reported,) = access["report"]["contacts"]
    assert reported["found_by"] == ["hub_address"]
    assert reported["data"]["hub"].items() >= {**hub, "rooms": True, "email_id": ID}.items()
    assert [one["name"] for one in reported["data"]["interests"]] == ["art", "maps"]
    assert access["report"]["classification"]["hub"]["plan"]["category"] == "account"
    assert (erased["contacts"], hubs_left) == (1, 0)
    assert found["tasks"] == by_address
    assert unknown == {"detail": "Unknown email_id"}
    schemas = openapi["components"]["schemas"]
    for name, part in (("Contact", "Hub"), ("ContactInput", "HubInput"), ("ContactPatch", "HubPatch")):
        assert {"hub", "interests"} <= schemas[name]["properties"].keys()
        assert "plan" in schemas[part]["properties"]
    assert "hub_user_id" in schemas["Identity"]["properties"]
    assert "hub_user_id" in schemas["ErasureIdentities"]["properties"]
    assert "hub_user_id" in {one.get("name") for one in openapi["paths"]["/ctms"]["get"]["parameters"]}


@pytest.mark.long
def test_a_part_is_merged_like_the_others(extended: Callable[..., dict[str, Any]]) -> None:
    hub = {"user_id": "h-1", "address": "Jane@hub.example.com", "rooms": False, "plan": "paid"}
    source = full(hub=hub, interests=[{"name": "maps"}, {"name": "art", "subscribed": False}])
    source["email"]["email_id"] = ID
    target = {"email": {"primary_email": "other@example.com", "email_id": OTHER_ID}, "hub": {"plan": "old"}}

    found = extended(
        PART,
        ("POST", "/ctms", source),
        ("POST", "/ctms", {**target, "interests": [{"name": "art"}]}),
        ("POST", f"/ctms/{OTHER_ID}/merge", {"from": ID}),
        ("GET", "/ctms?hub_user_id=h-1", None),
        ("SQL", "SELECT count(*) FROM hub", None),
        ("SQL", "SELECT count(*) FROM interests", None),
    )

    *_, merged, by_id, hubs, interests = found["results"]
    contact = merged["contact"]
    assert contact["hub"] == {**hub, "plan": "old"}
    assert {one["name"]: one["subscribed"] for one in contact["interests"]} == {"art": True, "maps": True}
    assert {"part": "hub", "field": "plan", "value": "paid"} in merged["conflicts"]
    assert by_id == [contact]
    assert (hubs, interests) == (1, 2)


@pytest.mark.long
def test_an_identity_needs_an_entry(extended: Callable[..., dict[str, Any]]) -> None:
    # `username` has no index, which another revision would add: nobody searches much here.
    given = full()
    name = given["amo"]["username"] = f"user-{uuid.uuid4().hex}"

    found = extended(
        IDENTITY,
        ("POST", "/ctms", given),
        ("GET", f"/identities?amo_username={name}", None),
        ("GET", "/ctms", None),
        ("POST", "/erasures", {"identities": [{"amo_username": name}]}),
        ("GET", f"/ctms?amo_username={name}", None),
    )

    _, identities, without, erased, left = found["results"]
    assert identities[0]["amo_username"] == name
    assert "amo_username" in without["detail"]
    assert erased["contacts"] == 1
    assert found["tasks"] == identities
    assert left == []


@pytest.mark.parametrize("identity", IDENTITIES.values(), ids=lambda identity: identity.name)
def test_an_identity_is_indexed(identity: Identity) -> None:
    table = identity.part.table
    column = table.columns[identity.column]
    indexed = {str(expression) for index in table.indexes for expression in index.expressions[:1]}
    unique = column.primary_key or column.unique

    assert f"lower({column.name})" in indexed if identity.is_address else unique or str(column) in indexed


def test_what_braze_gets_is_in_the_registry() -> None:
    for _, part, field in (*mapping._OWN, *mapping._CUSTOM):
        assert field in PARTS[part].fields
    for part, members in mapping._LISTS.items():
        assert PARTS[part].many
        assert set(members) <= PARTS[part].fields.keys()
