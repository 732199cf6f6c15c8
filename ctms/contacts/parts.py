"""Parts and identities of a contact, as `registry` lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import marshmallow as ma
from sqlalchemy import Column, String, Table, Text, Uuid
from sqlalchemy.dialects import postgresql

from ctms import addresses
from ctms.contacts import fields
from ctms.contacts.classification import Classification, Classified, by_column
from ctms.database.engine import Model


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a contact: the sub-document `email`, another sub-document, or with `many` a list of named entries.

    `name` is its member of the contact, `alias` its table's name in SQL. `schema` has the values that clients write and
    those that they only read. An entry of a list has at least `name` and `subscribed`. `classified` has the
    classification of each column of the table.
    """

    name: str
    alias: str
    model: type[Model]
    schema: type[fields.Schema]
    many: bool = False
    required: bool = False
    """Whether every contact has a row: `email` only. Another sub-document without a row reads as its defaults."""
    classified: Classified = field(default_factory=dict)

    @property
    def table(self) -> Table:
        """The table; in SQL, its name."""
        return cast(Table, self.model.__table__)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the unique key."""
        return ("email_id", "name") if self.many else ("email_id",)

    @cached_property
    def classifications(self) -> Mapping[str, Classification]:
        """The classification of each column of the table."""
        return by_column(self.classified)

    @cached_property
    def fields(self) -> Mapping[str, ma.fields.Field[Any]]:
        """The fields of the schema that have a column, by column."""
        found = self.schema().fields.items()
        return {field.attribute or name: field for name, field in found if not field.load_only}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that clients may write."""
        return tuple(name for name, field in self.fields.items() if not field.dump_only)

    @cached_property
    def defaults(self) -> Mapping[str, Any]:
        """The default of each column that has one."""
        return {
            name: field.load_default() if callable(field.load_default) else field.load_default
            for name, field in self.fields.items()
            if name in self.columns and not field.required
        }

    @cached_property
    def types(self) -> Mapping[str, str]:
        """The SQL type of each column; text has no length limit, because a cast to one truncates silently."""
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        return {
            name: "text" if isinstance(column.type, String | Text) else column.type.compile(dialect=dialect)
            for name, column in self.table.columns.items()
        }

    def is_default(self, values: Mapping[str, Any] | None) -> bool:
        """Return whether the values are all defaults, so that no row is needed."""
        return not values or all(values[name] == default for name, default in self.defaults.items())


@dataclass(frozen=True, eq=False)
class Identity:
    """A value by which other systems know a contact, in an indexed `column` of a sub-document.

    An address (`is_address`) has an index on its lower case, and is found in any spelling.
    """

    name: str
    part: Part
    column: str
    is_address: bool = False

    @property
    def sql(self) -> str:
        """The column in SQL."""
        return f"{self.part.alias}.{self.column}"

    @cached_property
    def has_uuid_column(self) -> bool:
        """Whether the column has the type `uuid`."""
        return isinstance(self._column.type, Uuid)

    @property
    def is_uuid(self) -> bool:
        """Whether its values are UUIDs, whatever the type of the column is."""
        return isinstance(self.part.fields[self.column], fields.UUID)

    @cached_property
    def unique_constraints(self) -> Sequence[str]:
        """The names of the constraints and indexes that let one contact only have a value."""
        table = self.part.table
        names = [f"{table.name}_pkey"] if self._column.primary_key else []
        names += [f"{table.name}_{self.column}_key"] if self._column.unique else []
        lowered = f"lower({self.column})"
        return names + [
            str(index.name) for index in table.indexes if index.unique and lowered in map(str, index.expressions)
        ]

    def build_request_field(self, **options: Any) -> fields.Field:
        """Return the field of a request that searches for a value."""
        return fields.UUID(**options) if self.is_uuid else fields.String(**options)

    def build_response_field(self) -> fields.Field:
        """Return the field of a response: the value as the column holds it."""
        nullable = not self.part.required or bool(self._column.nullable)
        return fields.UUID(allow_none=nullable) if self.has_uuid_column else fields.String(allow_none=nullable)

    def expand_value(self, value: Any) -> Sequence[Any]:
        """Return the values to compare the column with: all spellings of an address, otherwise the value."""
        if self.is_address:
            return addresses.spellings(value)
        return (value if self.has_uuid_column else str(value),)

    def match_condition(self, count: int) -> str:
        """Return the SQL condition for a number of values, which uses the index."""
        return addresses.match_condition(self.sql, count) if self.is_address else f"{self.sql} = %s"

    @property
    def _column(self) -> Column[Any]:
        return self.part.table.columns[self.column]
