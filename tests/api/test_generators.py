"""Requirements of client generators on `/openapi.json`, for any order of plugins; see `tests/generated_clients`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from tests.api.described import Described, described

CHOICES = {"allOf", "anyOf", "oneOf"}


@pytest.fixture
def document(app: Flask) -> Described:
    return described(app)


def schemas(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema of the document, and everything that resembles one, with its place."""
    if isinstance(value, dict):
        if {"type", "properties", "$ref", *CHOICES} & value.keys():
            yield place, value
        for name, member in value.items():
            yield from schemas(member, f"{place}/{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from schemas(item, f"{place}/{index}")


def class_name(name: str) -> str:
    """Return a name as generators write it, apart from its case."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def test_no_choice_has_sibling_properties(document: Described) -> None:
    for place, schema in schemas(document.document):
        assert "properties" not in schema or not CHOICES & schema.keys(), place


def test_names_and_titles_are_unique(document: Described) -> None:
    names = [class_name(name) for name in document.schemas]
    titles = [class_name(schema["title"]) for _, schema in schemas(document.schemas) if "title" in schema]

    assert len(set(names)) == len(names)
    assert len(set(titles)) == len(titles)
    assert set(titles).isdisjoint(names)


def test_no_schema_has_a_member_of_its_own_name(document: Described) -> None:
    """openapi-python-client names a variable after each: they would collide."""
    for name, schema in document.schemas.items():
        assert class_name(name) not in {class_name(member) for member in schema.get("properties", ())}, name


def test_free_objects_say_that_they_are(document: Described) -> None:
    free = 0
    for place, schema in schemas(document.document):
        if schema.get("type") == "object" and "properties" not in schema:
            assert schema.get("additionalProperties") not in (None, {}), place
            free += schema["additionalProperties"] is True
    assert free > 3


def test_a_choice_has_no_choice_inside(document: Described) -> None:
    """openapi-generator cannot read such a value: it creates classes for both, but tries only one."""
    for place, schema in schemas(document.document):
        for option in (option for choice in CHOICES & schema.keys() for option in schema[choice]):
            for inner, found in schemas(document.resolve(option.get("items", option))):
                types = found.get("type")
                several = isinstance(types, list) and len(set(types) - {"null"}) > 1
                assert not several, f"{place} holds {inner}"


@pytest.mark.parametrize("sent", ["ContactInput", "ContactPut", "ContactPatch"])
@pytest.mark.parametrize("read", ["Contact", "ListedContact"])
def test_a_read_contact_may_be_sent(document: Described, read: str, sent: str) -> None:
    uncovered = list(
        differences(document, {"$ref": f"#/components/schemas/{read}"}, {"$ref": f"#/components/schemas/{sent}"})
    )

    assert uncovered == []


def differences(document: Described, read: dict[str, Any], sent: dict[str, Any], place: str = "") -> Iterator[str]:
    """Yield the places where the type of a request does not cover that of the response."""
    read = document.resolve(read)
    options = [document.resolve(option) for option in document.resolve(sent).get("anyOf", [sent])]
    fitting = [option for option in options if types(read) <= types(option) and "enum" not in option]
    if len(fitting) != 1:
        yield f"{place}: {read} is not covered by {options}"
        return
    (option,) = fitting
    for name, member in option.get("properties", {}).items():
        if name in read["properties"]:
            yield from differences(document, read["properties"][name], member, f"{place}.{name}")
        elif name in option.get("required", ()):
            yield f"{place}.{name} is required"
    if "items" in read:
        yield from differences(document, read["items"], option["items"], f"{place}[]")


def types(schema: dict[str, Any]) -> set[str]:
    """Return the types that a schema names."""
    named = schema["type"]
    return set(named) if isinstance(named, list) else {named}
