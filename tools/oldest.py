"""Write the oldest versions that `pyproject.toml` declares, as constraints for pip: what `tox -e min` installs."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def declared() -> list[Requirement]:
    """Return the runtime dependencies that `pyproject.toml` declares."""
    return [Requirement(line) for line in tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]]


def oldest() -> Iterator[str]:
    """Yield `name==version` for each of them. Raises `ValueError` for one without exactly one lower bound."""
    for requirement in declared():
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        if len(bounds) != 1:
            raise ValueError(f"{requirement.name} does not have one lower bound")
        yield f"{requirement.name}=={bounds[0]}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("".join(f"{line}\n" for line in oldest()))
