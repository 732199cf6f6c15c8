"""Addresses to try, and other spellings of them: for tests that hold all operations to one form."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

import idna
from hypothesis import strategies as st

from ctms.addresses import InvalidAddressError, normalize

LABELS = ("example", "münchen", "straße", "bücher-2", "例え", "пример", "xn--mnchen-3ya", "a1")

STORED: Mapping[str, str] = {
    "normal": "inés.{}@münchen.de",
    "A-labels": "inés.{}@xn--mnchen-3ya.de",
    "decomposed": "ine\N{COMBINING ACUTE ACCENT}s.{}@mu\N{COMBINING DIAERESIS}nchen.de",
}
"""One address, apart from `{}`, in the forms in which a database may hold it."""

SPELLINGS: Mapping[str, str] = {
    **STORED,
    "upper case": "INÉS.{}@MÜNCHEN.DE",
    "upper A-labels": "Inés.{}@XN--MNCHEN-3YA.DE",
    "decomposed, with A-labels": "ine\N{COMBINING ACUTE ACCENT}s.{}@xn--mnchen-3ya.de",
    "with invisible characters": "\N{ZERO WIDTH SPACE}inés.{}@münchen.de\N{ZERO WIDTH NO-BREAK SPACE}",
}
"""Spellings of the same address in queries."""


def _accepted(text: str) -> bool:
    try:
        normalize(text)
    except InvalidAddressError:
        return False
    return True


def accepted_addresses() -> st.SearchStrategy[str]:
    """Return addresses that the API accepts: ASCII and not, in any case, with one to three labels before the last."""
    characters = st.one_of(
        st.sampled_from("abzABZ019._+-'"), st.characters(categories=["Ll", "Lu", "Lo", "Mn"], exclude_characters="İ")
    )
    local = st.text(characters, min_size=1, max_size=12)
    domain = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3).map(".".join)
    return st.builds(lambda one, other: f"{one}@{other}.com", local, domain).filter(_accepted)


def respelt(normal: str) -> st.SearchStrategy[str]:
    """Return other spellings of an address in normal form."""
    local, _, domain = normal.rpartition("@")
    ascii_domain = ".".join(label if label.isascii() else idna.encode(label).decode() for label in domain.split("."))
    return st.builds(
        lambda case, form, spelt: f"{case(unicodedata.normalize(form, local))}@{spelt}",
        st.sampled_from([str, _swapped]),
        st.sampled_from(["NFC", "NFD"]),
        st.sampled_from(
            [domain, unicodedata.normalize("NFD", domain), ascii_domain, ascii_domain.upper(), _swapped(domain)]
        ),
    )


def _swapped(text: str) -> str:
    """Return the text with each letter in its other case, if the two are one letter."""
    return "".join(map(_swap, text))


def _swap(character: str) -> str:
    other = character.upper() if character == character.lower() else character.lower()
    return other if len(other) == 1 and other.lower() == character.lower() else character
