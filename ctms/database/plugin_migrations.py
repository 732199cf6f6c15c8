"""The migrations that a plugin brings: a folder of revisions in one line."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from ctms.database.compatibility import compatible_revisions
from ctms.database.revisions import SCHEMA_PREFIX, place_in
from ctms.errors import PluginError
from ctms.hooks import checks
from ctms.hooks.plugin import Plugin
from ctms.paths import MIGRATIONS

_MAX_NAME = 63 - len(SCHEMA_PREFIX)
_MAX_REVISION = 32


class PluginMigrations:
    """The migrations of one enabled plugin."""

    def __init__(self, plugin: Plugin, folder: Path) -> None:
        """Read the files. Raises `PluginError` if the revisions are not linear."""
        self.plugin = plugin
        self.folder = folder
        if len(plugin.name) > _MAX_NAME:
            raise checks.problem(
                plugin, f"ctms_migrations needs a name of {_MAX_NAME} characters at most", "rename the entry point"
            )
        self.revisions = self._read()
        self.head = self.revisions[0]

    def is_installed_copy(self) -> bool:
        """Return whether pip copied the files here: the next installation removes files written next to them."""
        try:
            files = metadata.distribution(self.plugin.package).files or ()
        except metadata.PackageNotFoundError:
            return False
        return any(Path(str(file.locate())).parent.resolve() == self.folder.resolve() for file in files)

    def _read(self) -> Sequence[str]:
        """Return the ids of the revisions, newest first."""
        from alembic.script import ScriptDirectory  # noqa: PLC0415  see `alembic_config`

        what = f"ctms_migrations yields the folder {self.folder}"
        try:
            self._check_ids(what)
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Revision .* is not present")
                script = ScriptDirectory(str(MIGRATIONS), version_locations=[str(self.folder)])
                heads, bases = script.get_heads(), script.get_bases()
                found = [revision.revision for revision in script.walk_revisions()]
        except PluginError:
            raise
        except (Exception, SystemExit) as error:
            failed = f"{what}, whose revisions cannot be read ({checks.reason(error)})"
            raise checks.problem(self.plugin, failed, place=place_in(self.folder, error)) from error
        if not found:
            raise checks.problem(self.plugin, f"{what}, which has no revisions: are the files in the wheel?")
        if len(heads) > 1 or len(bases) > 1:
            several = heads if len(heads) > 1 else bases
            raise checks.problem(self.plugin, f"{what}, whose revisions are not one line: {', '.join(several)}")
        try:
            compatible_revisions(script, heads[0])
        except ValueError as error:
            raise checks.problem(self.plugin, f"{what}, where {error}", "name an earlier revision") from error
        return found

    def _check_ids(self, what: str) -> None:
        """Raise `PluginError` for ids that Alembic reports without the file's name, or that the table cannot store."""
        from alembic.util import load_python_file  # noqa: PLC0415  see `alembic_config`

        files: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.py")):
            if path.name.startswith((".#", "__init__")):  # Alembic ignores these
                continue
            module = load_python_file(str(self.folder), path.name)
            for name in ("revision", "down_revision", "depends_on"):
                value = getattr(module, name, None)
                ids = value if name != "revision" and isinstance(value, list | tuple) else (value,)
                if not all(isinstance(one, str) or (one is None and name != "revision") for one in ids):
                    missing = f"{what}, where {path.name} has no {name} that is text"
                    raise checks.problem(self.plugin, missing, "give it one in quotes")
            revision = module.revision
            if not revision.strip():
                raise checks.problem(self.plugin, f"{what}, where the revision of {path.name} is empty", "name it")
            if len(revision) > _MAX_REVISION:
                long = f"{what}, where the revision of {path.name} has more than {_MAX_REVISION} characters"
                raise checks.problem(self.plugin, long, "shorten it")
            if revision in files:
                same = f"{what}, where {files[revision]}, {path.name} have one revision, {revision}"
                raise checks.problem(self.plugin, same, "give each file a revision of its own")
            files[revision] = path.name
