"""Fingerprints: equal for all spellings of an address, and useless without the key."""

from __future__ import annotations

import hmac
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctms.addresses import comparison_key, is_same, spellings
from ctms.database.generated_secrets import erasure_key
from ctms.settings import Settings
from ctms.suppression.fingerprints import Fingerprints
from tests.spellings import SPELLINGS, accepted_addresses

KEY = "a key for tests only, of thirty-two bytes"
ODD = (
    *(
        " Jane@Example.com",
        "jane@example.com\n",
        "\x1fjane@example.com",
        '"Jane Doe"@Example.com',
        "jane",
        "",
        "@",
        " ",
    ),
    *("jane@XN--MNCHEN-3YA.de", "Jane <Jane@Example.com>", f"{'A' * 600}@Example.com", f" {'A' * 600}@Example.com"),
)


@pytest.fixture
def fingerprints() -> Fingerprints:
    return Fingerprints(lambda: KEY)


@pytest.mark.parametrize(
    "other", ["Jörg@Example.com", "JÖRG@EXAMPLE.COM", " jörg@example.com\n", "jo\N{COMBINING DIAERESIS}rg@example.com"]
)
def test_one_address_has_one(fingerprints: Fingerprints, other: str) -> None:
    assert fingerprints.of(other) == fingerprints.of("jörg@example.com")


def test_they_are_hmacs_that_outlive_a_version(fingerprints: Fingerprints) -> None:
    assert fingerprints.of("Jane@Example.com") == hmac.digest(KEY.encode(), b"jane@example.com", "sha256")


@pytest.mark.parametrize("other", ["jane@example.org", "jane+a@example.com", "jane", ""])
def test_another_address_has_another(fingerprints: Fingerprints, other: str) -> None:
    assert fingerprints.of(other) != fingerprints.of("jane@example.com")


@given(
    address=st.one_of(
        accepted_addresses(),
        st.sampled_from([*SPELLINGS.values(), *ODD]),
        st.text(max_size=12),
        st.text("aA@.x ", max_size=9),
    )
)
def test_earlier_ones_are_those_of_each_spelling_in_lower_case(address: str) -> None:
    lowered = [unicodedata.normalize("NFC", one.strip()).lower() for one in spellings(address)]
    earlier = [one for one in lowered if is_same(one, address)]
    expected = [hmac.digest(KEY.encode(), one.encode(), "sha256") for one in (comparison_key(address), *earlier)]

    assert Fingerprints(lambda: KEY).all_of(address) == list(dict.fromkeys(expected))


def test_another_key_gives_others(fingerprints: Fingerprints) -> None:
    assert Fingerprints(lambda: KEY + "!").of("jane@example.com") != fingerprints.of("jane@example.com")


def test_text_has_one_for_each_purpose_and_is_compared_exactly(fingerprints: Fingerprints) -> None:
    found = {
        fingerprints.of_text("request", "jane@example.com"),
        fingerprints.of_text("request", "Jane@example.com"),
        fingerprints.of_text("key", "jane@example.com"),
        fingerprints.of_text("", "jane@example.com"),
        fingerprints.of("jane@example.com"),
    }

    assert len(found) == 5
    assert fingerprints.of_text("key", "a") == fingerprints.of_text("key", "a")


def test_without_a_key_there_are_none() -> None:
    without = Fingerprints(lambda: None)

    assert not without.available
    assert without.of("jane@example.com") is without.of_text("key", "a") is None


def test_the_embedded_database_has_a_key_that_stays(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)

    made = erasure_key(settings)

    assert made is not None
    assert len(made) >= 32
    assert erasure_key(settings) == made
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("erasure-key")} == {0o600}
    assert erasure_key(Settings(db_url="postgresql+psycopg://x/x", secret_key="x" * 32)) is None
