"""The retention file: rules, legal holds and the maximum of a run, in TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from ctms.addresses import InvalidAddressError, comparison_key, parse_entry
from ctms.errors import OperatorError
from ctms.search.conditions import Condition, ConditionError, parse_condition
from ctms.settings import app_settings

ERASE, ANONYMISE = "erase", "anonymise"
ACTIONS = (ERASE, ANONYMISE)
DEFAULT_MAX = 1_000
"""Contacts that a run may erase or anonymise, if the file does not say."""
MAX_CONTACTS = 100_000_000

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_MEMBERS = ("max_contacts", "hold", "rules")
_OF_HOLD = ("ids", "lists")
_OF_RULE = ("description", "when", "action")
_TOML_PROBLEM = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)", re.DOTALL)


class PolicyError(OperatorError):
    """The retention file, or a list that it names, is invalid: the message names file, line or place, and reason."""


@dataclass(frozen=True)
class RetentionRule:
    """A rule: contacts that match its condition `when` are erased or anonymised (`action`)."""

    name: str
    action: str
    when: Condition
    description: str = ""

    @property
    def origin(self) -> str:
        """The origin of the rule's erasures."""
        return f"retention:{self.name}"


@dataclass(frozen=True)
class LegalHold:
    """Contacts that no rule touches: by id, or by an address of theirs (`keys`, as compared)."""

    ids: frozenset[UUID] = frozenset()
    keys: frozenset[str] = frozenset()

    def covers(self, email_id: UUID, addresses: Iterable[str]) -> bool:
        """Return whether the contact with these own and account addresses is held."""
        return email_id in self.ids or (
            bool(self.keys) and any(comparison_key(address) in self.keys for address in addresses)
        )


@dataclass(frozen=True)
class RetentionPolicy:
    """The content of a retention file. If several rules match a contact, the first one applies."""

    rules: Sequence[RetentionRule]
    hold: LegalHold = LegalHold()
    max_contacts: int = DEFAULT_MAX


def read_policy(path: Path) -> RetentionPolicy:
    """Read the file and the lists of its holds, whose paths are relative to it. Raises `PolicyError`."""
    text = _read(path, "")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = _TOML_PROBLEM.fullmatch(str(error))
        what, line = (problem["what"], problem["line"]) if problem else (str(error), None)
        raise PolicyError(f"{path}, line {line or len(text.splitlines()) or 1}: {what}") from error
    except RecursionError as error:
        raise PolicyError(f"{path}: is nested too deeply") from error
    try:
        return _policy(data, path.parent)
    except ConditionError as error:
        raise PolicyError(f"{path}: {error}") from error


def read_configured_policy() -> RetentionPolicy:
    """Read the file that the setting names. Raises `PolicyError`, also if it is not set."""
    path = app_settings().retention_file
    if path is None:
        raise PolicyError("CTMS_RETENTION_FILE is not set: set it to the file with the retention rules")
    return read_policy(path)


def _policy(data: Mapping[str, Any], folder: Path) -> RetentionPolicy:
    _refuse_unknown(data, _MEMBERS, "")
    rules = data.get("rules")
    if not isinstance(rules, dict) or not rules:
        raise ConditionError("rules", "must be a table with one or more rules, by name")
    maximum = data.get("max_contacts", DEFAULT_MAX)
    if not isinstance(maximum, int) or isinstance(maximum, bool) or not 0 < maximum <= MAX_CONTACTS:
        raise ConditionError("max_contacts", f"must be a whole number from 1 to {MAX_CONTACTS:,}")
    return RetentionPolicy([_rule(name, rule) for name, rule in rules.items()], _hold(data, folder), maximum)


def _rule(name: str, rule: Any) -> RetentionRule:
    place = f"rules.{name}"
    if not _NAME.fullmatch(name):
        raise ConditionError(
            place,
            "the name of a rule has 1 to 40 lower-case letters, digits, - and _, and begins with one of the former",
        )
    if not isinstance(rule, dict):
        raise ConditionError(place, f"must be a table with {', '.join(_OF_RULE)}")
    _refuse_unknown(rule, _OF_RULE, place)
    missing = [member for member in ("when", "action") if member not in rule]
    if missing:
        raise ConditionError(place, f"needs {' and '.join(missing)}")
    description, action = rule.get("description", ""), rule["action"]
    if not isinstance(description, str):
        raise ConditionError(f"{place}.description", "must be text")
    if action not in ACTIONS:
        raise ConditionError(f"{place}.action", f"must be {' or '.join(ACTIONS)}")
    return RetentionRule(name, action, parse_condition(rule["when"], f"{place}.when"), description)


def _hold(data: Mapping[str, Any], folder: Path) -> LegalHold:
    hold = data.get("hold", {})
    if not isinstance(hold, dict):
        raise ConditionError("hold", f"must be a table with {', '.join(_OF_HOLD)}")
    _refuse_unknown(hold, _OF_HOLD, "hold")
    ids, keys = set(), set()
    for number, text in enumerate(_texts(hold, "ids"), start=1):
        try:
            ids.add(UUID(text))
        except ValueError:
            raise ConditionError(f"hold.ids[{number}]", "must be the id of a contact, a UUID") from None
    for name in _texts(hold, "lists"):
        for found in _read_list(folder / name):
            if isinstance(found, UUID):
                ids.add(found)
            else:
                keys.add(found)
    return LegalHold(frozenset(ids), frozenset(keys))


def _texts(table: Mapping[str, Any], member: str) -> list[str]:
    values = table.get(member, [])
    if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
        raise ConditionError(f"hold.{member}", "must be a list of texts")
    return values


def _read_list(path: Path) -> Iterator[UUID | str]:
    """Yield the id, or the comparison key of the address, on each line of a list. Raises `PolicyError`."""
    for number, line in enumerate(_read(path, "the list of a legal hold, ").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            yield UUID(text)
            continue
        except ValueError:
            pass
        try:
            yield comparison_key(parse_entry(text))
        except InvalidAddressError:
            raise PolicyError(
                f"{path}, line {number}: is neither the id of a contact nor an address; nothing is erased while a legal"
                " hold is unreadable"
            ) from None


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise PolicyError(f"{what}{path}: cannot be read as UTF-8 text ({type(error).__name__})") from error


def _refuse_unknown(table: Mapping[str, Any], known: Collection[str], place: str) -> None:
    unknown = [name for name in table if name not in known]
    if unknown:
        raise ConditionError(place, f"has {', '.join(unknown)}, but may have {', '.join(known)}")
