"""Selection of the columns of a CSV file, or members of JSON objects, with the address, the date and the reason.

The known names are those that mailing services and spreadsheets use. An operator may name the columns instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import category
from unicodedata import normalize as to_form

from ctms.errors import ListError
from ctms.words import counted

MAX_NAMES = 40
"""The number of column names that a message lists."""

MAX_NAME_LENGTH = 60

# Names in lower case, with letters and digits only.
_ADDRESS = frozenset({"email", "emailaddress", "emailadresse", "mail", "mailaddress", "primaryemail"})
# Ambiguous names, such as that of a postal address: the values of the column decide.
_MAYBE_ADDRESS = frozenset({"address", "recipient", "subscriber"})

# By precedence: the time of the opt-out before that of the record.
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
class ReadOptions:
    """Options for reading a list: the column names given by an operator, and whether it lists opt-outs."""

    address: str | None = None
    date: str | None = None
    reason: str | None = None
    opt_outs: bool = False
    """Whether to read dates and reasons."""

    @property
    def names(self) -> tuple[str, ...]:
        """The column names that were given."""
        return tuple(name for name in (self.address, self.date, self.reason) if name)


@dataclass(frozen=True)
class Columns:
    """The positions of the columns in a header."""

    address: int
    date: int | None = None
    reason: int | None = None


@lru_cache(4096)  # the objects of a document share a few names
def normalize_name(name: str) -> str:
    """Return the name of a column in NFC and lower case, with letters, digits and their combining marks only.

    A name without letters and digits stays as it is. In many scripts the vowels are combining marks.
    """
    kept = "".join(one for one in to_form("NFC", name).lower() if one.isalnum() or category(one).startswith("M"))
    return kept if any(map(str.isalnum, kept)) else name.strip()


def may_have_addresses(name: str) -> bool:
    """Return whether a column with this name may contain addresses."""
    return normalize_name(name) in _ADDRESS | _MAYBE_ADDRESS


def is_known_column(name: str, options: ReadOptions) -> bool:
    """Return whether a column with this name may be read."""
    simple = normalize_name(name)
    return (
        may_have_addresses(name)
        or simple in _DATE
        or simple in _REASON
        or any(simple == normalize_name(given) for given in options.names)
    )


def choose_columns(names: Sequence[str], options: ReadOptions, has_addresses: Callable[[int], bool]) -> Columns:
    """Return the columns to read.

    `has_addresses(position)` returns whether a column's first values look like addresses. Raises `ListError` unless
    exactly one column has the addresses, or when no column has a given name.
    """
    if options.address is not None:
        address = _find_given(options.address, names, "--column")
    else:
        candidates = [position for position, name in enumerate(names) if normalize_name(name) in _ADDRESS]
        candidates += [
            position
            for position, name in enumerate(names)
            if normalize_name(name) in _MAYBE_ADDRESS and has_addresses(position)
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
        _find_known(_DATE, names) if options.date is None else _find_given(options.date, names, "--date-column"),
        _find_known(_REASON, names)
        if options.reason is None
        else _find_given(options.reason, names, "--reason-column"),
    )


def list_names(names: Sequence[str]) -> str:
    """Return the names of columns for a message, or only their number if a name may be personal data."""
    if not all(map(_looks_like_name, names)):
        return f"{counted(len(names), 'column')} without names"
    return ", ".join(name.strip() for name in names[:MAX_NAMES]) + (
        f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    )


def _find_given(given: str, names: Sequence[str], option: str) -> int:
    """Return the position of the column with this name, by an exact match or by its normalized name."""
    for same in (str.strip, normalize_name):
        found = [position for position, name in enumerate(names) if same(name) == same(given)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ListError(f"several columns have the name that {option} gives (the columns: {list_names(names)})")
    raise ListError(f"no column has the name that {option} gives (the columns: {list_names(names)})")


def _find_known(known: Sequence[str], names: Sequence[str]) -> int | None:
    simple = [normalize_name(name) for name in names]
    return next((simple.index(name) for name in known if name in simple), None)


def _looks_like_name(text: str) -> bool:
    """Return whether the text may be the name of a column: it has more letters than digits."""
    letters, digits = (sum(map(kind, text)) for kind in (str.isalpha, str.isdigit))
    return "@" not in text and len(text.strip()) <= MAX_NAME_LENGTH and digits < letters
