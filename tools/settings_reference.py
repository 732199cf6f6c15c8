"""Generate `docs/reference/settings.md` from the fields of `ctms.settings.Settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctms.settings import Setting, Settings

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"

INTRODUCTION = """\
# Settings

<!-- Written by `tox -e reference` from ctms/settings.py. -->

All settings are environment variables. They are read once, when the service or a command starts. An invalid value is
rejected with one line that names the variable and never shows its value.

- An empty variable counts as unset.
- A misspelt variable that begins with `CTMS_` prevents the start: "did you mean …?". So does an unknown variable with
  the prefix of an enabled plugin. Other variables are ignored.
- Each setting may also come from a file: `CTMS_SECRET_KEY_FILE=/run/secrets/key` reads `CTMS_SECRET_KEY` from the file,
  without leading and trailing white space. If both variables are set, the file takes precedence.
- Booleans are `true` or `false`, `1` or `0`, `yes` or `no`, `on` or `off`.
- `flask ctms settings` shows the effective settings, with secrets masked.

| Variable | Default | Meaning |
| --- | --- | --- |
"""

# Defaults that depend on the machine, described in words.
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
