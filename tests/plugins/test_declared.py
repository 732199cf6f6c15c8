"""Waitlists and newsletters as data: TOML and JSON files, for waitlists with the JSON Schema of the fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import marshmallow as ma
import pytest
import requests

from ctms.hooks.manager import load_plugins
from ctms.plugins import OperatorError, RegistrationError, Waitlist
from ctms.settings import Settings
from ctms_plugins import declared
from ctms_plugins.declared.causes import regex_problem
from tests.docs import pages
from tests.forked_shell import activated
from tests.serving import serve

HUB = """\
# What people tell us who wait for the hub.
[hub]
title = "Hub"
description = "People who wait for the hub."
schema.required = ["referrer"]
schema.properties.referrer = {type = "string", minLength = 1, maxLength = 100}
schema.properties.seats = {type = "integer", minimum = 1, maximum = 500}
schema.additionalProperties = false
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the folder."""

    def write_text(text: str, name: str = "lists.toml") -> Path:
        file = tmp_path / name
        file.write_text(text)
        return file

    return write_text


def waitlists(path: Path | None) -> list[Waitlist]:
    """Return the plugin's declarations for its setting."""
    return list(declared.ctms_waitlists(declared.Settings(path=path)))


def refused(path: Path) -> str:
    """Return why the files cannot be used, without the folder."""
    with pytest.raises(RegistrationError) as raised:
        waitlists(path)
    folder = path if path.is_dir() else path.parent
    return str(raised.value).replace(f"{folder}/", "")


def problems(schema: dict[str, Any], fields: dict[str, Any], write: Write) -> Any:
    """Return the messages about fields that the schema refuses."""
    (waitlist,) = waitlists(write(json.dumps({"hub": {"title": "Hub", "schema": schema}}), "lists.json"))
    with pytest.raises(ma.ValidationError) as raised:
        waitlist.load(fields)
    return raised.value.messages


HARMLESS_PATTERNS = [r"\(?=a", r"[(?=]a", r"[^\](?=]b", r"a\\1", r"(?:a)+", r"(?i)a", r"a+?"]


@pytest.mark.parametrize("pattern", HARMLESS_PATTERNS)
def test_patterns_that_only_look_slow(pattern: str, write: Write) -> None:
    schema = {"properties": {"b": {"pattern": pattern}}}

    assert waitlists(write(json.dumps({"hub": {"title": "Hub", "schema": schema}}), "lists.json"))
    assert "look-around" not in regex_problem(pattern)
    assert "back-reference" not in regex_problem(pattern)


class TestFiles:
    def test_without_a_path_nothing_is_declared(self) -> None:
        assert waitlists(None) == []

    def test_a_toml_file(self, write: Write) -> None:
        (hub,) = waitlists(write(HUB))

        assert (hub.name, hub.title, hub.description) == ("hub", "Hub", "People who wait for the hub.")
        assert hub.json_schema is not None
        assert hub.json_schema["properties"]["seats"] == {"type": "integer", "minimum": 1, "maximum": 500}
        assert hub.load({"referrer": "a friend", "seats": 3}) == {"referrer": "a friend", "seats": 3}

    def test_a_json_file_with_several_waitlists(self, write: Write) -> None:
        file = write(
            '{"b": {"title": "B", "schema": {}}, "a-*": {"title": "A", "schema": {"maxProperties": 1}}}', "a.json"
        )

        found = waitlists(file)

        assert [(one.name, one.prefix, one.description) for one in found] == [("b", None, ""), ("a-*", "a-", "")]
        assert found[0].load({"any": ["thing"]}) == {"any": ["thing"]}

    def test_a_folder_of_both_where_other_files_do_not_matter(self, write: Write, tmp_path: Path) -> None:
        write('{"b": {"title": "B", "schema": {}}}', "2.json")
        write('[a]\ntitle = "A"\nschema = {}\n', "1.toml")
        write("not to be read", "README.md")

        assert [one.name for one in waitlists(tmp_path)] == ["a", "b"]

    def test_an_empty_folder_declares_nothing(self, tmp_path: Path) -> None:
        assert waitlists(tmp_path) == []


