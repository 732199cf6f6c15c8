"""E-mail addresses: their normal form, the spellings under which one may be stored, and their comparison.

Nothing else in CTMS compares addresses. New addresses are stored in their normal form. A database adopted from an
existing deployment also holds raw ones. So a look-up searches for every spelling of an address, each through the index
on `lower(…)`.

Normal form: the local part in NFC, the domain in lower case and Unicode (RFC 5891, U-labels; UTS 46 mapping).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import product
from unicodedata import combining
from unicodedata import normalize as to_form
from urllib.parse import unquote

import email_validator
import idna

MAX_MIXED = 3
"""Labels of a domain, or letters of a local part, whose spellings are combined freely.

With more of them, all have the same form.
"""

MAX_LENGTH = 255
"""Characters of an address: the size of the column."""

MAX_EXPANDED_LENGTH = 512
"""Characters of text that may have several spellings, such as an address with a display name."""

CACHE_SIZE = 8_192
"""Texts whose parts are cached: more than one request contains, so that each is parsed once."""

# An address with one spelling only: ASCII, unquoted, no A-label. Most addresses are of this kind.
_PLAIN = re.compile(r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]+@(?:(?!xn--)[a-z0-9-]+(?:\.|\Z))+", re.ASCII | re.IGNORECASE)

# An ASCII address that email-validator is certain to accept: a dot-atom and a host name of at least two labels
# (RFC 5321). None is an A-label, the last is not reserved, and no part is too long. email-validator decides about all
# other addresses. The quantifiers are possessive (no backtracking), because a list has a million lines.
_ATOM = r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]++"
_LABEL = r"[a-zA-Z0-9]++(?:-[a-zA-Z0-9]++)*+"
_RESERVED = sorted({name.rpartition(".")[2] for name in email_validator.SPECIAL_USE_DOMAIN_NAMES})
_NOT_RESERVED = "".join(rf"(?<!\.{re.escape(name)})" for name in _RESERVED)
_SURE = re.compile(rf"{_ATOM}(?:\.{_ATOM})*+@{_LABEL}(?:\.{_LABEL})++(?<=[a-zA-Z])(?i:{_NOT_RESERVED})", re.ASCII)
_MAX_SURE_LENGTH = 64

_RANGES = (
    "\t\r\x1c \x85\x85\xa0\xa0\xad\xad\u034f\u034f\u061c\u061c\u115f\u1160\u1680\u1680\u17b4\u17b5\u180b\u180f"
    "\u2000\u200f\u2028\u202f\u205f\u206f\u2800\u2800\u3000\u3000\u3164\u3164\ufe00\ufe0f\ufeff\ufeff\uffa0\uffa0"
    "\ufff0\ufff8"
)
_INVISIBLE = "".join(
    chr(code)
    for first, last in zip(_RANGES[::2], _RANGES[1::2], strict=True)
    for code in range(ord(first), ord(last) + 1)
)
"""The characters without a form that exports and keyboards put around addresses.

