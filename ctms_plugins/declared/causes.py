"""Explanations of invalid JSON Schemas for their authors, where the library's messages are too terse."""

from __future__ import annotations

import difflib
import json
import re
from typing import Any

import jsonschema_rs

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_MEANT = {"text": "string", "float": "number", "decimal": "number", "list": "array", "dict": "object", "none": "null"}

# Constructs that need more than linear time; escaped characters and character classes are skipped.
_SLOW = re.compile(
    r"""
    (?P<reference> \\[1-9] | \\k[<{'] | \(\?P= )
    | \\. | \[\^?\]?(?:\\.|[^\]\\])*\]
    | (?P<around> \(\?<?[=!] )
    | (?P<atomic> \(\?> | [*+?}]\+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_SLOW_WORDS = {
    "around": "look-arounds, such as (?=…) or (?<!…)",
    "reference": "back-references",
    "atomic": "atomic groups or possessive quantifiers",
}


def regex_problem(pattern: Any) -> str:
    """Return why a pattern is not supported by the linear-time regular expressions of declared waitlists."""
    shown = json.dumps(pattern, ensure_ascii=False)
    found = {match.lastgroup for match in _SLOW.finditer(pattern)}
    words = ", and ".join(text for name, text in _SLOW_WORDS.items() if name in found)
    if words:
        return f"{shown} has {words}, which take more than linear time: say it without"
    try:
        jsonschema_rs.Draft202012Validator({"pattern": pattern}, offline=True)  # has no limit of time or size
    except jsonschema_rs.ValidationError:
        return f"{shown} is no regular expression"
    return f"{shown} is too large an expression"


def type_problem(given: Any) -> str:
    """Return why this is neither the name of a type nor a list of names."""
    rule = f"the types are {', '.join(_TYPES)}"
    names = given if isinstance(given, list) else [given]
    wrong = [name for name in names if name not in _TYPES]
    if not wrong:
        return f"must be a type, or a list of different ones, not {json.dumps(given)}: {rule}"
    name = wrong[0]
    shown = json.dumps(name, ensure_ascii=False)
    if isinstance(name, str):
        close = [_MEANT.get(name.lower()), *difflib.get_close_matches(name.lower(), _TYPES, 1)]
        meant = next(filter(None, close), None)
        if meant is not None:
            return f'{shown} is no type: did you mean "{meant}"?'
    return f"{shown} is no type: {rule}"
