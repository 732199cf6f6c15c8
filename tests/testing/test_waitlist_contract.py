"""The contract of waitlists detects violations."""

from __future__ import annotations

import datetime as dt
import importlib
import re
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import marshmallow as ma
import psycopg
import pytest
from flask import Flask

from ctms.plugins import Waitlist, hookimpl
from ctms.testing import ApiClient, WaitlistContract
from ctms.testing.contracts.waitlists import UNKNOWN
from ctms.testing.isolation import UnexpectedIO, no_io

Fields = dict[str, Any]


class Seats(ma.Schema):
    """A number in a range, and it must be there."""

    seats = ma.fields.Integer(required=True, strict=True, validate=ma.validate.Range(1, 500))


class Hub(WaitlistContract):
    """The contract of a waitlist with good rules."""

    name = "hub"
    good: ClassVar[Sequence[Fields]] = ({"seats": 1}, {"seats": 500})
    bad: ClassVar[Sequence[tuple[Fields, Iterable[str]]]] = (({}, ["seats"]), ({"seats": 501}, ["seats"]))


def waitlist(check: Callable[[Fields], Fields] | None = None, **declaration: Any) -> Waitlist:
    """Declare the waitlist with the good rules, and a check that may be faulty."""
    return Waitlist(name="hub", title="Hub", schema=Seats, check=check, **declaration)


def test_good_rules_pass() -> None:
    contract, good = Hub(), waitlist()

    contract.test_it_is_declared(good)
    contract.test_there_are_examples()
    contract.test_good_fields_are_accepted(good)
    contract.test_bad_fields_are_refused(good)
    contract.test_unknown_fields_are_treated_as_declared(good)
    contract.test_the_rules_do_no_io(good)
    contract.test_any_object_is_accepted_or_refused(good)


@pytest.mark.parametrize("unknown", ["accept", "drop"])
def test_good_rules_pass_whatever_becomes_of_unknown_fields(unknown: str) -> None:
    contract, good = Hub(), waitlist(unknown=unknown)

    contract.test_unknown_fields_are_treated_as_declared(good)
    contract.test_any_object_is_accepted_or_refused(good)


def test_a_suite_without_examples_fails() -> None:
    class Empty(Hub):
        bad = ()

    with pytest.raises(AssertionError, match="say which fields are bad"):
        Empty().test_there_are_examples()


def refuse_everything(_fields: Fields) -> Fields:
    """Name a field that has nothing to do with it."""
    raise ma.ValidationError({"other": ["no"]})


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (refuse_everything, "are refused"),
        (lambda fields: {"seats": fields["seats"] + 1}, "change what they returned"),
        (lambda fields: {**fields, "when": dt.date(2026, 1, 1)}, "raise NotJson"),
        (lambda fields: {**fields, "ratio": float("nan")}, "raise NotJson"),
        (lambda fields: {**fields, "pair": (1, 2)}, "which JSON stores as"),
        (list, "raise TypeError"),
        (lambda fields: {"seats": fields["sets"]}, "raise KeyError"),
    ],
)
def test_good_fields_must_be_accepted_and_stay_as_they_are(check: Callable[[Fields], Fields], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        Hub().test_good_fields_are_accepted(waitlist(check))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (({"seats": 7}, ["seats"]), "are accepted"),
        (({"seats": 501}, ["seat"]), "of {'seats': 501}"),
        (({"seats": 501, "other": 1}, ["seats"]), "of {'seats': 501, 'other': 1}"),
    ],
)
def test_bad_fields_must_be_refused_by_name(bad: tuple[Fields, list[str]], said: str) -> None:
    class Wrong(Hub):
        pass

    Wrong.bad = (bad,)
    with pytest.raises(AssertionError, match=said):
        Wrong().test_bad_fields_are_refused(waitlist())


