"""Conditions on contacts in the bodies of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from ctms.api.openapi.conditions import CONDITION
from ctms.contacts import fields
from ctms.contacts.fields import Message
from ctms.search.conditions import Condition, ConditionError, parse_condition


class ConditionField(fields.Field):
    """A condition on contacts. Its problems have their places in it."""

    component = CONDITION

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Condition:
        try:
            return parse_condition(value)
        except ConditionError as error:
            messages: Any = [Message(error.problem, "condition")]
            for one in reversed(error.place):
                messages = {one: messages}
            raise ma.ValidationError(messages) from None


class ConditionDataField(ConditionField):
    """A condition that is checked, but stored as it was sent."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        super()._deserialize(value, attr, data, **kwargs)
        return value
