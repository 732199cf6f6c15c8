"""Database errors of commands and of plugins' code: one line without values of rows."""

from __future__ import annotations

from ctms.database.errors import NO_SCHEMA, database_error_in, describe, driver_error
from ctms.database.migrations import problem_of_plugins
from ctms.database.operator_errors import database_problem, is_migrated
from ctms.database.revisions import schema_of
from ctms.hooks.places import place_of_error
from ctms.hooks.plugin import Plugin


def failure_of(plugin: Plugin | None, error: BaseException) -> str:
    """Return the database error of a plugin's code, or of CTMS, in one line without values of rows.

    If a table is missing, explain how to name those of plugins.
    """
    cause = driver_error(error)
    if cause is None:
        return type(error).__name__
    if plugin is None:
        return describe(cause)
    hint = f" (the tables of the plugin are named {schema_of(plugin.name)}.…)" if isinstance(cause, NO_SCHEMA) else ""
    return f"{describe(cause)}{hint}"


def command_problem(plugin: Plugin | None, command: str, error: Exception) -> str:
    """Return in one line why a command, of a plugin or of CTMS, failed in the database of the current app."""
    found = database_error_in(error) or error
    cause = driver_error(found)
    if plugin is not None and isinstance(cause, NO_SCHEMA):
        problem = problem_of_plugins(plugin.name) if is_migrated() else database_problem(cause)
        if problem is not None:
            return problem
    elif (problem := database_problem(cause)) is not None:
        return problem if plugin is None else f"{plugin.title}: {problem}"
    place = place_of_error(error, "ctms" if plugin is None else plugin.module)
    failure = failure_of(plugin, found) + (f", in {place}" if place else "")
    if plugin is None:
        return f"the command {command} failed with {failure}: report it"
    return f"{plugin.title}: its command {command} failed with {failure}"
