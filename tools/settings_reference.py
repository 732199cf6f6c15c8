"""Write `docs/reference/settings.md` from the fields of `ctms.settings.Settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctms.settings import Setting, Settings

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"

INTRODUCTION = """\
# Settings

<!-- Written by `tox -e reference` from ctms/settings.py. -->

All settings are environment variables. They are read once, when the service or a command starts; a value that cannot
be used is refused then, in one line that names the variable and never shows its value.

- A variable that is empty counts as unset.
- A variable that begins with `CTMS_` and is nearly one of these stops the start: "did you mean …?". So does one that
  begins as those of a plugin that is on and is none of its settings. Any other variable is left alone.
- Each may also come from a file: `CTMS_SECRET_KEY_FILE=/run/secrets/key` reads `CTMS_SECRET_KEY` from there,
  without the white space at both ends. Where both are given, the file counts.
- Booleans are `true` or `false`, also `1` or `0`, `yes` or `no`, `on` or `off`.
- `flask ctms settings` shows what is in force, with the secrets masked.

| Variable | Default | Meaning |
| --- | --- | --- |
"""

# What depends on the machine is said in words.
WORDS = {
    "data_dir": "`ctms` in the user's data folder, such as `~/.local/share/ctms`; for root `/var/lib/ctms`",
    "workers": "the number of cores",
}


def page() -> str:
    """Return the page."""
    return INTRODUCTION + "".join(_row(name, setting, default) for name, setting, default in Settings.declared())


def _row(name: str, setting: Setting, default: Any) -> str:
    mark = " (secret)" if setting.secret else ""
    return f"| `{setting.variable}` | {_default(name, default)} | {setting.help}{mark} |\n"


def _default(name: str, default: Any) -> str:
    if name in WORDS:
        return WORDS[name]
    if default is None or default == ():
        return "unset"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


if __name__ == "__main__":
    PAGE.write_text(page())
