"""The rules for the `fields` of waitlists: of several plugins that declare a name, the most specific one decides."""

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

_CACHE_SIZE = 1024


class DurationObserver(Protocol):
    """A histogram of how long a plugin's rules take."""

    def observe(self, amount: float) -> None:
        """Record a duration in seconds."""


class FailureCounter(Protocol):
    """A counter of unexpected errors in a plugin's rules."""

    def inc(self) -> None:
        """Count an error."""


RuleMetrics = Callable[[str], tuple[DurationObserver, FailureCounter]]
"""Returns the metrics for the rules of the plugin with that name."""


class _NullMetric:
    def observe(self, amount: float) -> None: ...

    def inc(self) -> None: ...


def no_metrics(_plugin: str) -> tuple[DurationObserver, FailureCounter]:
    """Return metrics that record nothing."""
    return _NullMetric(), _NullMetric()


class _Rules(NamedTuple):
    """A declared waitlist and the metrics of its rules."""

    registered: Registered[Waitlist]
    seconds: DurationObserver
    failures: FailureCounter


class WaitlistRegistry:
    """The waitlists that plugins declare; `declared` lists names first, then patterns, the longest first."""

    def __init__(self, declared: Sequence[Registered[Waitlist]], metrics_of: RuleMetrics = no_metrics) -> None:
        self.declared = tuple(sorted(declared, key=_exactness))
        metrics = {name: metrics_of(name) for name in {one.plugin.name for one in declared}}
        rules = [_Rules(one, *metrics[one.plugin.name]) for one in self.declared]
        self._named = {one.registered.value.name: one for one in rules if one.registered.value.prefix is None}
        self._patterns = [(one.registered.value.prefix, one) for one in rules]
        # Bounded, because the names come from clients.
        self._rules = lru_cache(_CACHE_SIZE)(self._find)

    def _find(self, name: str) -> _Rules | None:
        if name in self._named:
            return self._named[name]
        return next((one for prefix, one in self._patterns if prefix is not None and name.startswith(prefix)), None)

    def rules_for(self, name: str) -> Registered[Waitlist] | None:
        """Return the declaration for the waitlist `name`: the exact name, else the longest matching pattern."""
        rules = self._rules(name)
        return rules.registered if rules else None

    def validate(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the `fields` of the waitlist `name` for storage; without a declaration they are unchanged.

        Raises `marshmallow.ValidationError`, by field. Any other error of a rule is logged and counted with the name
        of its plugin, and raised as `LoggedError`.
        """
        rules = self._rules(name)
        if rules is None:
            return fields
        started = perf_counter()
        try:
            return rules.registered.value.load(fields)
        except ma.ValidationError:
            raise
        except (Exception, SystemExit) as error:  # `SystemExit` of a plugin must not stop the service
            rules.failures.inc()
            plugin = rules.registered.plugin.name
            logger.exception("waitlist rules of plugin %s failed", plugin, extra={"plugin": plugin})
            raise LoggedError(f"waitlist rules of plugin {plugin} failed") from error
        finally:
            rules.seconds.observe(perf_counter() - started)


def _exactness(one: Registered[Waitlist]) -> tuple[bool, int, str]:
    name = one.value.name
    return (False, 0, name) if one.value.prefix is None else (True, -len(name), name)


def init_waitlist_registry(
    app: Flask, declared: Sequence[Registered[Waitlist]], metrics_of: RuleMetrics = no_metrics
) -> None:
    """Register the waitlist rules with the app; `metrics_of` returns the metrics for a plugin's name."""
    app.extensions["ctms.waitlist_registry"] = WaitlistRegistry(declared, metrics_of)


def waitlist_registry() -> WaitlistRegistry:
    """Return the waitlist rules of the current app."""
    found: WaitlistRegistry = extension("ctms.waitlist_registry")
    return found
