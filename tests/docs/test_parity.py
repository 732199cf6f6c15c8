"""The docs name everything there is, and nothing that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ctms import plugins as plugin_api
from ctms import testing as testing_api
from ctms.cli import ctms
from ctms.hooks.manager import load_plugins
from ctms.settings import Settings
from ctms.testing.plugins import bundled
from tests.docs import pages
from tests.docs.pages import DOCS, PAGES, ROOT
from tools import plugin_api_reference, settings_reference
from tools.cli_reference import below

ALL = "\n".join(page.read_text() for page in PAGES)
_CODE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
HALF_A_PAGE = 40
OTHERS = ("CTMS_PLUGIN_ACME_", "CTMS_TEST_")


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _CODE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page, named as forges name them."""
    found = _HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{pages.name(page)} links to {link}"
        assert target.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(target), f"{pages.name(page)} links to {link}"


def index_of(page: Path) -> Path:
    """Return the nearest `README.md` above a page: the index that lists it."""
    folders = page.parent.parents if page.name == "README.md" else (page.parent, *page.parent.parents)
    return next(folder / "README.md" for folder in folders if (folder / "README.md").is_file())


@pytest.mark.parametrize("page", sorted(set(DOCS.rglob("*.md")) - {DOCS / "README.md"}), ids=pages.name)
def test_every_page_is_in_its_index(page: Path) -> None:
    index = index_of(page)

    assert page in {(index.parent / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(index))}


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_a_page_starts_with_its_one_title(page: Path) -> None:
    text = prose(page)

    assert text.startswith("# ")
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


def test_the_settings_are_those_of_the_code() -> None:
    written = settings_reference.PAGE.read_text()

    assert written == settings_reference.page(), "run `tox -e reference`"
    assert all(f"`{setting.variable}`" in written for _, setting, _ in Settings.declared())


def test_the_plugin_api_is_that_of_the_code() -> None:
    written = plugin_api_reference.PAGE.read_text()

    assert written == plugin_api_reference.page(), "run `tox -e reference`"
    assert sorted(re.findall(r"^### `(\w+)`$", written, re.MULTILINE)) == sorted(plugin_api.__all__)
    assert "](reference/plugin-api.md)" in (DOCS / "README.md").read_text()


def test_the_testing_api_is_that_of_the_code() -> None:
    written = plugin_api_reference.TESTING_PAGE.read_text()

    assert written == plugin_api_reference.testing_page(), "run `tox -e reference`"
    assert sorted(re.findall(r"^### `(\w+)`$", written, re.MULTILINE)) == sorted(testing_api.__all__)
    for contract in (getattr(testing_api, name) for name in testing_api.__all__ if name.endswith("Contract")):
        assert [name for name in dir(contract) if name.startswith("test_") and f"| `{name}` |" not in written] == []


def test_a_new_export_cannot_be_left_out_of_the_plugin_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_api, "__all__", [*plugin_api.__all__, "forgotten"])

    with pytest.raises(LookupError, match="forgotten"):
        plugin_api_reference.page()


def test_a_setting_that_is_named_exists() -> None:
    known = {setting.variable for _, setting, _ in Settings.declared()}
    for plugin in load_plugins(Settings(), bundled()):
        known |= {setting.variable for _, setting, _ in plugin.declared_settings()}
    files = {f"{variable}_FILE" for variable in known}

    named = {name for name in re.findall(r"\bCTMS_[A-Z_]*[A-Z]\b", ALL) if not name.startswith(OTHERS)}
    of_script = set(re.findall(r"\bCTMS_[A-Z_]+\b", (ROOT / "bin" / "delete_bulk.py").read_text()))
    assert named - known - files - of_script == set()


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    """Yield every command under `command`, as it is typed."""
    if isinstance(command, click.Group):
        for name, child in below(command).items():
            yield from commands(child, (*path, name))
    else:
        yield " ".join(path)


def test_every_command_is_named_and_exists() -> None:
    known = set(commands(ctms, ("flask", "ctms")))
    groups = {line.rsplit(" ", 1)[0] for line in known} | known
    reference = (DOCS / "reference" / "cli.md").read_text()

    assert "flask ctms serve" in known
    assert [line for line in sorted(known) if line not in reference] == []
    for typed in re.findall(r"flask ctms(?: [a-z][-a-z]*)+", ALL):
        words = typed.split()
        assert any(" ".join(words[:length]) in groups for length in (3, 4)), f"{typed!r} is no command"
        assert " ".join(words[:3]) in groups, f"{typed!r} is no command"


def test_decisions_are_numbered_in_a_row_and_short() -> None:
    decisions = sorted((DOCS / "decisions").glob("[0-9]*"))

    assert len(decisions) >= 8
    for number, page in enumerate(decisions, 1):
        text = page.read_text()
        assert re.fullmatch(rf"{number:03}-[a-z0-9-]+\.md", page.name)
        assert text.startswith(f"# {number:03}: ")
        assert all(f"**{part}.**" in text for part in ("Decision", "Why", "What it costs"))
        assert len(text.splitlines()) <= HALF_A_PAGE


@pytest.mark.parametrize(
    ("wanted", "printed", "same"),
    [
        ("a…c", "abbc\n", True),
        ("a…c", "abbd", False),
        ("…", "", True),
        ("(a)", "a", False),
        ("a", "a\nb", False),
        ("a…", "a\nb", True),
    ],
)
def test_output_is_compared_with_the_page(wanted: str, printed: str, same: bool) -> None:
    assert pages.matches(wanted, printed) is same


def test_blocks_are_read_with_their_comments(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("1. x\n\n   <!-- run -->\n   ```bash\n   a\n     b\n   ```\n\n```text\nc\n```\n")

    assert pages.blocks(page) == [pages.Block("run", "bash", "a\n  b\n"), pages.Block("", "text", "c\n")]
