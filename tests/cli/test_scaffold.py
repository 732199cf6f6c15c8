"""`flask ctms plugins new`."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hatchling.builders.wheel import WheelBuilder

from ctms.cli import ctms, scaffold
from ctms.cli.scaffold import KINDS, TEMPLATES, rendered, words_for, write
from ctms.environment import declared
from tests.cli.running import run
from tests.docs.pages import ROOT

NEW = ("plugins", "new")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def files(folder: Path) -> list[str]:
    """Return the files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def python_of(kind: str, name: str = "my-hub") -> Iterator[tuple[str, str]]:
    """Yield the Python files of a package."""
    yield from ((path.as_posix(), text) for path, text in rendered(kind, words_for(name, kind)) if path.suffix == ".py")


def imported(text: str) -> set[str]:
    """Return the modules of CTMS that a file imports."""
    return {
        node.module
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ctms"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_written(kind: str, here: Path) -> None:
    result = run(CliRunner(), *NEW, "hub", "--kind", kind)

    assert result.stdout == "ctms-hub\n"
    for step in ("cd ctms-hub", "pip install --editable '.[tests]'", "pytest", "src/ctms_hub/plugin.py"):
        assert step in result.stderr
    assert {
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/ctms_hub/__init__.py",
        "src/ctms_hub/plugin.py",
        "tests/conftest.py",
        "tests/test_plugin.py",
    } <= set(files(here / "ctms-hub"))
    assert not [path for path in here.rglob("*") if "{" in path.name or path.suffix == ".jinja"]
    assert os.listdir(here) == ["ctms-hub"]  # noqa: PTH208  no draft is left


def test_the_project_has_an_entry_point_and_depends_on_ctms(here: Path) -> None:
    run(CliRunner(), *NEW, "relay-uk", "--kind", "waitlist")

    project = tomllib.loads((here / "ctms-relay-uk" / "pyproject.toml").read_text())["project"]
    assert project["name"] == "ctms-relay-uk"
    assert project["entry-points"] == {"ctms": {"relay_uk": "ctms_relay_uk.plugin"}}
    assert re.fullmatch(r"ctms>=\d.*", project["dependencies"][0])
    assert project["optional-dependencies"] == {"tests": ["ctms[testing]"]}
    assert 'name="relay-uk"' in (here / "ctms-relay-uk" / "src" / "ctms_relay_uk" / "plugin.py").read_text()


def test_the_folder_can_be_chosen(here: Path) -> None:
    result = run(CliRunner(), *NEW, "hub", "--kind", "waitlist", "--folder", "deep/down")

    assert result.stdout == "deep/down/ctms-hub\n"
    assert (here / "deep" / "down" / "ctms-hub" / "README.md").is_file()


@pytest.mark.parametrize("name", ["Hub", "9hub", "hub!", "-hub", "hub-", "a--b", "hüb", "../hub", "a b", "", "h" * 51])
def test_a_name_that_cannot_be_one(name: str, here: Path) -> None:
    result = run(CliRunner(), *NEW, "--kind", "waitlist", "--", name, status=2)

    assert "lower-case letters" in result.stderr
    assert files(here) == []


def test_a_kind_that_there_is_not() -> None:
    assert "'--kind'" in run(CliRunner(), *NEW, "hub", "--kind", "validator", status=2).stderr
    forgotten = CliRunner().invoke(ctms, [*NEW, "hub"])
    assert forgotten.exit_code == 2
    assert "Missing option '--kind'" in forgotten.stderr


def test_nothing_is_overwritten(here: Path) -> None:
    run(CliRunner(), *NEW, "hub", "--kind", "waitlist")
    readme = here / "ctms-hub" / "README.md"
    readme.write_text("mine")

    refused = run(CliRunner(), *NEW, "hub", "--kind", "backend", status=10)

    assert "ctms-hub already exists" in refused.stderr
    assert readme.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vpn", "ctms already has a plugin 'vpn'"),
        ("default-waitlist", "a plugin"),
        ("plugins", "a module ctms_plugins"),
    ],
)
def test_installed_names_are_refused(name: str, said: str, here: Path) -> None:
    assert said in run(CliRunner(), *NEW, name, "--kind", "waitlist", status=10).stderr
    assert files(here) == []


def test_a_folder_that_cannot_be_written_to(here: Path) -> None:
    (here / "file").write_text("")

    refused = run(CliRunner(), *NEW, "hub", "--kind", "waitlist", "--folder", "file/below", status=1)
    assert "file/below/ctms-hub cannot be written" in refused.stderr


def test_a_package_is_there_complete_or_not_at_all(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(kind: str, words: object) -> Iterator[tuple[Path, str]]:  # noqa: ARG001
        yield Path("README.md"), "half"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scaffold, "rendered", half)

    refused = run(CliRunner(), *NEW, "hub", "--kind", "waitlist", status=1)
    assert "No space left on device" in refused.stderr
    assert os.listdir(here) == []  # noqa: PTH208


@pytest.mark.parametrize("kind", KINDS)
def test_it_uses_the_front_door(kind: str) -> None:
    found = {path: imported(text) for path, text in python_of(kind)}

    assert {name for path, names in found.items() if path.startswith("src/") for name in names} == {"ctms.plugins"}
    tests = {name for path, names in found.items() if path.startswith("tests/") for name in names}
    assert tests <= {"ctms.plugins", "ctms.testing"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_readme_names_the_settings_that_there_are(kind: str, tmp_path: Path) -> None:
    words = words_for("my-hub", kind)
    write(tmp_path / "package", kind, words)
    spec = importlib.util.spec_from_file_location("a_new_plugin", tmp_path / "package/src/ctms_my_hub/plugin.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    told = set(re.findall(r"CTMS_PLUGIN_\w+", (tmp_path / "package" / "README.md").read_text()))
    there = declared(module.Settings) if hasattr(module, "Settings") else []
    assert told == {f"CTMS_PLUGIN_MY_HUB_{setting.variable}" for _, setting, _ in there}
    for _, _, default in there:
        shown = ",".join(default) if isinstance(default, tuple) else str(default)
        assert not default or f"`{shown}`" in (tmp_path / "package" / "README.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a", "hub", "relay-uk", "a1_b2-c3"])
def test_it_is_python_whatever_the_name(kind: str, name: str) -> None:
    for path, text in python_of(kind, name):
        assert compile(text, path, "exec")
        assert ast.get_docstring(ast.parse(text)), path
        assert max(map(len, text.splitlines())) <= 120, path


def test_the_templates_are_in_the_wheel(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])

    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
    templates = {path.relative_to(ROOT).as_posix() for path in TEMPLATES.rglob("*.jinja")}
    assert len(templates) > 10
    assert templates | {"ctms/py.typed", "ctms/testing/fixtures.py"} <= shipped
