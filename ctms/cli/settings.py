"""`flask ctms settings`: the settings of the service."""

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
    """Show all settings, those of plugins last: value, source and meaning.

    Secrets are masked.

    A setting comes from the environment variable of its name, from the file that the variable with the suffix `_FILE`
    names, or is the default. Exits with 1 and the reason if a setting or a plugin cannot be used.
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
    """Return a row for each `declared` setting, with its value in `found`, as it may be shown."""
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
    """Return the value as it may be shown: a database URL without its passwords, secrets masked."""
    if not setting.secret or value is None or (isinstance(value, Sized) and not value):
        return serialize(value)
    if setting.variable != "CTMS_DB_URL":
        return MASK
    url = make_url(value)
    masked = {name: MASK for name in _SECRET_PARAMETERS if name in url.query}
    shown = url.update_query_dict(masked).render_as_string(hide_password=True)
    return shown.replace(quote(MASK, safe=""), MASK)


def source(setting: Setting) -> str:
    """Return the source of a setting's value: `environment`, `file` or `default`."""
    if os.environ.get(f"{setting.variable}_FILE"):
        path = Path(os.environ[f"{setting.variable}_FILE"])
        return "file" if path.read_text().strip() else "default"
    return "environment" if os.environ.get(setting.variable, "").strip() else "default"