They are Unicode's white space and default ignorable characters (UAX 44: White_Space, Default_Ignorable_Code_Point) of
the Basic Multilingual Plane, what `str.strip` removes beyond these, and the blank of Braille.
"""
_MAILTO = re.compile(r"mailto:", re.IGNORECASE)
_NAME_ADDRESS = re.compile(r"""(?P<name>"(?:[^"\\]|\\.)*"\ *|[^"<>,;]*)<(?P<address>[^<>]*)>""", re.VERBOSE)
_WILDCARD = re.compile(r"[*%?.]+@")
_INNER_SPACE = re.compile(r"(?<=[^ ]) (?=[^ ])")


class InvalidAddressError(ValueError):
    """The text is not an e-mail address; the message gives the reason and repeats nothing of the text."""


def normalize(text: str) -> str:
    """Return the normal form of an address (RFC 5321; internationalised, RFC 6531), without a DNS look-up.

    Removes outer white space, other outer invisible characters, and a display name (`Wes <wes@example.com>`). Raises
    `InvalidAddressError`.
    """
    if _SURE.fullmatch(text) and len(text) <= _MAX_SURE_LENGTH:
        local, _, domain = text.rpartition("@")
        if local == local.lower():  # some upper-case local parts have a different normal form (RFC 2142)
            return f"{local}@{domain.lower()}"
    try:
        parsed = email_validator.validate_email(
            _without_display_name(text.strip(_INVISIBLE)),
            check_deliverability=False,
            allow_quoted_local=True,
            globally_deliverable=False,
        )
    except email_validator.EmailNotValidError as error:
        raise InvalidAddressError("Input should be a valid e-mail address") from error
    if "." not in parsed.domain:
        raise InvalidAddressError("The domain of the address should have a dot")
    return parsed.normalized


def strip_display_name(text: str) -> str:
    """Return an address without outer invisible characters and display name, its spelling kept.

    Other text is returned unchanged.
    """
    address = _without_display_name(text.strip(_INVISIBLE))
    if address == text:
        return text
    try:
        normalize(address)
    except InvalidAddressError:
        return text
    return address


def normalize_entry(text: str) -> str:
    """Return the normal form of the address in a list entry (`parse_entry`). Raises `InvalidAddressError`."""
    return normalize(parse_entry(text))


def parse_entry(text: str) -> str:
    """Return the address in a list entry, its spelling kept, without the additions of exports.

    These are white space, invisible characters, a display name, `mailto:` and one `,` or `;` at the end. Raises
    `InvalidAddressError`, also for a wildcard (`*@example.com`, `%@example.com`): it is a valid local part, but
    in a list it means everyone.
    """
    if is_plainly_valid(text):
        return text
    address = trim(text)
    alone = _without_display_name(address)
    if alone != address:
        address = trim(alone)
    if is_wildcard(address):
        raise InvalidAddressError("A list names addresses, not wildcards")
    normalize(address)
    return address


def is_plainly_valid(text: str) -> bool:
    """Return True for an address that needs no full validation, as most lines of a list. False proves nothing."""
    return len(text) <= _MAX_SURE_LENGTH and _SURE.fullmatch(text) is not None and text[0] not in "*%?"


def is_wildcard(text: str) -> bool:
    """Return whether the local part of an address consists of wildcards."""
    return _WILDCARD.match(text) is not None


def trim(text: str) -> str:
    """Remove what exports put around an address in a list entry.

    That is white space and invisible characters, `mailto:`, and one `,` or `;` at the end. After `mailto:`, the address
    ends at a `?`, and is percent-decoded (RFC 6068).
    """
    text = text.strip(_INVISIBLE)
    if text.endswith((",", ";")):
        text = text[:-1].rstrip(_INVISIBLE)
    if _MAILTO.match(text):
        with suppress(UnicodeDecodeError):
            address = unquote(text.partition(":")[2].partition("?")[0], errors="strict")
            if "\0" not in address:  # no stored text has a U+0000, and PostgreSQL compares none
                return address.strip(_INVISIBLE)
    return text


def comparison_key(text: str) -> str:
    """Return the key that all spellings of an address share; for text that is not an address, its lower case in NFC.

    Case is mapped character by character, as by PostgreSQL's `lower` in a UTF-8 locale.
    """
    if _PLAIN.fullmatch(text):
        return text.lower()
    local, domain = _parts(text) if len(text) <= MAX_EXPANDED_LENGTH else (to_form("NFC", text), "")
    return to_form("NFC", _lower(f"{local}{domain}"))


def is_same(one: str, other: str) -> bool:
    """Return whether the two are spellings of the same address."""
    return one == other or comparison_key(one) == comparison_key(other)


def is_normal_form(normal: str, text: str) -> bool:
    """Return whether `normal` is the normal form of the text."""
    try:
        return normalize(text) == normal
    except InvalidAddressError:
        return False


def spellings(text: str) -> Sequence[str]:
    """Return the spellings under which the address of the text may be stored, case aside, as a rule also the text.

    Compare them by `lower` in the database (`match_condition`). None becomes another address there, as `a@İ.example`
    would: IDNA keeps the dot, `lower` does not. If the locale of the database maps ASCII only, the spellings miss some
    local parts with non-ASCII letters in mixed case.
    """
    if len(text) > MAX_EXPANDED_LENGTH or _PLAIN.fullmatch(text):
        return (text,)
    local, domain = _parts(text)
    spelt = [f"{one}{other}" for one, other in product(_local_spellings(local), _domain_spellings(domain))]
    if _keeps_domain(text):
        spelt.insert(0, text)
    return tuple(dict.fromkeys(spelt))


def is_found_by(stored: str, asked: str) -> bool:
    """Return whether a look-up of the address `asked` finds the address `stored`."""
    return _lower(stored) in map(_lower, spellings(asked))


def expand_spellings(addresses: Iterable[str]) -> tuple[list[int], list[str]]:
    """Return the spellings of all addresses, preceded by the position of each spelling's address, from 0."""
    pairs = [(position, spelling) for position, text in enumerate(addresses) for spelling in spellings(text)]
    return [position for position, _ in pairs], [spelling for _, spelling in pairs]


def match_condition(column: str, count: int) -> str:
    """Return the SQL condition that the address in a column has one of `count` spellings: one index look-up each."""
    if count == 1:
        return f"lower({column}) = lower(%s)"
    return f"lower({column}) IN ({', '.join(['lower(%s)'] * count)})"


