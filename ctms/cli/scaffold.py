"""`flask ctms plugins new`: creates a package with a plugin as a starting point."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from jinja2 import Environment, StrictUndefined

from ctms.cli.output import say
from ctms.errors import ConflictError, OperatorError
from ctms.hooks.manager import GROUP
from ctms.paths import PACKAGE

TEMPLATES = PACKAGE / "templates" / "plugin"
SUFFIX = ".jinja"
MAX_NAME_LENGTH = 50

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", re.ASCII)
_FOLDERS = {"module": "{module}", "gitignore": ".gitignore"}


@dataclass(frozen=True)
class Kind:
    """The differences between the kinds of plugins, besides their templates.

    `stores`: it has tables or permissions, which an upgrade creates and a purge removes.
    """

    summary: str
    holds: str
    settings: tuple[tuple[str, str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    stores: bool = False


_TOKEN = ("TOKEN", "secret that authenticates us to the other system", "none")

KINDS: Mapping[str, Kind] = {
    "waitlist": Kind("The rules of CTMS for the fields of the waitlist {name}.", "the rules"),
    "backend": Kind(
        "Syncs the contacts of CTMS to {title}.",
        "the backend",
        (("URL", "URL that receives contacts", "`http://127.0.0.1:9000/contacts`"), _TOKEN),
    ),
    "deletion-handler": Kind(
        "Erases people in {title} when CTMS erases them.",
        "the deletion handler",
        (("URL", "URL that receives erasure requests", "`http://127.0.0.1:9000/forget`"), _TOKEN),
    ),
    "newsletters": Kind(
        "Syncs the subscribers of newsletters to {title}.",
        "the backend",
        (
            ("NEWSLETTERS", "names of the newsletters, separated by commas", "`weekly`"),
            ("URL", "URL that receives subscribers", "`http://127.0.0.1:9000/subscribers`"),
            _TOKEN,
        ),
    ),
    "blueprint": Kind(
        "Notes about contacts, below /{name}.",
        "the routes, and the permissions that they require",
        files=(("migrations/", "the revisions that create the table"),),
        stores=True,
    ),
    "command": Kind("The command `flask ctms {name}`.", "the command"),
    "health-check": Kind(
        "Warns if {title} does not respond.",
        "the health check",
        (
            ("URL", "URL to check", "`http://127.0.0.1:9000/health`"),
            ("TIMEOUT", "timeout, in seconds", "`1.0`"),
        ),
    ),
}


def _checked(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise click.BadParameter(
            f"a name consists of lower-case letters and digits, with - or _ between them, begins with a letter and"
            f" has at most {MAX_NAME_LENGTH} characters"
        )
    return name


@click.command()
@click.argument("name", callback=_checked)
@click.option("--kind", type=click.Choice(list(KINDS)), required=True, help="Kind of the plugin.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder in which to create the package's folder. Default: the current one.",
)
def new(name: str, kind: str, folder: Path) -> None:
    """Create a package with a plugin NAME, and print the path of its folder, ctms-NAME.

    The package is complete: an entry point, the plugin, passing tests, a README. Nothing is overwritten: exits with 10
    if the folder already exists, or a plugin or package of that name is installed.
    """
    words = words_for(name, kind)
    _refuse_taken(words)
    target = folder / words["package"]
    if target.exists():
        raise ConflictError(f"{target} already exists")
    try:
        write(target, kind, words)
    except OSError as error:
        raise OperatorError(f"{target} cannot be written: {error.strerror}") from error
    click.echo(str(target))
    say(
        f"Created a package with the plugin {words['plugin']!r}; its README.md describes the files. Next:\n\n"
        f"  cd {target}\n"
        "  pip install --editable '.[tests]'\n"
        "  pytest\n\n"
        f"Then change src/{words['module']}/plugin.py and tests/test_plugin.py. The next start of the service loads it."
    )


def words_for(name: str, kind: str) -> dict[str, Any]:
    """Return the variables of the templates for a plugin `name`: its package, its module and so on."""
    plugin = name.replace("-", "_")
    parts = plugin.split("_")
    title = " ".join(parts).capitalize()
    return {
        "name": name,
        "plugin": plugin,
        "package": f"ctms-{name.replace('_', '-')}",
        "module": f"ctms_{plugin}",
        "title": title,
        "cls": "".join(part.capitalize() for part in parts),
        "variable": f"CTMS_PLUGIN_{plugin.upper()}_",
        "ctms": metadata.version("ctms"),
        "summary": KINDS[kind].summary.format(name=name, title=title),
        "holds": KINDS[kind].holds,
        "settings": KINDS[kind].settings,
        "files": KINDS[kind].files,
        "stores": KINDS[kind].stores,
    }


def _refuse_taken(words: Mapping[str, Any]) -> None:
    for point in metadata.entry_points(group=GROUP, name=words["plugin"]):
        package = point.dist.name if point.dist else "an unknown package"
        raise ConflictError(f"{package} already has a plugin {words['plugin']!r}: choose another name")
    if importlib.util.find_spec(words["module"]) is not None:
        raise ConflictError(f"a module {words['module']} already exists: choose another name")


def write(target: Path, kind: str, words: Mapping[str, Any]) -> None:
    """Write the package of a kind to the folder `target`, all of it or nothing. Raises `OSError`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        draft = Path(scratch) / target.name
        for path, text in rendered(kind, words):
            file = draft / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        shutil.move(draft, target)


def rendered(kind: str, words: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield the files of a package: path in its folder, and text."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    for folder in ("common", kind):
        for template in sorted((TEMPLATES / folder).rglob(f"*{SUFFIX}")):
            parts = template.relative_to(TEMPLATES / folder).with_suffix("").parts
            path = Path(*(_FOLDERS.get(part, part).format(**words) for part in parts))
            yield path, environment.from_string(template.read_text()).render(words)