@pytest.mark.parametrize("error", ["no field", ["no", "field"], {"_schema": ["no field"]}])
def test_errors_must_name_a_field(error: Any) -> None:
    def check(fields: Fields) -> Fields:
        if fields["seats"] > 100:
            raise ma.ValidationError(error)
        return fields

    class Large(Hub):
        bad = (({"seats": 200}, ["seats"]),)

    with pytest.raises(AssertionError, match="name the invalid field"):
        Large().test_bad_fields_are_refused(waitlist(check))
    with pytest.raises(AssertionError, match="name the invalid field"):
        Large().test_any_object_is_accepted_or_refused(waitlist(check))


def test_a_rule_that_stumbles_over_a_value_is_found() -> None:
    def check(fields: Fields) -> Fields:
        return {**fields, "team": fields.get("team", "").strip()}

    class Team(Hub):
        good = ({"seats": 5, "team": "a"},)

    with pytest.raises(AssertionError, match="raise AttributeError"):
        Team().test_any_object_is_accepted_or_refused(waitlist(check, unknown="accept"))


@pytest.mark.parametrize(
    ("declared", "check", "said"),
    [
        ("accept", lambda fields: {"seats": fields["seats"]}, "accept"),
        ("accept", refuse_everything, "are refused"),
        ("drop", lambda fields: {**fields, UNKNOWN: 1}, "drop"),
    ],
)
def test_unknown_fields_must_be_treated_as_declared(
    declared: str, check: Callable[[Fields], Fields], said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        Hub().test_unknown_fields_are_treated_as_declared(waitlist(check, unknown=declared))


def test_a_check_without_a_schema_must_refuse_unknown_fields_as_declared() -> None:
    lax = Waitlist(name="hub", title="Hub", check=dict, unknown="refuse")

    with pytest.raises(AssertionError, match="are accepted"):
        Hub().test_unknown_fields_are_treated_as_declared(lax)


class Strict:
    """A plugin whose JSON Schema is narrower than its rules."""

    @hookimpl
    def ctms_waitlists(self) -> Iterator[Waitlist]:
        """Declare the waitlist."""
        yield waitlist(json_schema={"properties": {"seats": {"maximum": 5}}})


@pytest.mark.parametrize("ctms_plugins", [[Strict]])
def test_the_json_schema_must_agree(app: Flask, api: ApiClient) -> None:
    (registered,) = app.extensions["ctms.plugins"].collect("ctms_waitlists")

    with pytest.raises(AssertionError, match=re.escape("of {'seats': 500}")):
        Hub().test_the_json_schema_agrees(registered.value, api)


IO: dict[str, Callable[[], object]] = {
    "open": lambda: Path(__file__).read_text(),
    "os.listdir": lambda: list(Path(__file__).parent.iterdir()),
    "socket": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "socket.getaddrinfo": lambda: socket.getaddrinfo("localhost", 80),
    "subprocess.Popen": lambda: subprocess.run(["true"], check=True),
    "psycopg.connect": lambda: psycopg.connect("host=/nowhere connect_timeout=1"),
}


@pytest.mark.parametrize("what", IO)
@pytest.mark.parametrize("caught", [False, True])
def test_io_is_found(what: str, caught: bool) -> None:
    def check(fields: Fields) -> Fields:
        try:
            IO[what]()
        except Exception:
            if not caught:
                raise
        return fields

    with pytest.raises((UnexpectedIO, AssertionError), match=what):
        Hub().test_the_rules_do_no_io(waitlist(check))


def test_imports_on_first_use_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "used_for_the_first_time.py").write_text("SEATS = 5")
    monkeypatch.syspath_prepend(tmp_path)

    with no_io():
        assert importlib.import_module("used_for_the_first_time").SEATS == 5


def test_after_the_guard_everything_is_as_before(tmp_path: Path) -> None:
    with pytest.raises(UnexpectedIO, match="open"), no_io():
        (tmp_path / "one").write_text("x")

    (tmp_path / "two").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
