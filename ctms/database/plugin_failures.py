"""What the code of plugins failed with in the database, for operators: one line without values of rows."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

from ctms.database.errors import NO_SCHEMA, describe, driver_error
from ctms.database.migrations import problem_of_plugins
from ctms.database.operator_errors import database_problem, is_migrated
from ctms.database.revisions import schema_of
from ctms.hooks.places import place_of_error
from ctms.hooks.plugin import Plugin


def failure_of(plugin: Plugin, error: BaseException) -> str:
    """Return with what the code of a plugin failed, in one line without values of rows.

    Where a table is missing, say how to reach those of plugins.
    """
    cause = driver_error(error)
    if cause is None:
        return type(error).__name__
    hint = f" (the tables of the plugin are named {schema_of(plugin.name)}.…)" if isinstance(cause, NO_SCHEMA) else ""
    return f"{describe(cause)}{hint}"


def command_problem(plugin: Plugin, command: str, error: psycopg.Error | DBAPIError) -> str:
    """Return in one line why a plugin's command failed in the database of the current app."""
    cause = driver_error(error)
    if isinstance(cause, NO_SCHEMA):
        problem = problem_of_plugins(plugin.name) if is_migrated() else database_problem(cause)
        if problem is not None:
            return problem
    elif (problem := database_problem(cause)) is not None:
        return f"{plugin.title}: {problem}"
    place = place_of_error(error, plugin.module)
    return f"{plugin.title}: its command {command} failed with {failure_of(plugin, error)}" + (
        f", in {place}" if place else ""
    )
