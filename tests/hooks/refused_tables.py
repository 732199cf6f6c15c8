"""Packages with permissions or migrations that the service does not start with."""

from __future__ import annotations

from tests.hooks.refused import OFF, Case, implements

MIGRATIONS = """
from pathlib import Path

REVISIONS = {revisions!r}

@hookimpl
def ctms_migrations():
    folder = Path(__file__).parent / "revisions"
    folder.mkdir(exist_ok=True)
    for file, text in REVISIONS.items():
        (folder / file).write_text(text)
    yield Migrations(folder=folder)
    {more}
"""
OTHER_FOLDER = "yield Migrations(folder=Path(__file__).parent)"
REVISION = "revision = {!r}\ndown_revision = {!r}\n"

TABLE_CASES = (
    Case(
        "permission of the service",
        ("ctms_permissions yields 'view_contacts', a permission that the service has", "rename it"),
        implements("ctms_permissions", 'yield Permission(name="view_contacts", description="Any")'),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "permission of two",
        ("both register 'hub:read' with ctms_permissions", "rename one"),
        implements("ctms_permissions", 'yield Permission(name="hub:read", description="Any")'),
        implements("ctms_permissions", 'yield Permission(name="hub:read", description="Another")'),
        has_place=False,
    ),
    Case(
        "permission without a description",
        ("ctms_permissions failed with RegistrationError: the permission 'hub' needs a description",),
        implements("ctms_permissions", 'yield Permission(name="hub", description=" ")'),
    ),
    Case(
        "name of a permission",
        ("the name of a permission consists of lower-case letters", "not 'Hub'"),
        implements("ctms_permissions", 'yield Permission(name="Hub", description="Any")'),
    ),
    Case(
        "no folder of migrations",
        ("the folder /nowhere of the migrations does not exist: is it in the wheel?",),
        implements("ctms_migrations", 'from pathlib import Path; yield Migrations(folder=Path("/nowhere"))'),
    ),
    Case(
        "folder of migrations as text",
        ("folder of the migrations must be a Path, not str",),
        implements("ctms_migrations", 'yield Migrations(folder="migrations")'),
    ),
    Case(
        "two folders of migrations",
        ("ctms_migrations yields two folders", "put all revisions into one"),
        MIGRATIONS.format(revisions={"0001.py": REVISION.format("0001", None)}, more=OTHER_FOLDER),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "migrations without a file",
        ("which has no revisions: are the files in the wheel?", "ctms_migrations yields the folder "),
        MIGRATIONS.format(revisions={}, more=""),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "two lines of migrations",
        ("whose revisions are not one line: ", "0001", "0002"),
        MIGRATIONS.format(
            revisions={"1.py": REVISION.format("0001", None), "2.py": REVISION.format("0002", None)}, more=""
        ),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "revision of two files",
        ("where 1.py, 2.py have one revision, 0001: give each file a revision of its own",),
        MIGRATIONS.format(
            revisions={"1.py": REVISION.format("0001", None), "2.py": REVISION.format("0001", None)}, more=""
        ),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "revision that does not exist",
        ("whose revisions cannot be read (", "Revision 0001 referenced from", OFF),
        MIGRATIONS.format(revisions={"2.py": REVISION.format("0002", "0001")}, more=""),
        needs_app=True,
        has_place=False,
    ),
    Case(
        "long id of a revision",
        ("where the revision of 1.py has more than 32 characters: shorten it",),
        MIGRATIONS.format(revisions={"1.py": REVISION.format(33 * "1", None)}, more=""),
        needs_app=True,
        has_place=False,
    ),
)