GOOD = '[good]\ntitle = "Good"\nschema = {}\n\n'
BAD_FILES = {
    "TOML": (f"{GOOD}[bad\n", "lists.toml, line 5: "),
    "TOML that ends early": (f'{GOOD}x = """', "lists.toml, line 5: "),
    "a table twice": (f"{GOOD}[good]\n", "lists.toml, line 5: "),
    "no table": ("good = 1\n", "lists.toml, line 1: good must be the table"),
    "no title": (f"{GOOD}[bad]\nschema = {{}}\n", "lists.toml, line 5: the waitlist 'bad' needs a title"),
    "a title that is no text": (
        "[bad]\ntitle = 5\nschema = {}",
        "lists.toml, line 1: the waitlist 'bad' has a title that",
    ),
    "no schema": ('[bad]\ntitle = "Bad"', "lists.toml, line 1: the waitlist 'bad' needs a schema"),
    "a misspelt member": (
        '[bad]\ntitle = "Bad"\nschma = {}',
        "lists.toml, line 1: the waitlist 'bad' has schma, but may have title, description, schema",
    ),
    "a bad name": (f'{GOOD}["*bad"]\ntitle = "Bad"\nschema = {{}}', "lists.toml, line 5: the name of a waitlist has"),
    "a date": (
        f'{GOOD}[bad]\ntitle = "Bad"\nschema.const = 2020-01-01',
        "lists.toml, line 5: the waitlist 'bad' has a value in its schema that JSON has not",
    ),
}
BAD_SCHEMAS = {
    "a misspelt keyword": (
        'b = {typ = "string"}',
        "schema.properties.b has typ, which JSON Schema 2020-12 does not know",
    ),
    "a misspelt type": (
        'b = {type = "strnig"}',
        'schema.properties.b.type: "strnig" is no type: did you mean "string"?',
    ),
    "a misspelt type in a list": (
        'b = {type = ["null", "bool"]}',
        'schema.properties.b.type: "bool" is no type: did you mean "boolean"?',
    ),
    "a type of another language": (
        'b = {type = "text"}',
        'schema.properties.b.type: "text" is no type: did you mean "string"?',
    ),
    "a type that is none at all": ("b = {type = 5}", "schema.properties.b.type: 5 is no type: the types are array, "),
    "no type": ("b = {type = []}", "schema.properties.b.type: must be a type, or a list of different ones, not []: "),
    "text for a number": ('b = {minimum = "1"}', 'schema.properties.b.minimum: "1" is not of type "number"'),
    "a reference to elsewhere": (
        'b = {"$ref" = "https://example.com/schema.json"}',
        "schema.properties.b.$ref must begin with #/",
    ),
    "a reference to nothing": ('b = {"$ref" = "#/$defs/b"}', "schema: Pointer '/$defs/b' does not exist"),
    "a name of its own": ('b = {"$id" = "b"}', "schema.properties.b.$id cannot be used here"),
    "an unknown format": ('b = {format = "nonsense"}', "schema.properties.b.format: Unknown format: 'nonsense'"),
    "a pattern that is none": ('b = {pattern = "("}', 'schema.properties.b.pattern: "(" is no regular expression'),
    "a pattern that can be slow": (
        'b = {pattern = "(?=a)a"}',
        'schema.properties.b.pattern: "(?=a)a" has look-arounds, such as (?=…) or (?<!…), which take more than',
    ),
    "a pattern that looks back": (
        "b = {pattern = '(?<!a)(b)\\1'}",
        'schema.properties.b.pattern: "(?<!a)(b)\\\\1" has look-arounds, such as (?=…) or (?<!…), and back-references',
    ),
    "a pattern that does not go back": (
        'b = {pattern = "(?>a)"}',
        'schema.properties.b.pattern: "(?>a)" has atomic groups',
    ),
    "a pattern that is too large": (
        'b = {pattern = "a{1000}{1000}"}',
        'schema.properties.b.pattern: "a{1000}{1000}" is too large an expression',
    ),
}
BAD_JSON = {
    "JSON": ('{"good": {"title": "Good", "schema": {}},\n"bad": {,}}', "lists.json, line 2: "),
    "a member twice": ('{\n"a": {"title": "A", "schema": {}},\n"a": {}}', "lists.json, line 2: 'a' occurs twice"),
    "a list": ("[]", "lists.json: must be an object whose members are waitlists, by name"),
    "too deep": ("[" * 100_000, "lists.json: is nested too deeply"),
    "a name that is a keyword elsewhere": (
        '{\n"a": {\n    "title": "A", "schema": {\n    "title": "b"}},\n"title": {"schema": {}}}',
        "lists.json, line 5: the waitlist 'title' needs a title",
    ),
}


