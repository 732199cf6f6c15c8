"""Every column of the database is classified: category, purpose, retention."""

from __future__ import annotations

from dataclasses import fields

import pytest
from flask import Flask
from sqlalchemy import Table

from ctms.contacts.classification import Classified, by_column
from ctms.contacts.registry import PARTS
from ctms.contacts.service_tables import SERVICE_TABLES
from ctms.database.engine import db
from tools import personal_data_reference

CLASSIFIED: dict[str, Classified] = {
    **{part.table.name: part.classified for part in PARTS.values()},
    **SERVICE_TABLES,
}


def tables() -> dict[str, Table]:
    """Return the tables of all models of the service, which an app imports."""
    return dict(db.metadata.tables)


def test_every_table_is_classified_and_exists(app: Flask) -> None:  # noqa: ARG001  it imports the models
    assert CLASSIFIED.keys() == tables().keys()


@pytest.mark.parametrize("name", CLASSIFIED)
def test_every_column_is_classified_once(app: Flask, name: str) -> None:  # noqa: ARG001
    classified = [column for columns in CLASSIFIED[name].values() for column in columns]

    assert sorted(classified) == sorted(column.name for column in tables()[name].columns)


@pytest.mark.parametrize("name", CLASSIFIED)
def test_a_classification_is_complete(name: str) -> None:
    for one in CLASSIFIED[name]:
        assert all(getattr(one, field.name) for field in fields(one) if field.name != "personal"), one


@pytest.mark.parametrize("part", PARTS.values(), ids=lambda part: part.name)
def test_what_is_stored_about_a_person_is_personal(part: object) -> None:
    assert {name for name, one in by_column(PARTS[part.name].classified).items() if not one.personal} <= {"id"}  # type: ignore[attr-defined]


def test_a_column_without_a_classification_is_found() -> None:
    part = PARTS["email"]
    missing = {one: columns for one, columns in part.classified.items() if "first_name" not in columns}

    assert "first_name" in {column.name for column in part.table.columns} - by_column(missing).keys()


def test_the_page_is_that_of_the_code() -> None:
    written = personal_data_reference.PAGE.read_text()

    assert written == personal_data_reference.page(), "run `tox -e reference`"
    for name, classified in CLASSIFIED.items():
        assert f"`{name}`" in written
        assert all(f"`{column}`" in written for columns in classified.values() for column in columns)
