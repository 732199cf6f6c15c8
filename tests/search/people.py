"""Random contacts as rows, and what a condition says of them: an oracle in Python for `ctms.search.conditions`."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from typing import Any

from hypothesis import strategies as st
from psycopg.types.json import Json

from ctms.database.pool import Connection

NOW = datetime(2026, 2, 28, 12, tzinfo=UTC)
COUNTRIES = (None, "", "ca", "CA", "us", "Österreich", "ÖSTERREICH")
LANGUAGES = (None, "en", "EN", "fr")
NAMES = ("news", "News", "vpn")
SOURCES = (None, "https://a.example/", "https://a.example/x_y", "https://a.example/xxy", "https://b.example/%")
FIELDS: tuple[dict[str, Any], ...] = (
    {},
    {"geo": "ca"},
    {"geo": "CA", "seats": 3},
    {"geo": ["ca"], "seats": "3"},
    {"geo": {"geo": "ca"}, "beta": True},
    {"geo": None, "beta": False, "seats": -1},
)
FLAGS = (None, True, False)
DAYS = (0, 1, 29, 364, 366, 730, 800)

LISTS = ("newsletters", "waitlists")

Contact = dict[str, Any]


def random_contact(chance: random.Random) -> Contact:
    """Return a contact: the columns of its rows, by part."""
    entries = {
        name: {
            one: {
                "subscribed": chance.choice(FLAGS if name == "newsletters" else FLAGS[1:]),
                "source": chance.choice(SOURCES),
                **({"fields": chance.choice(FIELDS)} if name == "waitlists" else {}),
            }
            for one in chance.sample(NAMES, chance.randint(0, 2))
        }
        for name in ("newsletters", "waitlists")
    }
    return {
        "email": {
            "email_id": uuid.UUID(int=chance.getrandbits(128), version=4),
            "mailing_country": chance.choice(COUNTRIES),
            "email_lang": chance.choice(LANGUAGES),
            "double_opt_in": chance.choice(FLAGS),
            "has_opted_out_of_email": chance.choice(FLAGS),
            "create_timestamp": NOW - timedelta(days=chance.choice(DAYS)),
            "update_timestamp": NOW - timedelta(days=chance.choice(DAYS), microseconds=chance.randint(0, 1)),
        },
        "amo": chance.choice((None, {})),
        "fxa": chance.choice((None, *({"account_deleted": flag} for flag in FLAGS))),
        "mofo": chance.choice((None, *({"mofo_relevant": flag} for flag in FLAGS))),
        **entries,
    }


_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "emails": (
        *("email_id", "mailing_country", "email_lang", "double_opt_in", "has_opted_out_of_email"),
        *("create_timestamp", "update_timestamp", "primary_email"),
    ),
    "amo": ("email_id",),
    "fxa": ("email_id", "account_deleted"),
    "mofo": ("email_id", "mofo_relevant"),
    "newsletters": ("email_id", "name", "subscribed", "source"),
    "waitlists": ("email_id", "name", "subscribed", "source", "fields"),
}


def _rows(contact: Contact, table: str) -> Iterable[Mapping[str, Any]]:
    """Return the rows of a contact in a table."""
    email_id = contact["email"]["email_id"]
    if table == "emails":
        return [{"primary_email": f"{email_id}@example.com", **contact["email"]}]
    if table in LISTS:
        return [{"email_id": email_id, "name": name, **entry} for name, entry in contact[table].items()]
    return [] if contact[table] is None else [{"email_id": email_id, **contact[table]}]


def store(connection: Connection, contacts: Sequence[Contact]) -> None:
    """Insert the rows of contacts."""
    connection.execute("SET LOCAL statement_timeout = 0")  # many rows on a busy machine
    for table, columns in _COLUMNS.items():
        with connection.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
            for contact in contacts:
                for row in _rows(contact, table):
                    values = (row.get(column) for column in columns)
                    copy.write_row([Json(value) if isinstance(value, dict) else value for value in values])
        # Else each check of a foreign key may read all of `emails`, as it was best before, when the table was small.
        connection.execute(f"ANALYZE {table}")
    connection.execute("RESET statement_timeout")


class Oracle:
    """Which of many contacts match a condition; each test on its own is evaluated once for equal values."""

    def __init__(self, contacts: Sequence[Contact]) -> None:
        self._contacts = contacts
        self._all = frozenset(range(len(contacts)))
        self._found: dict[str, frozenset[int]] = {}
        self._groups: dict[str, list[tuple[Contact, list[int]]]] = {}

    def matching(self, condition: Mapping[str, Any]) -> frozenset[int]:
        """Return the indexes of the contacts that match."""
        return self._all.intersection(*(self._matching_test(name, value) for name, value in condition.items()))

    def _matching_test(self, name: str, value: Any) -> frozenset[int]:
        if name == "and":
            return self._all.intersection(*map(self.matching, value))
        if name == "or":
            return frozenset().union(*map(self.matching, value))
        if name == "not":
            return self._all - self.matching(value)
        key = repr((name, value))
        if key not in self._found:
            matching = [indexes for one, indexes in self._grouped(name) if _matches_test(name, value, one)]
            self._found[key] = frozenset(chain.from_iterable(matching))
        return self._found[key]

    def _grouped(self, name: str) -> list[tuple[Contact, list[int]]]:
        """Return contacts with all different values that the test `name` reads, each with the indexes of its equals."""
        if name not in self._groups:
            groups: dict[str, tuple[Contact, list[int]]] = {}
            for index, contact in enumerate(self._contacts):
                for one in _read_by(name, contact):
                    groups.setdefault(repr(one), (one, []))[1].append(index)
            self._groups[name] = list(groups.values())
        return self._groups[name]


def _read_by(name: str, contact: Contact) -> Iterable[Contact]:
    """Return what the test `name` reads of a contact: for entries, one of which must match, a part for each."""
    if name in LISTS:
        return [{name: {one: entry}} for one, entry in contact[name].items()]
    if name in contact["email"]:
        return [{"email": {name: contact["email"][name]}}]
    parts = LISTS if name == "has_subscription" else ("amo", "fxa", "mofo")
    return [{part: contact[part] for part in parts}]


def matches(condition: Mapping[str, Any], contact: Contact) -> bool:
    """Return whether a contact matches a condition."""
    return bool(Oracle([contact]).matching(condition))


def _matches_test(name: str, value: Any, contact: Contact) -> bool:
    if name in LISTS:
        wanted = value if isinstance(value, dict) else {"name": value}
        return any(_matches_entry(wanted, one, entry) for one, entry in contact[name].items())
    return _ORACLES[name](value, contact)


def _matches_entry(wanted: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> bool:
    state = wanted.get("state", "subscribed")
    return (
        ("name" not in wanted or name in _listed(wanted["name"]))
        and (state == "any" or _is_subscribed(entry) is (state == "subscribed"))
        and ("source" not in wanted or (entry["source"] or "").startswith(wanted["source"]))
        and all(
            any(
                field in entry["fields"] and json.dumps(entry["fields"][field]) == json.dumps(one)
                for one in _listed(of)
            )
            for field, of in wanted.get("fields", {}).items()
        )
    )


def _is_subscribed(entry: Mapping[str, Any]) -> bool:
    return entry["subscribed"] is not False  # NULL reads as the default


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _then(age: str) -> datetime:
    number = int(age[:-1])
    if age.endswith("y"):
        return NOW.replace(year=NOW.year - number)
    return NOW - timedelta(**{_UNITS[age[-1]]: number})


_UNITS = {"h": "hours", "d": "days"}


def _moment(value: date | datetime | str) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001  UTC below
    return value if value.tzinfo else value.replace(tzinfo=UTC)


_TIMES: Mapping[str, Callable[[datetime, Any], bool]] = {
    "before": lambda found, bound: found < _moment(bound),
    "since": lambda found, bound: found >= _moment(bound),
    "older_than": lambda found, bound: found < _then(bound),
    "newer_than": lambda found, bound: found >= _then(bound),
}


def _of_time(name: str) -> Callable[[Any, Contact], bool]:
    return lambda value, contact: all(_TIMES[one](contact["email"][name], bound) for one, bound in value.items())


def _of_flag(part: str, name: str) -> Callable[[Any, Contact], bool]:
    return lambda value, contact: bool((contact[part] or {}).get(name)) is value


def _of_text(name: str) -> Callable[[Any, Contact], bool]:
    return lambda value, contact: (contact["email"][name] or "").lower() in {one.lower() for one in _listed(value)}


def _has(part: str) -> Callable[[Any, Contact], bool]:
    return lambda value, contact: (contact[part] is not None) is value


_ORACLES: Mapping[str, Callable[[Any, Contact], bool]] = {
    "create_timestamp": _of_time("create_timestamp"),
    "update_timestamp": _of_time("update_timestamp"),
    "double_opt_in": _of_flag("email", "double_opt_in"),
    "has_opted_out_of_email": _of_flag("email", "has_opted_out_of_email"),
    "mailing_country": _of_text("mailing_country"),
    "email_lang": _of_text("email_lang"),
    "account_deleted": _of_flag("fxa", "account_deleted"),
    "mofo_relevant": _of_flag("mofo", "mofo_relevant"),
    "has_amo": _has("amo"),
    "has_fxa": _has("fxa"),
    "has_mofo": _has("mofo"),
    "has_subscription": lambda value, contact: (
        any(_is_subscribed(entry) for name in LISTS for entry in contact[name].values()) is value
    ),
}

_ages = st.sampled_from(["1h", "24h", "1d", "29d", "364d", "1y", "2y", "100y"])
_moments = st.sampled_from(
    [NOW.date(), NOW, NOW.isoformat(), "2025-02-28", date(2024, 2, 28), datetime(2025, 2, 27, 12)]  # noqa: DTZ001
)


def _one_or_more(values: Any) -> Any:
    return st.sampled_from(values) | st.lists(st.sampled_from(values), min_size=1, max_size=3)


def _some(members: Mapping[str, Any]) -> Any:
    """Return some members of a table, at least one."""
    return st.fixed_dictionaries({}, optional=members).filter(bool)


_times = _some({"before": _moments, "since": _moments, "older_than": _ages, "newer_than": _ages})
_entries = {
    "name": _one_or_more([*NAMES, "none"]),
    "state": st.sampled_from(["subscribed", "unsubscribed", "any"]),
    "source": st.sampled_from(["https://", "https://a.example/x_", "https://b.example/%", "_"]),
}
_fields = _some(
    {
        "geo": _one_or_more(["ca", "CA", "geo", "null"]),
        "seats": _one_or_more([3, "3", -1]),
        "beta": st.booleans(),
        "none": st.just("x"),
    }
)
_texts = {
    "mailing_country": _one_or_more(["ca", "CA", "österreich", "'; DROP TABLE emails; --", "%s"]),
    "email_lang": _one_or_more(["en", "FR"]),
}
_flags = ["double_opt_in", "has_opted_out_of_email", "account_deleted", "mofo_relevant"]
_flags += ["has_amo", "has_fxa", "has_mofo", "has_subscription"]

TESTS: Mapping[str, Any] = {
    "create_timestamp": _times,
    "update_timestamp": _times,
    **_texts,
    **{name: st.booleans() for name in _flags},
    "newsletters": _one_or_more(NAMES) | _some(_entries),
    "waitlists": _one_or_more(NAMES) | _some({**_entries, "fields": _fields}),
}
"""Values of each test."""

CONDITIONS = st.recursive(
    st.dictionaries(st.sampled_from(sorted(TESTS)), st.none(), min_size=1, max_size=2).flatmap(
        lambda names: st.fixed_dictionaries({name: TESTS[name] for name in names})
    ),
    lambda inner: _some(
        {
            "and": st.lists(inner, min_size=1, max_size=3),
            "or": st.lists(inner, min_size=1, max_size=3),
            "not": inner,
            "double_opt_in": st.booleans(),
        }
    ),
    max_leaves=6,
)
"""Conditions, nested at random."""

_ANCHORS = {"create_timestamp", "update_timestamp", "mailing_country", "email_lang"}
_ANCHORS_IF_TRUE = {"has_opted_out_of_email", "account_deleted", "mofo_relevant", "has_amo", "has_fxa", "has_mofo"}


def is_indexed(condition: Mapping[str, Any]) -> bool:
    """Return whether an index finds the contacts that match a condition."""
    return any(_is_anchor(name, value) for name, value in condition.items())


def _is_anchor(name: str, value: Any) -> bool:
    if name in {"and", "or"}:
        return (any if name == "and" else all)(is_indexed(one) for one in value)
    if name in LISTS:
        return not isinstance(value, dict) or "name" in value
    return name in _ANCHORS or (name in _ANCHORS_IF_TRUE and value is True)


INDEXED = CONDITIONS.flatmap(
    lambda condition: st.sampled_from([condition, {"mailing_country": ["ca", "us"], "and": [condition]}])
)
"""Conditions, of which many have an index."""

EXAMPLES: Mapping[str, list[Any]] = {
    "create_timestamp": [{"older_than": "1y"}, {"since": "2025-02-28", "before": "2026-02-27"}],
    "update_timestamp": [{"newer_than": "30d"}, {"before": "2024-12-25"}],
    "mailing_country": ["CA", ["us", "österreich"]],
    "email_lang": ["fr"],
    **{name: [True, False] for name in _flags},
    "newsletters": [
        "news",
        {"name": "News", "state": "unsubscribed"},
        {"name": ["news", "vpn"], "source": "https://b"},
    ],
    "waitlists": [{"name": "vpn", "fields": {"geo": "ca"}}, {"fields": {"geo": "ca"}}],
}
"""Values of each test that some contacts have."""