def restore_plus_signs(text: str) -> str:
    """Replace inner spaces in a query parameter's address by `+`: an unescaped `+` arrives as a space.

    Only a quoted local part and a display name contain real spaces.
    """
    address = _without_display_name(text.strip(_INVISIBLE))
    return text if address.startswith('"') else text.replace(address, _INNER_SPACE.sub("+", address))


def _without_display_name(text: str) -> str:
    """Return the address in angle brackets if it is the only one (RFC 5322, name-addr); return other text unchanged."""
    found = _NAME_ADDRESS.fullmatch(text)
    if found is None or ("@" in found["name"] and found["name"].strip('" ') != found["address"]):
        return text
    return found["address"].strip(_INVISIBLE)


def _lower(text: str) -> str:
    """Return the text in lower case, character by character: `str.lower` maps a sigma by its context."""
    return text.lower() if text.isascii() else "".join(character.lower()[0] for character in text)


@lru_cache(CACHE_SIZE)
def _parts(text: str) -> tuple[str, str]:
    """Return the local part in NFC and the domain in normal form with its @. Text without an @ is all local part."""
    try:
        text = normalize(text)
    except InvalidAddressError:
        text = text.strip(_INVISIBLE)
    local, at, domain = text.rpartition("@")
    if not at:
        return to_form("NFC", text), ""
    return to_form("NFC", local), f"@{_unicode_domain(domain)}"


def _unicode_domain(domain: str) -> str:
    """Return a domain in lower case and Unicode. A domain that is invalid in IDNA stays as it is, in NFC."""
    try:
        return idna.decode(idna.uts46_remap(domain, std3_rules=False, transitional=False))
    except idna.IDNAError:
        return to_form("NFC", _lower(domain))


def _keeps_domain(text: str) -> bool:
    """Return whether the lower case of the text has the same domain."""
    lower = _lower(text)
    return text.isascii() or to_form("NFC", lower) == comparison_key(text) or _parts(lower)[1] == _parts(text)[1]


def _local_spellings(local: str) -> Iterable[str]:
    """Return the forms of a local part in NFC whose lower case is canonically equivalent to its own."""
    if local.isascii():
        return (local,)
    key = to_form("NFC", _lower(local))
    spelt = [to_form(form, case) for case in _cases(local) for form in ("NFC", "NFD")]
    spelt += _mixtures([_lower_spellings(letter) for letter in _letters(key)])
    return dict.fromkeys(one for one in spelt if to_form("NFC", _lower(one)) == key)


def _letters(text: str) -> Iterator[str]:
    """Split text into its letters, each with the combining marks after it."""
    start = 0
    for position, character in enumerate(text):
        if position > start and not combining(character):
            yield text[start:position]
            start = position
    yield text[start:]


def _lower_spellings(letter: str) -> tuple[str, ...]:
    """Return a small letter in NFC, and the lower case of its capital in NFC, if that is a different sequence.

    Some letters, most of them Greek, have a character for the small letter with its marks, but none for the capital.
    """
    if letter.isascii():
        return (letter,)
    capital = to_form("NFC", "".join(map(_upper, to_form("NFD", letter))))
    return tuple(dict.fromkeys((letter, _lower(capital))))


def _cases(local: str) -> Iterable[str]:
    """Return a local part in the usual cases, for databases whose locale maps the case of ASCII only."""
    lower, upper = _lower(local), "".join(map(_upper, local))
    return local, lower, upper, f"{upper[:1]}{lower[1:]}"


def _upper(character: str) -> str:
    """Return the capital of a letter if `lower` maps it back, which it does not for a final sigma."""
    upper = character.upper()
    return upper if len(upper) == 1 and _lower(upper) == character else character


def _domain_spellings(domain: str) -> Iterable[str]:
    """Return a domain in normal form, decomposed and as A-labels (RFC 5890); in all mixtures if few labels vary."""
    return _mixtures([_label_spellings(label) for label in domain.split(".")], ".")


def _mixtures(parts: Sequence[tuple[str, ...]], separator: str = "") -> Iterable[str]:
    """Join one spelling of each part, in all combinations, or all parts in the same form if more than a few vary."""
    if sum(len(spelt) > 1 for spelt in parts) > MAX_MIXED:
        forms = max(map(len, parts))
        return [separator.join(spelt[min(form, len(spelt) - 1)] for spelt in parts) for form in range(forms)]
    return map(separator.join, product(*parts))


def _label_spellings(label: str) -> tuple[str, ...]:
    if label.isascii():
        return (label,)
    at = "@" if label.startswith("@") else ""
    try:
        ascii_form = at + idna.encode(label.removeprefix("@")).decode()
    except idna.IDNAError:
        ascii_form = label
    return tuple(dict.fromkeys((label, to_form("NFD", label), ascii_form)))
