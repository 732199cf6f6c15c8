"""Which columns of a CSV file, or members of JSON objects, hold the address, the date and the reason.

The names are those that mailing services and spreadsheets use. An operator may name the columns instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ctms.errors import ListError
from ctms.words import counted

MAX_NAMES = 40
"""Names of columns that a message lists."""

MAX_NAME_LENGTH = 60

# Names in lower case, without what is no letter or digit.
_ADDRESS = frozenset({"email", "emailaddress", "emailadresse", "mail", "mailaddress", "primaryemail"})
# They may also be something else: a postal address, for instance. So the values decide.
_MAYBE_ADDRESS = frozenset({"address", "recipient", "subscriber"})

# In this order: a time of the opt-out rather than one of the record.
_DATE = (
    "optedoutdate",
    "optoutdate",
    "optouttime",
    "unsubtime",
    "unsubscribedat",
    "unsubscribedate",
    "dateunsubscribed",
    "cleantime",
    "suppressedat",
    "bouncedat",
    "date",
    "datum",
    "created",
    "createdat",
    "createdtime",
    "addedtime",
    "lastupdatetime",
    "timestamp",
    "time",
    "ts",
)
_REASON = ("reason", "unsubreason", "suppressionreason", "bouncereason", "optoutdetails", "grund", "error")


class AmbiguousColumnsError(ListError):
    """Several columns may hold the addresses."""


@dataclass(frozen=True)
class Wanted:
    """What a command reads of a list, and the names of columns that an operator has given."""

    address: str | None = None
    date: str | None = None
    reason: str | None = None
    opt_outs: bool = False
    """True when dates and reasons count."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names that were given."""
        return tuple(name for name in (self.address, self.date, self.reason) if name)


@dataclass(frozen=True)
class Columns:
    """The positions of the columns in a header."""

    address: int
    date: int | None = None
    reason: int | None = None


@lru_cache(4096)  # the objects of a document have the same few
def simplify(name: str) -> str:
    """Return the name of a column in lower case, without what is no letter or digit."""
    return re.sub(r"[\W_]", "", name).lower()


def may_have_addresses(name: str) -> bool:
    """True for the name of a column that may have the addresses."""
    return simplify(name) in _ADDRESS | _MAYBE_ADDRESS


def is_known(name: str, wanted: Wanted) -> bool:
    """True for the name of a column that may be read."""
    simple = simplify(name)
    return (
        may_have_addresses(name)
        or simple in _DATE
        or simple in _REASON
        or any(simple == simplify(given) for given in wanted.names)
    )


def choose(names: Sequence[str], wanted: Wanted, has_addresses: Callable[[int], bool]) -> Columns:
    """Return which columns to read.

    `has_addresses(position)` tells whether a column's first values look like addresses. Raises `ListError` unless
    exactly one column has the addresses, and where a name that was given is none.
    """
    if wanted.address is not None:
        address = _find_given(wanted.address, names, "--column")
    else:
        candidates = [position for position, name in enumerate(names) if simplify(name) in _ADDRESS]
        candidates += [
            position
            for position, name in enumerate(names)
            if simplify(name) in _MAYBE_ADDRESS and has_addresses(position)
        ]
        if len(candidates) > 1:
            found = ", ".join(names[position].strip() for position in sorted(candidates))
            raise AmbiguousColumnsError(
                f"several columns may hold the addresses: {found}; name one with --column"
                f" (the columns: {list_names(names)})"
            )
        if not candidates:
            raise ListError(
                f"no column is known to hold the addresses: name it with --column (the columns: {list_names(names)})"
            )
        address = candidates[0]
    return Columns(
        address,
        _find_known(_DATE, names) if wanted.date is None else _find_given(wanted.date, names, "--date-column"),
        _find_known(_REASON, names) if wanted.reason is None else _find_given(wanted.reason, names, "--reason-column"),
    )


def list_names(names: Sequence[str]) -> str:
    """Return the names of columns for a message; what may be somebody's data is not shown."""
    if not all(map(_looks_like_name, names)):
        return f"{counted(len(names), 'column')} without names"
    return ", ".join(name.strip() for name in names[:MAX_NAMES]) + (
        f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    )


def _find_given(given: str, names: Sequence[str], option: str) -> int:
    """Return the position of the column with this name, spelt exactly or nearly so."""
    for same in (str.strip, simplify):
        found = [position for position, name in enumerate(names) if same(name) == same(given)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ListError(f"several columns have the name that {option} gives (the columns: {list_names(names)})")
    raise ListError(f"no column has the name that {option} gives (the columns: {list_names(names)})")


def _find_known(known: Sequence[str], names: Sequence[str]) -> int | None:
    simple = [simplify(name) for name in names]
    return next((simple.index(name) for name in known if name in simple), None)


def _looks_like_name(text: str) -> bool:
    """True for text that may be the name of a column: it has letters, and few digits."""
    letters, digits = (sum(map(kind, text)) for kind in (str.isalpha, str.isdigit))
    return "@" not in text and len(text.strip()) <= MAX_NAME_LENGTH and digits < letters
