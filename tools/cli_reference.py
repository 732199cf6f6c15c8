"""Write `docs/reference/cli.md` from what the commands say with `--help`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from ctms.cli import ctms

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
WIDTH = 100

INTRODUCTION = """\
# Command line

<!-- Written by `python -m tools.cli_reference` from the commands in ctms/cli. -->

The commands read the same [settings](settings.md) as the service, work in any folder and work while it runs. They
write data to standard output, as JSON with `--json`, and remarks and errors to standard error, so that a script gets
what it asks for:

    flask ctms clients create id_shop shop@example.com --role viewer --json | jq -r .client_secret

| Exit status | Meaning |
| --- | --- |
| 0 | Done, or it was so already |
| 1 | Not done: a bad setting, a database out of reach, a question that got a no or that nobody could be asked |
| 2 | Called wrongly |
| 3 | Done in part: it was stopped, or could not do some; run it again. Or it found what is not as it should be |
| 4 | What the command names does not exist |
| 10 | What it would make exists already, or what it would break is needed |
"""


def page() -> str:
    """Return the page."""
    return INTRODUCTION + "".join(
        f"\n{'#' * level} {context.command_path}\n\n```\n{context.command.get_help(context)}\n```\n"
        for level, context in commands()
    )


def commands() -> Iterator[tuple[int, click.Context]]:
    """Return all commands, each after its group, and how deep they lie."""
    root = click.Context(ctms, info_name="flask ctms", max_content_width=WIDTH, terminal_width=WIDTH)
    yield from _below(2, root)


def _below(level: int, context: click.Context) -> Iterator[tuple[int, click.Context]]:
    yield level, context
    if isinstance(context.command, click.Group):
        for name, command in sorted(context.command.commands.items()):  # ours, not those of installed plugins
            yield from _below(level + 1, click.Context(command, info_name=name, parent=context))


if __name__ == "__main__":
    PAGE.write_text(page())
