"""Addresses: normal forms, spellings and keys. Tests of contacts and erasures cover them in a database."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import product

import email_validator
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctms import addresses
from ctms.addresses import (
    InvalidAddressError,
    comparison_key,
    expand_spellings,
    is_found_by,
    is_plainly_valid,
    is_same,
    match_condition,
    normalize,
    normalize_entry,
    parse_entry,
    restore_plus_signs,
    spellings,
    strip_display_name,
    trim,
)
from tests.spellings import accepted_addresses, respelt

DECOMPOSED = "we\N{COMBINING ACUTE ACCENT}s@example.com"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Wes@Example.COM", "Wes@example.com"),
        ("ines@xn--mnchen-3ya.de", "ines@münchen.de"),
        ("ines@XN--MNCHEN-3YA.DE", "ines@münchen.de"),
        (DECOMPOSED, "wés@example.com"),
        ("a@\N{FULLWIDTH LATIN SMALL LETTER E}xample.com", "a@example.com"),
        (" \tw@example.com\n", "w@example.com"),
        ("Wes <w5@example.com>", "w5@example.com"),
        ("J. Müller <w5@example.com>", "w5@example.com"),
        ('"Doe, J \\"JD\\"" <w5@example.com>', "w5@example.com"),
        ("<w5@example.com>", "w5@example.com"),
        ("w5@example.com <w5@example.com>", "w5@example.com"),
        ('"a b"@example.com', '"a b"@example.com'),
        ('"ab"@example.com', "ab@example.com"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    assert normalize(text) == normal
    assert is_same(text, normal)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nobody",
        "a@b@example.com",
        "a@localhost",
        "a b@example.com",
        "a@xn--zzzz.de",
        "a@example.com, b@example.com",
        "a@example.com b@example.com",
        "a@example.com <b@example.com>",
        "a@example.com;b@example.com <c@example.com>",
        "w@example.com (Wes)",
        "mailto:a@example.com",
        "a\N{ZERO WIDTH SPACE}b@example.com",
        "a@example.com,subscribed,2026-01-01",
    ],
)
def test_invalid_addresses(text: str) -> None:
    with pytest.raises(InvalidAddressError) as caught:
        normalize(text)
    assert "@" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "\N{ZERO WIDTH SPACE}a@b.example\N{WORD JOINER}",
        "\N{NO-BREAK SPACE}a@b.example\N{RIGHT-TO-LEFT MARK} ",
        "\N{ZERO WIDTH NO-BREAK SPACE}a@b.example",
        "a@b.example,",
        "a@b.example ; ",
        "mailto:a@b.example",
        "MAILTO: a@b.example;",
        "Sam <a@b.example>,",
    ],
)
def test_entry_of_a_list(text: str) -> None:
    assert normalize_entry(text) == "a@b.example"


@pytest.mark.parametrize(
    "text",
    [
        "*@blocked.example",
        "*.*@b.example",
        "**@b.example",
        "%@b.example",
        "?@b.example",
        "a@b.example,,",
        "a@b.example,c@d.example",
        "a@b.example\N{ZERO WIDTH SPACE}c",
    ],
)
def test_invalid_entries(text: str) -> None:
    with pytest.raises(InvalidAddressError):
        normalize_entry(text)


def test_entry_is_parsed_as_it_is_spelt() -> None:
    assert parse_entry("mailto:Ines@XN--MNCHEN-3YA.de;") == "Ines@XN--MNCHEN-3YA.de"
    assert parse_entry("Sam <\N{ZERO WIDTH SPACE}mailto:Sam@Example.com>") == "Sam@Example.com"


def test_plain_address_has_one_spelling() -> None:
    assert spellings("Some.One+tag@mail.Example.com") == ("Some.One+tag@mail.Example.com",)


def test_spellings_of_an_international_domain() -> None:
    assert set(spellings("ines@xn--mnchen-3ya.de")) == {
        "ines@xn--mnchen-3ya.de",
        "ines@münchen.de",
        unicodedata.normalize("NFD", "ines@münchen.de"),
    }


def test_spellings_of_invalid_addresses() -> None:
    assert spellings("nobody") == ("nobody",)
    assert "we..ird@xn--mnchen-3ya.de" in spellings("we..ird@münchen.de")


def test_spellings_of_many_labels_are_few() -> None:
    assert len(spellings(f"a@{'ü.' * 60}de")) == 3
    assert len(spellings("a@ü.ü.ü.de")) == 27


def test_text_too_long_for_an_address_has_one_spelling() -> None:
    """It is not cached either: long text in queries would fill the memory."""
    text = f"É{'b' * 600}@é.example.com"
    remembered = addresses._parts.cache_info().currsize
    assert spellings(text) == (text,)
    assert comparison_key(text) == text.lower()
    assert addresses._parts.cache_info().currsize == remembered


def test_final_sigma_is_a_letter_of_its_own() -> None:
    """`lower` of PostgreSQL looks at one character at a time, and so does the key."""
    assert not is_same("ς@example.com", "\N{GREEK SMALL LETTER SIGMA}@example.com")
    assert is_same("ΟΔΟΣ@example.com", "οδοσ@example.com")


def test_expand_spellings_gives_the_position_of_each_address() -> None:
    positions, spelt = expand_spellings(["a@example.com", "b@münchen.de"])
    assert positions == [0, 1, 1, 1]
    assert spelt[0] == "a@example.com"
    assert set(spelt[1:]) == set(spellings("b@münchen.de"))


def test_condition_has_a_parameter_for_each_spelling() -> None:
    assert match_condition("e.x", 1) == "lower(e.x) = lower(%s)"
    assert match_condition("e.x", 2) == "lower(e.x) IN (lower(%s), lower(%s))"


OUTER = "\t\n\x1f \xa0\u200b\u2060\ufeff\u2800\u3164\u115f\u1160\uffa0\u202a\u2066\xad\u061c\u180e\u2061\u034f\ufe0f"


@pytest.mark.parametrize("character", OUTER, ids=lambda character: f"U+{ord(character):04X}")
def test_outer_invisible_characters_belong_to_no_address(character: str) -> None:
    for text in (f"{character}jo@example.com", f"jo@example.com{character}", f"Jo <{character}jo@example.com>"):
        assert normalize(text) == strip_display_name(text) == parse_entry(text) == "jo@example.com"
        assert is_found_by("jo@example.com", text)
        assert is_same("jo@example.com", text)


def test_all_white_space_is_removed() -> None:
    space = "".join(character for character in map(chr, range(0x10000)) if character.isspace())

    assert normalize(f"{space}jo@example.com{space}") == "jo@example.com"


def test_inner_blanks_are_read_once() -> None:
    """For each of them, the search for the end of the text would otherwise begin again: that takes hours."""
    assert trim(f" a{' ' * 1_000_000}b ,") == f"a{' ' * 1_000_000}b"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mailto:sam%2Bx@example.com", "sam+x@example.com"),
        ("MAILTO:sam@example.com?subject=Hello%20you", "sam@example.com"),
        ("sam%2Bx@example.com", "sam%2Bx@example.com"),
        ("mailto:sam%zz@example.com", "sam%zz@example.com"),
    ],
)
def test_address_after_mailto_is_percent_decoded(text: str, address: str) -> None:
    assert parse_entry(text) == address


@pytest.mark.parametrize(
    "text", ["mailto:sam%00@example.com", "mailto:J%F6rg@example.com", "mailto:%ED%A0%80@example.com"]
)
def test_what_cannot_be_decoded_after_mailto_is_no_address(text: str) -> None:
    assert trim(text) == text
    with pytest.raises(InvalidAddressError):
        parse_entry(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("first tag@example.com", "first+tag@example.com"),
        (" first@example.com ", " first@example.com "),
        ('"a b"@example.com', '"a b"@example.com'),
        ('"Sam" <sam tag@example.com>', '"Sam" <sam+tag@example.com>'),
        ("Sam Doe <sam tag@example.com>", "Sam Doe <sam+tag@example.com>"),
        ("Wes<wes@example.com>", "Wes<wes@example.com>"),
        ("\u200b joe@example.com\xa0 ", "\u200b joe@example.com\xa0 "),
        ("", ""),
        ('Sam <"a b"@example.com>', 'Sam <"a b"@example.com>'),
    ],
)
def test_space_in_a_query_is_a_plus(text: str, meant: str) -> None:
    assert restore_plus_signs(text) == meant


@given(accepted_addresses(), st.data())
def test_spellings_agree(address: str, data: st.DataObject) -> None:
    """Every spelling of an accepted address has its key, is found by every other one, and leads to the normal form."""
    normal = normalize(address)
    other = data.draw(respelt(normal))
    assert comparison_key(other) == comparison_key(address) == comparison_key(normal)
    assert normalize(normal) == normal
    assert comparison_key(normalize(other)) == comparison_key(normal)
    lowered = {comparison_key(spelling) for spelling in spellings(address)}
    assert lowered == {comparison_key(address)}
    assert {_lower(one) for one in spellings(other)} >= {_lower(one) for one in (normal, _raw(normal))}


@given(st.text(max_size=40))
def test_any_text_has_a_key_and_spellings(text: str) -> None:
    assert {comparison_key(_lower(one)) for one in spellings(text) if one != text} <= {comparison_key(text)}
    assert "@" in text or text in spellings(text)


def _letters_with_forms() -> Iterator[set[str]]:
    """Yield the forms of each letter that has several: small, capital, composed, decomposed."""
    for character in map(chr, range(0x80, 0x20000)):
        cased = {character, character.lower(), character.upper(), character.title()}
        forms = {unicodedata.normalize(form, one) for one in cased for form in ("NFC", "NFD")}
        if len(forms) > 1 and unicodedata.category(character) != "Mn":
            yield forms | {unicodedata.normalize("NFC", case(one)) for one in forms for case in (str.lower, str.upper)}


def test_each_letter_is_found_by_the_spellings_of_the_same_address_only() -> None:
    """The exception is raw text, as only an adopted database holds it: a decomposed İ, whose lower case has a dot.

    It is found as it is stored.
    """
    assert is_found_by("I\N{COMBINING DOT ABOVE}rem@example.com", "I\N{COMBINING DOT ABOVE}rem@example.com")
    wrong = [
        (stored, asked)
        for forms in _letters_with_forms()
        for stored, asked in product((f"x{form}y@example.com" for form in forms), repeat=2)
        if is_found_by(stored, asked) != is_same(stored, asked) and "I\N{COMBINING DOT ABOVE}" not in stored + asked
    ]
    assert not wrong


def test_each_letter_of_a_domain_is_found_by_the_spellings_of_the_same_address_only() -> None:
    """A look-up finds the normal form of a domain by each of its forms, and no other domain."""
    wrong = []
    for forms in _letters_with_forms():
        normal = {}
        for form in forms:
            try:
                normal[f"a@x{form}y.com"] = normalize(f"a@x{form}y.com")
            except InvalidAddressError:
                continue
        wrong += [
            (stored, asked)
            for stored, asked in product(normal.values(), normal)
            if is_found_by(stored, asked) != (stored == normal[asked])
        ]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("a@\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}stanbul.com", "a@istanbul.com"),
        ("ki\N{COMBINING DOT ABOVE}m@example.com", "kim@example.com"),
    ],
)
def test_no_spelling_becomes_another_address_in_the_database(text: str, other: str) -> None:
    assert not is_same(text, other)
    assert other not in {_lower(one) for one in spellings(text)}


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("x\u03aa\u0301y", "x\u0390y"),
        ("x\u03ab\u0301y", "x\u03b0y"),
        ("\u03aa\u0301\u0390é", "\u0390\u0390é"),
        ("J\u030cé", "\u01f0é"),
        ("J\u0323\u030c", "\u01f0\u0323"),
        ("J\u030c" * 9, "\u01f0" * 9),
    ],
)
def test_small_letter_finds_a_capital_without_a_character_for_it(stored: str, asked: str) -> None:
    stored, asked = f"{stored}@example.com", f"{asked}@example.com"
    assert normalize(stored) == stored
    assert is_same(stored, asked)
    assert is_found_by(stored, asked)
    assert is_found_by(asked, stored)


def _raw(normal: str) -> str:
    return unicodedata.normalize("NFD", normal)


def _lower(text: str) -> str:
    return "".join(character.lower()[0] for character in text)


LABELS_OF_HOSTS = st.one_of(
    st.sampled_from(["example", "COM", "xn--mnchen-3ya", "ab--c", "-a", "a-", "1"]),
    st.sampled_from(email_validator.SPECIAL_USE_DOMAIN_NAMES),
    st.text("abzABZ019-_\N{KELVIN SIGN}", max_size=65),
)
HOSTS = st.lists(LABELS_OF_HOSTS, min_size=1, max_size=5).map(".".join)
LOCAL_PARTS = st.text("abzABZ019.!#$%&'*+/=?^_`{|}~-@\" \n\N{LATIN SMALL LETTER LONG S}", max_size=66)


@settings(max_examples=2_000)
@given(st.one_of(LOCAL_PARTS, st.text("aZ9.+", min_size=1, max_size=9)), HOSTS)
def test_plainly_valid_addresses_are_accepted_by_email_validator(local: str, host: str) -> None:
    """The short cut for plain addresses accepts no other addresses, and gives the same normal form."""
    text = f"{local}@{host}".strip()
    try:
        parsed = email_validator.validate_email(
            text, check_deliverability=False, allow_quoted_local=True, globally_deliverable=False
        )
        expected = parsed.normalized if "." in parsed.domain else None
    except email_validator.EmailNotValidError:
        expected = None
    try:
        found = normalize(text)
    except InvalidAddressError:
        found = None

    assert found == expected
    assert expected is not None or not is_plainly_valid(text)


@pytest.mark.parametrize("text", ["jane.doe+news@mail-1.example.co.uk", "JANE@EXAMPLE.COM", "o'neil@a.b1.example"])
def test_most_addresses_need_no_closer_look(text: str) -> None:
    assert is_plainly_valid(text)
