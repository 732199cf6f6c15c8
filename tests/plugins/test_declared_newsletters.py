"""Newsletters as data: TOML and JSON files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ctms.hooks.manager import load_plugins
from ctms.plugins import Newsletter, OperatorError, RegistrationError
from ctms.settings import Settings
from ctms_plugins import declared
from tests.docs import pages
from tests.forked_shell import activated
from tests.serving import serve

WEEKLY = """\
# Every Monday.
[weekly]
title = "The weekly"
description = "News of the week."
languages = ["en", "pt-BR"]
requires_double_opt_in = true
vendor_ids.braze = "7f3c"

[old]
title = "Old news"
active = false
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the folder."""

    def write_text(text: str, name: str = "news.toml") -> Path:
        file = tmp_path / name
        file.write_text(text)
        return file

    return write_text


def newsletters(path: Path | None) -> list[Newsletter]:
    """Return the plugin's declarations for its setting."""
    return list(declared.ctms_newsletters(declared.Settings(newsletters_path=path)))


def refused(path: Path) -> str:
    """Return why the files cannot be used, without the folder."""
    with pytest.raises(RegistrationError) as raised:
        newsletters(path)
    folder = path if path.is_dir() else path.parent
    return str(raised.value).replace(f"{folder}/", "")


def test_without_a_path_nothing_is_declared() -> None:
    assert newsletters(None) == []


def test_a_toml_file(write: Write) -> None:
    assert newsletters(write(WEEKLY)) == [
        Newsletter(
            slug="weekly",
            title="The weekly",
            description="News of the week.",
            languages=["en", "pt-BR"],
            requires_double_opt_in=True,
            vendor_ids={"braze": "7f3c"},
        ),
        Newsletter(slug="old", title="Old news", active=False),
    ]


def test_a_folder_with_json(write: Write, tmp_path: Path) -> None:
    write('{"b": {"title": "B", "vendor_ids": {"sfmc": "B1"}}}', "2.json")
    write('[a]\ntitle = "A"\n', "1.toml")
    write("not to be read", "README.md")

    assert [(one.slug, one.vendor_ids) for one in newsletters(tmp_path)] == [("a", {}), ("b", {"sfmc": "B1"})]


GOOD = '[good]\ntitle = "Good"\n\n'
BAD = {
    "TOML": (f"{GOOD}[bad\n", "news.toml, line 4: "),
    "no table": ("good = 1\n", "news.toml, line 1: good must be the table of a newsletter"),
    "no title": (f"{GOOD}[bad]\nactive = true\n", "news.toml, line 4: the newsletter 'bad' needs a title"),
    "a title that is no text": (
        "[bad]\ntitle = 5",
        "news.toml, line 1: the newsletter 'bad' has a title that is no text",
    ),
    "a misspelt member": (
        '[bad]\ntitle = "Bad"\nactiv = false',
        "news.toml, line 1: the newsletter 'bad' has activ, but may have title, description, languages, active,",
    ),
    "a pattern": (f'{GOOD}["bad-*"]\ntitle = "Bad"', "news.toml, line 4: the slug of a newsletter has 1 to 255"),
    "an active that is text": (
        '[bad]\ntitle = "Bad"\nactive = "no"',
        "news.toml, line 1: the newsletter 'bad' has active that is neither true nor false",
    ),
    "a double opt-in that is a number": (
        '[bad]\ntitle = "Bad"\nrequires_double_opt_in = 1',
        "news.toml, line 1: the newsletter 'bad' has requires_double_opt_in that is neither true nor false",
    ),
    "one language": (
        '[bad]\ntitle = "Bad"\nlanguages = "en"',
        "news.toml, line 1: the newsletter 'bad' has languages that are not a list",
    ),
    "a language that is none": (
        f'{GOOD}[bad]\ntitle = "Bad"\nlanguages = ["en", "English", 5]',
        "news.toml, line 4: the newsletter 'bad' has invalid languages, ['English', 5]: write them as en or pt-BR",
    ),
    "a language twice": (
        '[bad]\ntitle = "Bad"\nlanguages = ["en", "en"]',
        "news.toml, line 1: the newsletter 'bad' has a language twice",
    ),
    "a vendor id that is a number": (
        '[bad]\ntitle = "Bad"\nvendor_ids.braze = 5',
        "news.toml, line 1: the newsletter 'bad' has vendor_ids that do not map names of systems to ids",
    ),
    "a vendor id that is a date": (
        '[bad]\ntitle = "Bad"\nvendor_ids = 2020-01-01',
        "news.toml, line 1: the newsletter 'bad' has vendor_ids that do not map names of systems to ids",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_bad_files_are_named_with_the_line(write: Write, text: str, message: str) -> None:
    assert refused(write(text)).startswith(message)


def test_a_newsletter_in_two_files_is_refused_naming_both(write: Write, tmp_path: Path) -> None:
    write(WEEKLY, "a.toml")
    write('{"weekly": {"title": "Weekly"}}', "b.json")

    assert refused(tmp_path) == "b.json, line 1: a.toml, line 2 also declares the newsletter 'weekly'"


def test_a_bad_file_stops_the_start(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(f"{GOOD}[bad]\n")
    monkeypatch.setenv("CTMS_PLUGIN_DECLARED_NEWSLETTERS_PATH", str(file))

    with pytest.raises(OperatorError, match=rf"plugin 'declared' of ctms .*{file}, line 4: the newsletter 'bad' needs"):
        load_plugins(Settings())


@pytest.mark.parametrize("slug", ["", " weekly", "weekly ", "a\nb", "a\x00b", "\ud800", "x" * 256, "w*", None, 5])
def test_a_slug_is_text_that_can_be_the_name_of_a_subscription(slug: object) -> None:
    with pytest.raises(RegistrationError, match="the slug of a newsletter has 1 to 255 printable characters"):
        Newsletter(slug=slug, title="A")  # type: ignore[arg-type]


@pytest.mark.parametrize("slug", ["weekly", "Mozilla & you", "ünï", "x" * 255, "a.b_c-d"])
def test_slugs_of_existing_newsletters_can_be_declared(slug: str) -> None:
    assert Newsletter(slug=slug, title="A").name == slug


def test_the_how_to_works(tmp_path: Path) -> None:
    page = pages.DOCS / "how-to" / "declare-newsletters.md"
    file = tmp_path / "newsletters" / "news.toml"
    file.parent.mkdir()
    file.write_text(pages.marked(page, "file: newsletters/news.toml"))
    variables = {"CTMS_PLUGIN_DECLARED_NEWSLETTERS_PATH": str(file.parent), "CTMS_NEWSLETTERS": "enforce"}

    with serve(tmp_path, **variables) as running:
        says = {"http://127.0.0.1:8000": running.url, "secret_…": running.client_secret}
        pages.run(page, activated(running.environment), tmp_path, says)