class TestBadFiles:
    @pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
    def test_of_toml_are_named_with_the_line(self, write: Write, text: str, message: str) -> None:
        assert refused(write(text)).startswith(message)

    @pytest.mark.parametrize(("text", "message"), BAD_JSON.values(), ids=BAD_JSON)
    def test_of_json_are_named_with_the_line(self, write: Write, text: str, message: str) -> None:
        assert refused(write(text, "lists.json")).startswith(message)

    @pytest.mark.parametrize(("text", "message"), BAD_SCHEMAS.values(), ids=BAD_SCHEMAS)
    def test_a_wrong_schema_is_named_with_the_line_of_its_waitlist(self, write: Write, text: str, message: str) -> None:
        file = write(f'{GOOD}[bad]\ntitle = "Bad"\nschema.properties.{text}\n')

        assert refused(file).startswith(f"lists.toml, line 5: {message}")

    def test_of_another_kind_are_refused_when_they_are_named(self, write: Write) -> None:
        assert refused(write("", "lists.yaml")) == (
            "lists.yaml: the name of a file that declares waitlists must end in .toml or .json"
        )

    def test_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "lists.toml").write_bytes(b"\xff")

        assert refused(tmp_path) == "lists.toml: cannot be read as UTF-8 text (UnicodeDecodeError)"

    def test_a_waitlist_in_two_files_is_refused_naming_both(self, write: Write, tmp_path: Path) -> None:
        write(HUB, "a.toml")
        write('{"hub": {"title": "Hub", "schema": {}}}', "b.json")

        assert refused(tmp_path) == "b.json, line 1: a.toml, line 2 also declares the waitlist 'hub'"

    def test_stop_the_start_with_the_plugin_the_file_and_the_line(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = write(f"{GOOD}[bad]\n")
        monkeypatch.setenv("CTMS_PLUGIN_DECLARED_PATH", str(file))

        with pytest.raises(
            OperatorError, match=rf"plugin 'declared' of ctms .*{file}, line 5: the waitlist 'bad' needs"
        ):
            load_plugins(Settings())

    @pytest.mark.parametrize("variable", ["CTMS_PLUGIN_DECLARED_PATH", "CTMS_PLUGIN_DECLARED_NEWSLETTERS_PATH"])
    def test_a_path_that_is_not_there_stops_the_start(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, str(tmp_path / "nowhere"))

        with pytest.raises(OperatorError, match=f"{variable} must name an existing file or folder"):
            load_plugins(Settings())


# A schema of the field `a`, an invalid value, the message and type of its error.
BAD_VALUES: dict[str, tuple[dict[str, Any], Any, str, str]] = {
    "type": ({"type": "string"}, 31337, "Should be text", "type"),
    "types": ({"type": ["integer", "null"]}, "31337", "Should be a whole number or null", "type"),
    "minimum": ({"minimum": 1}, -31337, "Should be 1 or more", "minimum"),
    "maximum": ({"maximum": 500}, 31337, "Should be 500 or less", "maximum"),
    "a huge number": ({"maximum": 500}, 31337 * 10**400, "Should be 500 or less", "maximum"),
    "exclusiveMinimum": ({"exclusiveMinimum": 1}, -31337, "Should be more than 1", "exclusiveMinimum"),
    "exclusiveMaximum": ({"exclusiveMaximum": 5}, 31337, "Should be less than 5", "exclusiveMaximum"),
    "multipleOf": ({"multipleOf": 5}, 31337, "Should be a multiple of 5", "multipleOf"),
    "minLength": ({"minLength": 9}, "31337", "Should have at least 9 characters", "minLength"),
    "maxLength": ({"maxLength": 2}, "31337", "Should have at most 2 characters", "maxLength"),
    "pattern": ({"pattern": "^[a-z]{2}$"}, "31337", "Should match the pattern ^[a-z]{2}$", "pattern"),
    "format": ({"format": "date"}, "31337", "Should be a valid date", "format"),
    "enum": ({"enum": ["x", 1, None]}, "31337", 'Should be one of "x", 1, null', "enum"),
    "const": ({"const": {"x": 1}}, "31337", 'Should be {"x": 1}', "const"),
    "minItems": ({"minItems": 2}, ["31337"], "Should have at least 2 entries", "minItems"),
    "maxItems": ({"maxItems": 0}, ["31337"], "Should have at most 0 entries", "maxItems"),
    "uniqueItems": ({"uniqueItems": True}, ["31337", "31337"], "Should have no entry twice", "uniqueItems"),
    "contains": ({"contains": {"const": 1}}, ["31337"], "Does not fit the rule 'contains'", "contains"),
    "minProperties": ({"minProperties": 2}, {"b": "31337"}, "Should have at least 2 members", "minProperties"),
    "maxProperties": ({"maxProperties": 0}, {"b": "31337"}, "Should have at most 0 members", "maxProperties"),
    "anyOf": ({"anyOf": [{"type": "null"}]}, "31337", "Does not fit the rule 'anyOf'", "anyOf"),
    "oneOf": ({"oneOf": [True, True]}, "31337", "Does not fit the rule 'oneOf'", "oneOf"),
    "not": ({"not": {"type": "string"}}, "31337", "Does not fit the rule 'not'", "not"),
    "false": (False, "31337", "Should not be there", "falseSchema"),  # type: ignore[dict-item]
    "then": ({"if": True, "then": {"type": "null"}}, "31337", "Should be null", "type"),
    "$ref": ({"$ref": "#/$defs/short"}, "31337", "Should have at most 1 character", "maxLength"),
}


class TestRules:
    @pytest.mark.parametrize(("schema", "value", "words", "kind"), BAD_VALUES.values(), ids=BAD_VALUES)
    def test_a_bad_value_is_named_by_its_field_and_not_repeated(
        self, write: Write, schema: dict[str, Any], value: Any, words: str, kind: str
    ) -> None:
        whole = {"properties": {"a": schema}, "$defs": {"short": {"maxLength": 1}}}

        messages = problems(whole, {"a": value}, write)

        assert messages == {"a": [words]}
        assert messages["a"][0].type == kind
        assert "31337" not in repr(messages)

    def test_every_field_at_fault_is_named(self, write: Write) -> None:
        schema = {
            "required": ["referrer", "other"],
            "properties": {"seats": {"minimum": 1}},
            "additionalProperties": False,
            "propertyNames": {"pattern": "^[a-z]+$"},
        }

        assert problems(schema, {"seats": 0, "X": 1}, write) == {
            "referrer": ["Field required"],
            "other": ["Field required"],
            "seats": ["Should be 1 or more"],
            "X": ["Unknown field", "The name of this field is not allowed"],
        }

    def test_missing_fields_have_the_type_missing(self, write: Write) -> None:
        found = [
            problems({"required": ["b"]}, {"a": 1}, write),
            problems({"dependentRequired": {"a": ["b"]}}, {"a": 1}, write),
        ]

        assert [messages["b"][0].type for messages in found] == ["missing", "missing"]

    def test_nested_errors_have_a_path(self, write: Write) -> None:
        address = {
            "required": ["city"],
            "minProperties": 2,
            "properties": {"tags": {"items": {"type": "string"}}},
        }

        assert problems({"properties": {"address": address}}, {"address": {"tags": ["a", 31337]}}, write) == {
            "address": {
                "city": ["Field required"],
                "_schema": ["Should have at least 2 members"],
                "tags": {1: ["Should be text"]},
            }
        }

    def test_rules_for_all_fields_together_name_none(self, write: Write) -> None:
        assert problems({"minProperties": 1}, {}, write) == {"_schema": ["Should have at least 1 member"]}

    def test_a_value_that_slow_patterns_are_slow_on_is_read_at_once(self, write: Write) -> None:
        slow_elsewhere = {"properties": {"a": {"pattern": "^(a+)+$"}}}

        assert problems(slow_elsewhere, {"a": "a" * 10_000 + "b"}, write) == {"a": ["Should match the pattern ^(a+)+$"]}


def test_a_waitlist_is_served_while_its_file_exists(tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "hub.toml").write_text(HUB)

    def send(url: str, session: requests.Session, address: str, fields: Any) -> requests.Response:
        body: dict[str, Any] = {
            "email": {"primary_email": address},
            "waitlists": [{"name": "hub", "fields": fields}],
        }
        return session.post(f"{url}/ctms", json=body, timeout=30)

    with serve(tmp_path, CTMS_PLUGIN_DECLARED_PATH=str(folder)) as running, running.session() as session:
        secret = running.client_secret
        for fields, at in (
            ({}, ["referrer"]),
            ({"referrer": "x", "seats": 0}, ["seats"]),
            ({"referrer": "x", "seats": 501}, ["seats"]),
            ({"referrer": 5, "more": 1}, ["more", "referrer"]),
        ):
            answer = send(running.url, session, "bad@example.com", fields)
            assert answer.status_code == 422, answer.text
            found = sorted(problem["loc"] for problem in answer.json()["detail"])
            assert found == [["body", "waitlists", 0, "fields", name] for name in at]
        good = {"referrer": "a friend", "seats": 500}
        stored = send(running.url, session, "good@example.com", good).json()
        assert stored["waitlists"][0]["fields"] == good
        path = f"/ctms/{stored['email']['email_id']}"
        change: dict[str, Any] = {"waitlists": [{"name": "hub", "fields": {"seats": 2}}]}
        assert session.patch(running.url + path, json=change, timeout=30).status_code == 422
        (hub,) = [one for one in session.get(f"{running.url}/waitlists", timeout=30).json() if one["name"] == "hub"]
        assert (hub["title"], hub["plugin"], hub["schema"]["required"]) == ("Hub", "declared", ["referrer"])
        assert "Fields.hub" in requests.get(f"{running.url}/openapi.json", timeout=30).json()["components"]["schemas"]
        metrics = requests.get(f"{running.url}/metrics", timeout=30).text
        assert 'ctms_waitlist_rules_seconds_count{plugin="declared"} 6.0' in metrics
        assert 'ctms_waitlist_rules_failures_total{plugin="declared"} 0.0' in metrics

    (folder / "hub.toml").unlink()
    with serve(tmp_path, CTMS_PLUGIN_DECLARED_PATH=str(folder)) as running:
        running.client_secret = secret
        with running.session() as session:
            assert "hub" not in {one["name"] for one in session.get(f"{running.url}/waitlists", timeout=30).json()}
            document = requests.get(f"{running.url}/openapi.json", timeout=30).json()
            assert "Fields.hub" not in document["components"]["schemas"]
            assert session.get(running.url + path, timeout=30).json()["waitlists"][0]["fields"] == good
            assert send(running.url, session, "free@example.com", {"seats": 0}).status_code == 201


def test_the_how_to_works(tmp_path: Path) -> None:
    page = pages.DOCS / "how-to" / "declare-waitlists.md"
    file = tmp_path / "lists" / "hub.toml"
    file.parent.mkdir()
    file.write_text(pages.marked(page, "file: lists/hub.toml"))

    with serve(tmp_path, CTMS_PLUGIN_DECLARED_PATH=str(file.parent)) as running:
        says = {"http://127.0.0.1:8000": running.url, "secret_…": running.client_secret}
        pages.run(page, activated(running.environment), tmp_path, says)
