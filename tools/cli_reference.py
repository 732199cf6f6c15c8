"""Generate `docs/reference/cli.md` from the help texts of the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from ctms.cli import ctms
from ctms.cli.group import Group

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
WIDTH = 100

INTRODUCTION = """\
# Command line

<!-- Written by `python -m tools.cli_reference` from the commands in ctms/cli. -->

The commands read the same [settings](settings.md) as the service. They work in any folder, and while the service runs.
They write data to standard output, as JSON with `--json`, and remarks and errors to standard error, which is convenient
for scripts:

    flask ctms clients create id_shop shop@example.com --role viewer --json | jq -r .client_secret

| Exit status | Meaning |
| --- | --- |
| 0 | Success, or nothing to do |
| 1 | Failure: an invalid setting, an unreachable database, a confirmation that was declined or not possible |
| 2 | Wrong usage |
| 3 | Partly done: interrupted, or some items failed; run it again. Or problems were found |
| 4 | The named object does not exist |
| 10 | The object already exists, or is still needed |
"""


def page() -> str:
    """Return the page."""
    return INTRODUCTION + "".join(
        f"\n{'#' * level} {context.command_path}\n\n```\n{context.command.get_help(context)}\n```\n"
        for level, context in commands()
    )


def commands() -> Iterator[tuple[int, click.Context]]:
    """Yield all commands with their heading levels, each after its group."""
    root = click.Context(ctms, info_name="flask ctms", max_content_width=WIDTH, terminal_width=WIDTH)
    yield from _below(2, root)


def _below(level: int, context: click.Context) -> Iterator[tuple[int, click.Context]]:
    yield level, context
    for name, command in sorted(below(context.command).items()):
        yield from _below(level + 1, click.Context(command, info_name=name, parent=context))


def below(command: click.Command) -> dict[str, click.Command]:
    """Return the commands of a group by name; of the group `ctms` ours, not those of installed plugins."""
    if isinstance(command, Group):
        return command.built_in()
    return command.commands if isinstance(command, click.Group) else {}


if __name__ == "__main__":
    PAGE.write_text(page())
