"""Which rules the `fields` of a waitlist obey: those of the plugin whose claim to its name is the most exact."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import marshmallow as ma
from flask import Flask, current_app

from ctms.hooks.manager import Registered
from ctms.hooks.registrations import Waitlist

logger = logging.getLogger(__name__)

_REMEMBERED = 1024


class Waitlists:
    """The waitlists that plugins declared."""

    def __init__(self, declared: Sequence[Registered[Waitlist]]) -> None:
        self.declared = tuple(declared)
        self._named = {one.value.name: one for one in declared if one.value.beginning is None}
        patterns = [one for one in declared if one.value.beginning is not None]
        self._patterns = sorted(patterns, key=lambda one: len(one.value.name), reverse=True)
        # Names come from clients: how many are remembered is bounded.
        self.rules_for = lru_cache(_REMEMBERED)(self._rules_for)

    def _rules_for(self, name: str) -> Registered[Waitlist] | None:
        """Return the declaration that decides about the waitlist `name`: the exact name, else the longest pattern."""
        if name in self._named:
            return self._named[name]
        return next((one for one in self._patterns if name.startswith(one.value.beginning or "")), None)

    def validate(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the `fields` of the waitlist `name` to store; where no plugin knows it, as they are.

        Raises `marshmallow.ValidationError`, by field, and whatever a faulty rule raises, after logging whose it is.
        """
        rules = self.rules_for(name)
        if rules is None:
            return fields
        try:
            return rules.value.load(fields)
        except ma.ValidationError:
            raise
        except Exception:
            logger.exception("waitlist rules failed", extra={"plugin": rules.plugin.name})
            raise


def init_waitlists(app: Flask, declared: Sequence[Registered[Waitlist]]) -> None:
    """Give the app its waitlists."""
    app.extensions["ctms.waitlists"] = Waitlists(declared)


def waitlists() -> Waitlists:
    """The waitlists of the current app."""
    found: Waitlists = current_app.extensions["ctms.waitlists"]
    return found
