"""`flask ctms settings`: what the service would be told."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from sqlalchemy.engine import make_url

from ctms.cli.output import json_option, write_json, write_table
from ctms.environment import Setting
from ctms.hooks.manager import load_plugins
from ctms.readers import serialize
from ctms.settings import Settings

MASK = "***"
COLUMNS = ("variable", "value", "source", "help")
_SECRET_PARAMETERS = ("password", "sslpassword")


@click.command()
@json_option
def settings(as_json: bool) -> None:
    """Show all settings, those of plugins last: the value of each, where it comes from and what it means.

    Secrets are masked.

    A setting comes from the environment variable of its name, from the file that the variable with `_FILE` behind
    its name names, or is the default. Exits with 1 when one or a plugin cannot be used, and says which and why.
    """
    found = Settings.from_environment()
    rows = shown_settings(found, Settings.declared())
    for plugin in load_plugins(found):
        rows += shown_settings(plugin.settings, plugin.declared_settings())
    if as_json:
        write_json(rows)
        return
    write_table(COLUMNS, ([row[column] for column in COLUMNS] for row in rows))


def shown_settings(found: Any, declared: Iterable[tuple[str, Setting, Any]]) -> list[dict[str, Any]]:
    """Return a row for each setting that is `declared`, with the value that it has in `found`, as it may be shown."""
    return [
        {
            "variable": setting.variable,
            "value": shown_value(setting, getattr(found, name)),
            "source": source(setting),
            "help": setting.help,
        }
        for name, setting, _default in declared
    ]


def shown_value(setting: Setting, value: Any) -> Any:
    """Return the value as it may be shown: a database URL without its passwords, of other secrets nothing."""
    if not setting.secret or value is None or (isinstance(value, Sized) and not value):
        return serialize(value)
    if setting.variable != "CTMS_DB_URL":
        return MASK
    url = make_url(value)
    masked = {name: MASK for name in _SECRET_PARAMETERS if name in url.query}
    shown = url.update_query_dict(masked).render_as_string(hide_password=True)
    return shown.replace(quote(MASK, safe=""), MASK)


def source(setting: Setting) -> str:
    """Tell where a setting's value comes from: `environment`, `file` or `default`."""
    if os.environ.get(f"{setting.variable}_FILE"):
        path = Path(os.environ[f"{setting.variable}_FILE"])
        return "file" if path.read_text().strip() else "default"
    return "environment" if os.environ.get(setting.variable, "").strip() else "default"
