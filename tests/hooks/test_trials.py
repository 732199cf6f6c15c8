"""Results of waitlist rules that JSON does not have are detected at start."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from typing import Any

import marshmallow as ma
import pytest

from ctms.hooks.trials import find_unstorable
from ctms.plugins import RegistrationError, Waitlist


class Size(enum.Enum):
    """Its values are no JSON."""

    SMALL = Decimal(1)


class Plain(ma.fields.Field[Any]):
    """A plugin's own field type, which dumps what it loads."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return dt.date.fromisoformat(value)


class Priced(ma.Schema):
    """A schema within another."""

    price = ma.fields.Decimal(required=True)


def waitlist(**how: Any) -> Waitlist:
    """Return a waitlist with these fields, or declared so."""
    fields = {name: field for name, field in how.items() if isinstance(field, ma.fields.Field)}
    others = {name: value for name, value in how.items() if name not in fields}
    if fields:
        others["schema"] = ma.Schema.from_dict(fields)
    return Waitlist(name="hub", title="Hub", **others)


def as_decimal(fields: dict[str, Any]) -> dict[str, Any]:
    """Make numbers exact."""
    return {name: Decimal(value) for name, value in fields.items()}


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ({"x": ma.fields.Decimal()}, "Decimal"),
        ({"x": ma.fields.Decimal(required=True, validate=ma.validate.Range(min=1000))}, "Decimal"),
        ({"y": ma.fields.String(required=True), "x": ma.fields.Decimal(data_key="the price")}, "Decimal"),
        ({"x": ma.fields.List(ma.fields.Decimal())}, "Decimal"),
        ({"x": ma.fields.Dict(ma.fields.String(), ma.fields.Decimal())}, "Decimal"),
        ({"x": ma.fields.Tuple((ma.fields.String(), ma.fields.Decimal()))}, "Decimal"),
        ({"x": ma.fields.Nested(Priced)}, "Decimal"),
        ({"x": ma.fields.List(ma.fields.Nested(Priced))}, "Decimal"),
        ({"x": Plain()}, "date"),
        ({"x": ma.fields.Raw(load_default=object)}, "object"),
        ({"x": ma.fields.Float(allow_nan=True, load_default=float("inf"))}, "float that is not finite"),
        ({"x": ma.fields.Enum(Size, by_value=ma.fields.Raw)}, "Decimal"),
        ({"x": ma.fields.Integer(), "check": as_decimal}, "Decimal"),
        ({"check": lambda _: {"at": {"deep": [object()]}}}, "object"),
        ({"check": lambda _: {"at": {1, 2}}}, "set"),
    ],
)
def test_it_is_found(declared: dict[str, Any], kind: str) -> None:
    found = find_unstorable(waitlist(**declared))

    assert found is not None
    assert found.endswith(f"make{'s' if found.startswith('the field') else ''} a {kind}, which JSON does not have")


@pytest.mark.parametrize(
    "declared",
    [
        {"x": ma.fields.Decimal(as_string=True)},
        {"x": ma.fields.Float(), "y": ma.fields.Date(), "z": ma.fields.UUID(), "u": ma.fields.Url(), "b": Plain},
        {"x": ma.fields.Decimal(load_only=True)},
        {"x": ma.fields.Nested(lambda: ma.Schema.from_dict({"a": ma.fields.AwareDateTime()}))},
        {"x": ma.fields.Enum(Size)},
        {"x": ma.fields.TimeDelta(), "y": ma.fields.IP(), "z": ma.fields.Constant(1)},
        {"check": lambda fields: {**fields, "referrer": fields["referrer"].strip()}},
        {"check": dict},
    ],
)
def test_json_values_are_accepted(declared: dict[str, Any]) -> None:
    assert find_unstorable(waitlist(**{k: v for k, v in declared.items() if v is not Plain})) is None


class Open(ma.Schema):
    """Keeps unknown fields."""

    seats = ma.fields.Integer()

    class Meta:
        """As the author wrote it."""

        unknown = ma.INCLUDE


class TestUnknown:
    @pytest.mark.parametrize(("unknown", "kept"), [("accept", {"seats": 1, "more": 2}), ("drop", {"seats": 1})])
    def test_of_fields_that_are_not_known(self, unknown: Any, kept: dict[str, Any]) -> None:
        declared = waitlist(seats=ma.fields.Integer(), unknown=unknown)

        assert declared.load({"seats": 1, "more": 2}) == kept

    def test_refused(self) -> None:
        with pytest.raises(ma.ValidationError):
            waitlist(seats=ma.fields.Integer()).load({"more": 2})

    @pytest.mark.parametrize(
        ("schema", "unknown", "meant"),
        [
            (Open, "refuse", "accept"),
            (Open(), "drop", "accept"),
            (Priced(unknown=ma.EXCLUDE), "accept", "drop"),
            (type("Strict", (Priced,), {"Meta": type("Meta", (), {"unknown": ma.RAISE})}), "accept", "refuse"),
        ],
    )
    def test_a_contradicting_schema_is_refused(self, schema: Any, unknown: Any, meant: str) -> None:
        with pytest.raises(RegistrationError, match=f"set unknown='{meant}', or remove it from the schema$"):
            waitlist(schema=schema, unknown=unknown)

    def test_a_consistent_schema_is_accepted(self) -> None:
        assert waitlist(schema=Open, unknown="accept").load({"more": 2}) == {"more": 2}

    def test_without_a_schema_nothing_can_be_dropped(self) -> None:
        with pytest.raises(RegistrationError, match="no schema that names the known ones"):
            waitlist(check=dict, unknown="drop")
