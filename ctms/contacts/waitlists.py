"""Which rules the `fields` of a waitlist obey: those of the plugin whose claim to its name is the most exact."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import marshmallow as ma
from flask import Flask

from ctms.current import extension
from ctms.errors import LoggedError
from ctms.hooks.plugin import Registered
from ctms.hooks.registrations import Waitlist

logger = logging.getLogger(__name__)

_REMEMBERED = 1024


class Seconds(Protocol):
    """Takes how long the rules of a plugin took."""

    def observe(self, amount: float) -> None:
        """Take one time, in seconds."""


class Failures(Protocol):
    """Counts the unexpected errors of a plugin's rules."""

    def inc(self) -> None:
        """Count one."""


Watch = Callable[[str], tuple[Seconds, Failures]]
"""What watches the rules of the plugin of that name."""


class _Unwatched:
    def observe(self, amount: float) -> None: ...

    def inc(self) -> None: ...


def unwatched(_plugin: str) -> tuple[Seconds, Failures]:
    """Watch nothing."""
    return _Unwatched(), _Unwatched()


class _Rules(NamedTuple):
    """The declaration that decides, and who watches it."""

    registered: Registered[Waitlist]
    seconds: Seconds
    failures: Failures


class Waitlists:
    """The waitlists that plugins declared; `declared` has them by exactness: names, then patterns, longest first."""

    def __init__(self, declared: Sequence[Registered[Waitlist]], watch: Watch = unwatched) -> None:
        self.declared = tuple(sorted(declared, key=_exactness))
        watched = {name: watch(name) for name in {one.plugin.name for one in declared}}
        rules = [_Rules(one, *watched[one.plugin.name]) for one in self.declared]
        self._named = {one.registered.value.name: one for one in rules if one.registered.value.beginning is None}
        self._patterns = [(one.registered.value.beginning, one) for one in rules]
        # Names come from clients: how many are remembered is bounded.
        self._rules = lru_cache(_REMEMBERED)(self._find)

    def _find(self, name: str) -> _Rules | None:
        if name in self._named:
            return self._named[name]
        return next(
            (one for beginning, one in self._patterns if beginning is not None and name.startswith(beginning)), None
        )

    def rules_for(self, name: str) -> Registered[Waitlist] | None:
        """Return the declaration that decides about the waitlist `name`: the exact name, else the longest pattern."""
        rules = self._rules(name)
        return rules.registered if rules else None

    def validate(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the `fields` of the waitlist `name` to store; where no plugin knows it, as they are.

        Raises `marshmallow.ValidationError`, by field, and `LoggedError` for whatever else a rule raises: that is
        logged and counted with whose it is.
        """
        rules = self._rules(name)
        if rules is None:
            return fields
        started = perf_counter()
        try:
            return rules.registered.value.load(fields)
        except ma.ValidationError:
            raise
        except (Exception, SystemExit) as error:  # one that ends the process would end the service
            rules.failures.inc()
            plugin = rules.registered.plugin.name
            logger.exception("waitlist rules of plugin %s failed", plugin, extra={"plugin": plugin})
            raise LoggedError(f"waitlist rules of plugin {plugin} failed") from error
        finally:
            rules.seconds.observe(perf_counter() - started)


def _exactness(one: Registered[Waitlist]) -> tuple[bool, int, str]:
    name = one.value.name
    return (False, 0, name) if one.value.beginning is None else (True, -len(name), name)


def init_waitlists(app: Flask, declared: Sequence[Registered[Waitlist]], watch: Watch = unwatched) -> None:
    """Give the app its waitlists, each plugin's rules watched by what `watch` returns for its name."""
    app.extensions["ctms.waitlists"] = Waitlists(declared, watch)


def waitlists() -> Waitlists:
    """The waitlists of the current app."""
    found: Waitlists = extension("ctms.waitlists")
    return found
