"""The tables of messages in the docs: those whose first column is called so."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.docs.pages import PAGES, ROOT

CODE = [path for folder in ("ctms", "ctms_plugins", "migrations") for path in (ROOT / folder).rglob("*.py")]

_TABLE = re.compile(r"^\| Message \|.*\n\| ---.*\n(?P<rows>(?:\|.*\n)+)", re.MULTILINE)
_ANYTHING = "…"


@cache
def documented() -> dict[str, Path]:
    """Return all messages in the tables and their pages; `…` matches anything."""
    return {
        row.split("`")[1]: page
        for page in PAGES
        for table in _TABLE.finditer(page.read_text())
        for row in table["rows"].splitlines()
    }


def fragments(message: str) -> list[str]:
    """Return the words of a documented message that are the same each time."""
    return [part for part in message.split(_ANYTHING) if part.strip()]


def is_documented(message: str) -> bool:
    """Return whether a message is in one of the tables."""
    return any(_pattern(one).search(message) for one in documented())


def _pattern(message: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, message.split(_ANYTHING))))


def sources() -> list[str]:
    """Return the texts in the code, with `…` for inserted values."""
    return [text for path in sorted(CODE) for text in _texts(path)]


def _texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else _ANYTHING for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.replace("%s", _ANYTHING)
