"""Reject phrases that have a standard term: `python -m tools.wording [FILE…]`, by default for all tracked files.

`tools/wording.toml` lists the phrases and the preferred terms; CONTRIBUTING explains the language of the project.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = ROOT / "tools" / "wording.toml"
_GAP = r"\s+(?:#\s*)?"
SUFFIXES = {".ini", ".jinja", ".md", ".py", ".toml", ".yml"}


class Wording:
    """The rejected phrases, compiled to one regular expression, and the terms that replace them."""

    def __init__(self, terms: Mapping[str, str], exclude: Iterable[str] = ()) -> None:
        self._terms = list(terms.values())
        groups = "|".join(f"({phrase.replace('(', '(?:').replace(' ', _GAP)})" for phrase in terms)
        self._phrases = re.compile(rf"(?<![\w-])(?:{groups})(?![\w-])", re.IGNORECASE)
        self._exclude = re.compile("|".join(exclude) or r"(?!)")

    @classmethod
    def from_file(cls, path: Path = LIST) -> Wording:
        """Read the list."""
        found = tomllib.loads(path.read_text())
        return cls(found["terms"], found["exclude"])

    def covers(self, path: str) -> bool:
        """Return whether a file, by its path in the repository, is checked."""
        return Path(path).suffix in SUFFIXES and not self._exclude.match(path)

    def problems(self, text: str) -> Iterator[tuple[int, str, str]]:
        """Yield the line, the phrase and the preferred term of each rejected phrase."""
        for match in self._phrases.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield line, " ".join(match[0].split()), self._terms[(match.lastindex or 1) - 1]


def tracked_files() -> list[str]:
    """Return the paths of the files in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def main(paths: list[str]) -> int:
    """Report rejected phrases; return the exit status."""
    wording = Wording.from_file()
    found = False
    for path in paths or tracked_files():
        if wording.covers(path) and (ROOT / path).is_file():
            for line, phrase, term in wording.problems((ROOT / path).read_text()):
                found = True
                sys.stderr.write(f"{path}:{line}: write {term!r} instead of {phrase!r}\n")
    return int(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
