"""Two versions of CTMS for a roll-out: an older one, and newer ones with one more migration.

The older version is that of the last tag, if the clone has one that can run here; otherwise it is the checkout. The
newer ones are always the checkout with a higher version number and the migration.
"""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

from ctms.database.migrations import head
from tests.testing.environments import ROOT, Environment

REVISION = "ffffffffffff"
COLUMN = "roll_out_note"

_SOURCE = ("LICENSE", "README.md", "ctms", "ctms_plugins", "migrations", "pyproject.toml", "wsgi.py")
_MIGRATION = f'''\
"""A column more, as many versions add one."""

from alembic import op

revision = "{REVISION}"
down_revision = "{{down}}"
branch_labels = None
depends_on = None
oldest_compatible = "unchanged"


def upgrade() -> None:
    op.execute("ALTER TABLE emails ADD COLUMN {COLUMN} text")
    op.execute("{{statement}}")


def downgrade() -> None:
    op.execute("ALTER TABLE emails DROP COLUMN {COLUMN}")
'''
_WORKS = f"CREATE INDEX idx_{COLUMN} ON emails ({COLUMN}) WHERE {COLUMN} IS NOT NULL"
_BREAKS = "SELECT 1 / count(*) FROM emails WHERE false"


def install_older(folder: Path) -> tuple[Environment, str]:
    """Install the older version into an environment in `folder`; return it, and the version."""
    environment = Environment(folder / "older")
    tag = last_tag()
    if tag is not None:
        source = folder / "tag"
        source.mkdir()
        archive = subprocess.run(["git", "archive", tag], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "--extract"], cwd=source, input=archive, check=True)
        if _is_installed(environment, source):
            return environment, version_of(source)
    return environment, version_of(ROOT)


def last_tag() -> str | None:
    """Return the newest tag of a version among the ancestors of the checkout; None without one, or without Git."""
    if shutil.which("git") is None:
        return None
    command = ["git", "tag", "--list", "v*", "--merged", "HEAD", "--sort", "-version:refname"]
    tags = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    return tags[0] if tags else None


def _is_installed(environment: Environment, source: Path) -> bool:
    """Install from source; return False if it needs other versions of its dependencies than those installed here."""
    variables = environment.variables(source)
    command = [str(environment.commands / "pip"), "install", "--quiet", str(source)]
    done = subprocess.run(command, env=variables, cwd=source, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 or "No matching distribution found for" in done.stderr, done.stderr
    return done.returncode == 0


class NewerVersions:
    """The checkout with a higher version number and one more migration, to be installed into one environment."""

    def __init__(self, folder: Path) -> None:
        self.environment = Environment(folder / "newer")
        self._source = folder / "source"
        for name in _SOURCE:
            path, target = ROOT / name, self._source / name
            if path.is_dir():
                shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                self._source.mkdir(exist_ok=True)
                shutil.copy(path, target)
        self._patch = 0

    def install(self, *, breaks: bool) -> str:
        """Install the next version, whose migration breaks or works; return the version."""
        self._patch += 1
        major, minor, patch = version_of(ROOT).split(".")
        version = f"{major}.{minor}.{int(patch) + self._patch}"
        project = self._source / "pyproject.toml"
        old, new = (f'\nversion = "{one}"\n' for one in (version_of(self._source), version))
        assert project.read_text().count(old) == 1
        project.write_text(project.read_text().replace(old, new))
        file = self._source / "migrations" / "versions" / f"20990101_{REVISION}_roll_out.py"
        file.write_text(_MIGRATION.format(down=head(), statement=_BREAKS if breaks else _WORKS))
        arguments = ["--quiet", "--no-deps", str(self._source)]
        variables = self.environment.variables(self._source)
        self.environment.run("pip", "install", *arguments, variables=variables, folder=self._source)
        return version


def version_of(source: Path) -> str:
    """Return the version of a source tree."""
    return str(tomllib.loads((source / "pyproject.toml").read_text())["project"]["version"])
