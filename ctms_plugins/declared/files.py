"""Reading the files: a table per declaration, by its name."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ctms.plugins import RegistrationError

_TOML_PROBLEM = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)", re.DOTALL)


@dataclass(frozen=True)
class DeclarationKind:
    """A kind of declaration, such as `waitlist`, and the members that its tables may have."""

    noun: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Declared:
    """A waitlist or a newsletter as a file declares it."""

    kind: DeclarationKind
    file: Path
    line: int | None
    name: str
    table: dict[str, Any]

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Add the file and the line to a `RegistrationError` that is raised in the block."""
        try:
            yield
        except RegistrationError as error:
            raise RegistrationError(f"{self.place}: {error}") from error

    @property
    def place(self) -> str:
        """The file, and the line where the table begins, if that is known."""
        return _place(self.file, self.line)

    def text(self, member: str) -> str:
        """Return a text of the table, empty if it is not there."""
        return str(self.table.get(member, ""))

    def check(self) -> None:
        """Raise `RegistrationError` unless the table has a title, texts for people, and no unknown members."""
        unknown = sorted(set(self.table) - set(self.kind.members))
        if unknown:
            self.refuse(f"has {', '.join(unknown)}, but may have {', '.join(self.kind.members)}")
        if not self.text("title").strip():
            self.refuse("needs a title")
        for member in ("title", "description"):
            if not isinstance(self.table.get(member, ""), str):
                self.refuse(f"has a {member} that is no text")

    def refuse(self, what: str) -> NoReturn:
        """Raise `RegistrationError` with the place and the name."""
        raise RegistrationError(f"{self.place}: the {self.kind.noun} {self.name!r} {what}")


def read(path: Path, kind: DeclarationKind) -> list[Declared]:
    """Return the declarations of the file, or of the folder's `.toml` and `.json` files, by file in their order.

    Raises `RegistrationError`, with file and line if known.
    """
    files = sorted(file for file in path.iterdir() if file.suffix in _READERS) if path.is_dir() else [path]
    found: dict[str, Declared] = {}
    for file in files:
        for declared in _read_file(file, kind):
            other = found.setdefault(declared.name, declared)
            if other is not declared:
                raise RegistrationError(f"{declared.place}: {other.place} also declares the {kind.noun} {other.name!r}")
    return list(found.values())


def _read_file(file: Path, kind: DeclarationKind) -> Iterator[Declared]:
    if file.suffix not in _READERS:
        raise RegistrationError(f"{file}: the name of a file that declares {kind.noun}s must end in .toml or .json")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RegistrationError(f"{file}: cannot be read as UTF-8 text ({type(error).__name__})") from error
    try:
        tables = _READERS[file.suffix](file, text)
    except RecursionError as error:
        raise RegistrationError(f"{file}: is nested too deeply") from error
    if not isinstance(tables, dict):
        raise RegistrationError(f"{file}: must be an object whose members are {kind.noun}s, by name")
    for name, table in tables.items():
        line = _line_of(name, text)
        if not isinstance(table, dict):
            raise RegistrationError(f"{_place(file, line)}: {name} must be the table of a {kind.noun} of that name")
        declared = Declared(kind, file, line, name, table)
        declared.check()
        yield declared


def _read_toml(file: Path, text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = _TOML_PROBLEM.fullmatch(str(error))
        what, line = (problem["what"], problem["line"]) if problem else (str(error), None)
        raise RegistrationError(f"{_place(file, line or _last_line(text))}: {what}") from error


def _read_json(file: Path, text: str) -> Any:
    def once(members: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in members]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise RegistrationError(f"{_place(file, _line_of(twice, text))}: {twice!r} occurs twice in one object")
        return dict(members)

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise RegistrationError(f"{_place(file, error.lineno)}: {error.msg}") from error


_READERS = {".toml": _read_toml, ".json": _read_json}


def _line_of(name: str, text: str) -> int | None:
    """Return the line on which the table of that name begins: of all matching lines the least indented."""
    quoted = "|".join(re.escape(form) for form in (name, f"'{name}'", json.dumps(name)))
    pattern = re.compile(rf"^([ \t]*)\{{?[ \t]*\[?[ \t]*(?:{quoted})[ \t]*[\].=:]", re.MULTILINE)
    first = min(pattern.finditer(text), key=lambda found: len(found[1]), default=None)
    return text.count("\n", 0, first.start()) + 1 if first else None


def _last_line(text: str) -> int:
    return len(text.splitlines()) or 1


def _place(file: Path, line: int | str | None) -> str:
    return f"{file}, line {line}" if line else str(file)
