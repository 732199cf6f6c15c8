"""The choice of the column that an operator names, and files with one named column."""

from __future__ import annotations

import unicodedata

import pytest

from ctms.bulk.columns import ReadOptions, normalize_name
from ctms.errors import ListError
from tests.bulk.reading import found


@pytest.mark.parametrize(
    ("header", "name"),
    [("नाम,पति", "पता"), ("ชื่อ,ที่อยู", "ที่อยู่"), (",email", "✉"), (",email", "?"), ("☎️,email", "✉️"), ("?,email", "-")],
)
def test_a_name_that_only_looks_alike_without_its_marks_is_another(header: str, name: str) -> None:
    with pytest.raises(ListError, match="no column has the name that --column gives"):
        found(f"{header}\nbob@example.com,ada@example.com\n", ReadOptions(name))


def test_a_member_without_a_name_is_not_taken_for_a_symbol() -> None:
    with pytest.raises(ListError):
        found('[{"": "bob@example.com", "email": "ada@example.com"}]', ReadOptions("-"))


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("x,Adresse é-mail", unicodedata.normalize("NFD", "Adresse é-mail")),
        (unicodedata.normalize("NFD", "x,Adresse é-mail"), "adresse_é_mail"),
        ("नाम,पता", "पता"),
        ("x,✉", "✉"),
        ("Email,E-mail", "E-mail"),
    ],
)
def test_the_same_name_is_found(header: str, name: str) -> None:
    assert found(f"{header}\nbob@example.com,ada@example.com\n", ReadOptions(name)) == ["ada@example.com"]


def test_a_name_without_letters_stays_as_it_is() -> None:
    assert normalize_name(" ✉️ ") == "✉️"
    assert normalize_name("\ufeffE-Mail_2") == "email2"


@pytest.mark.parametrize("name", [None, "Email"])
@pytest.mark.parametrize(
    "text",
    [
        "Email,,\r\nada@example.com,,\r\nbob@example.com,,\r\n",
        "sep=;\r\nEmail;;\r\nada@example.com;;\r\nbob@example.com;;\r\n",
        '"Email",\r\n"ada@example.com",\r\n"bob@example.com",\r\n',
        "Email,\r\nada@example.com,\r\nbob@example.com,,,\r\n",
        "Email\r\nada@example.com,\r\nbob@example.com;\r\n",
        "Email,,\r\nada@example.com,x,y\r\nbob@example.com\r\n",
    ],
)
def test_columns_without_names_are_ignored(text: str, name: str | None) -> None:
    assert found(text, ReadOptions(name)) == ["ada@example.com", "bob@example.com"]
