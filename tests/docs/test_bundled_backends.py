"""The pages about the bundled backends are correct."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ctms.hooks.manager import load_plugins
from ctms.plugins import ContactState
from ctms.settings import Settings
from ctms.testing import StubServer
from ctms_plugins.braze.mapping import attributes_of
from ctms_plugins.webhook.backend import ChangeMessages
from tests.docs import pages
from tests.docs.pages import DOCS
from tests.forked_shell import activated
from tests.plugins.webhook_client import OLD, client
from tests.serving import environment_for

PLUGINS = ("webhook", "braze", "jsonl")


def page(plugin: str) -> Path:
    """Return the page about a plugin."""
    return DOCS / "how-to" / f"{plugin}.md"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_instructions_for_operators_work(plugin: str, tmp_path: Path) -> None:
    (tmp_path / "braze-key").write_text("a-key\n")

    pages.run(page(plugin), activated(environment_for(tmp_path / "data")), tmp_path)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_every_setting_is_named(plugin: str) -> None:
    (found,) = [one for one in load_plugins(Settings(plugins=(plugin,))) if one.name == plugin]

    text = page(plugin).read_text()
    assert [how.variable for _, how, _ in found.declared_settings() if how.variable not in text] == []


def test_the_receiver_of_the_page_reads_a_message() -> None:
    code: dict[str, Any] = {}
    exec(pages.marked(page("webhook"), "file: receiver.py"), code)  # noqa: S102  that is what readers do
    state = ContactState("an-id", {"email": {"update_timestamp": "2026-01-27T10:00:00.123456+00:00"}})

    with StubServer() as stub_server:
        ChangeMessages(client(), stub_server.url).push([state], "key")

    (request,) = stub_server.received
    message = code["received"](request.body, dict(request.headers), OLD)
    shown = json.loads(next(block.text for block in pages.blocks(page("webhook")) if block.language == "json"))
    assert {**message, "data": sorted(message["data"])} == {**shown, "data": sorted(shown["data"])}


def test_the_table_of_attributes_is_that_of_the_code(make_contact: Any) -> None:
    sent = attributes_of("an-id", make_contact(), resubscribe=True)
    table = page("braze").read_text().split("## Field mapping")[1].split("\n## ")[0]

    named = {
        name for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    }
    assert named == set(sent)
