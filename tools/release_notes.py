"""Print the notes of a release, its section of CHANGELOG.md: `python -m tools.release_notes v1.2.3`.

It fails if the tag, the version in `pyproject.toml` and the newest dated section do not agree, or if the section does
not say what operators have to do for the upgrade.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def notes(tag: str, root: Path = ROOT) -> str:
    """Return the notes of a tag. Raises `ValueError` if the release is not ready."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, and the version in pyproject.toml {version}")
    unreleased, *sections = re.split(r"^## ", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    if unreleased.removeprefix("Unreleased").strip():
        raise ValueError("CHANGELOG.md has unreleased changes: give them the version and a date")
    heading, _, text = sections[0].partition("\n") if sections else ("", "", "")
    if not re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d{{2}}-\d{{2}}", heading):
        raise ValueError(f"the newest section of CHANGELOG.md is not that of {version} with its date")
    if not text.strip():
        raise ValueError(f"the section of {version} in CHANGELOG.md is empty")
    if not re.search(r"^### Upgrading\b.*\n+[^#\n]", text, re.MULTILINE):
        raise ValueError(f"the section of {version} in CHANGELOG.md has no text under a heading `### Upgrading`")
    return text.strip() + "\n"


if __name__ == "__main__":
    try:
        sys.stdout.write(notes(sys.argv[1]))
    except ValueError as error:
        sys.exit(f"Error: {error}")
