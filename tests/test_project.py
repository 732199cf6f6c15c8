"""The shape of the project: its layers, its sizes, its docstrings, its dependencies."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools.oldest import declared, oldest

ROOT = Path(__file__).parent.parent
MAX_MODULE_LINES = 400

# From the top down. A module imports from the layers below it and from its own package; the parts of one layer do not
# know each other.
LAYERS = (
    {"wsgi"},
    {"ctms.testing"},
    {"ctms.cli"},
    {"ctms.app"},
    {"ctms.plugins"},
    {"ctms.api", "ctms.worker"},
    {"ctms.telemetry"},
    {"ctms.subject_access"},
    {"ctms.request_context", "ctms.retention", "ctms.sync"},
    {"ctms.erasure", "ctms.imports"},
    {"ctms.bulk", "ctms.export"},
    {"ctms.batches", "ctms.search"},
    {"ctms.contacts", "ctms.clients"},
    {"ctms.outbox", "ctms.suppression"},
    {"ctms.history"},
    {"ctms.database"},
    {"ctms.hooks"},
    {"ctms.settings", "ctms.paths"},
    {"ctms.environment"},
    {"ctms.compression", "ctms.readers"},
    {
        "ctms.addresses",
        "ctms.current",
        "ctms.database_urls",
        "ctms.errors",
        "ctms.startup",
        "ctms.threads",
        "ctms.words",
    },
)


def modules(*folders: str) -> list[Path]:
    """Return the Python files below these folders."""
    found = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    assert found
    return found


def tracked_files() -> list[Path]:
    """Return the files that are, or are about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def client_modules() -> list[Path]:
    """Return the source files of the installable clients that are not generated."""
    sources = [path for path in tracked_files() if relative(path).startswith("clients/")]
    found = [path for path in sources if path.suffix in {".py", ".ts"}]
    assert {path.suffix for path in found} == {".py", ".ts"}
    return found


def relative(path: Path) -> str:
    """Return the path in the project."""
    return path.relative_to(ROOT).as_posix()


def part_of(module: str) -> str:
    """Return the part of the project, as `LAYERS` names it, that a module belongs to."""
    return ".".join(module.split(".")[:2])


def module_name(path: Path) -> str:
    """Return the name by which a file is imported."""
    return relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: Path) -> Iterator[str]:
    """Yield the names of our own modules that a file imports, including imports inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)} imports relatively"
            module = node.module or ""
            # `from ctms import database` names a module, `from ctms.database.engine import db` does not.
            names = [f"{module}.{name.name}" if module == "ctms" else module for name in node.names]
        elif isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in {"ctms", "ctms_plugins", "wsgi"})


@pytest.mark.parametrize(
    "path",
    [*modules("bin", "ctms", "ctms_plugins", "tests", "tools", "migrations"), *client_modules()],
    ids=relative,
)
def test_a_module_is_not_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_MODULE_LINES, "a module this long is two modules"


@pytest.mark.parametrize("path", [*modules("ctms"), ROOT / "wsgi.py"], ids=relative)
def test_imports_run_downward(path: Path) -> None:
    level = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    here = part_of(module_name(path))
    if here == "ctms":
        assert list(imports(path)) == []
        return
    assert here in level, f"give {here} a layer"
    for imported in imports(path):
        there = part_of(imported)
        assert there == here or level.get(there, -1) > level[here], f"{module_name(path)} must not import {imported}"


def test_the_layers_list_every_package() -> None:
    there = {part_of(module_name(path)) for path in modules("ctms")} - {"ctms"} | {"wsgi"}

    assert there == set.union(*LAYERS)


def test_the_sql_of_the_outbox_is_in_two_packages() -> None:
    statement = re.compile(r"\b(?:FROM|INTO|UPDATE|JOIN|USING)\s+(?:outbox|outbox_mirrored|receivers)\b")
    found = {part_of(module_name(path)) for path in modules("ctms") if statement.search(path.read_text())}

    assert found == {"ctms.outbox", "ctms.sync"}


@pytest.mark.parametrize("path", modules("ctms_plugins"), ids=relative)
def test_bundled_plugins_import_only_the_public_plugin_api(path: Path) -> None:
    own = ".".join(module_name(path).split(".")[:2])

    assert {name for name in imports(path) if part_of(name) != own} <= {"ctms.plugins"}


@pytest.mark.parametrize("path", modules("migrations"), ids=relative)
def test_migrations_do_not_depend_on_code_that_changes(path: Path) -> None:
    assert list(imports(path)) == []


@pytest.mark.parametrize("path", modules("ctms", "tools"), ids=relative)
def test_public_names_have_docstrings(path: Path) -> None:
    if not path.read_text().strip():
        return
    module = importlib.import_module(module_name(path))
    assert module.__doc__, f"{path.name} does not say what it is for"
    assert [name for name, documented in public(module) if not documented] == []


def public(module: ModuleType) -> Iterator[tuple[str, bool]]:
    """Yield the public functions, classes and methods that a module defines, and whether they are documented.

    An override of a documented method counts as documented.
    """
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if isinstance(thing, FunctionType):
            yield name, bool(thing.__doc__)
        elif inspect.isclass(thing):
            yield name, bool(thing.__doc__)
            for method, function in vars(thing).items():
                inner = getattr(function, "__func__", getattr(function, "fget", function))
                if isinstance(inner, FunctionType) and not method.startswith("_"):
                    yield f"{name}.{method}", bool(inspect.getdoc(getattr(thing, method)))


def test_a_public_class_name_has_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for path in modules("ctms", "ctms_plugins"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(relative(path))
    # The loader of plugins expects their settings in a class of this name.
    places["Settings"] = [place for place in places["Settings"] if not place.startswith("ctms_plugins/")]

    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def destinations() -> list[str]:
    """Return the paths in the table of CONTRIBUTING that tells newcomers where to find something."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Where to find it\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| [^|]+ \| (`[^|]+`) \|$", section, re.MULTILINE)
    assert len(cells) >= 20
    return [path for cell in cells for path in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("path", sorted(set(destinations())))
def test_a_newcomer_finds_what_contributing_names(path: str) -> None:
    assert (ROOT / path).exists()


def test_nothing_names_the_place_where_it_was_written() -> None:
    # Spelt so that this file does not name them either.
    workshop = re.compile(r"(?<![\w.])/wor" + r"k(?![\w-])|\.\./shar" + r"ed\b")
    files = [path for path in tracked_files() if relative(path).split("/")[0] != ".ci"]

    assert len(files) > 50
    found = []
    for path in files:
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        if workshop.search(text):
            found.append(relative(path))
    assert found == []


def locked() -> dict[str, str]:
    """Return the packages in `requirements.lock`: name and version."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_a_dependency_is_locked_at_a_version_that_we_declare(requirement: Requirement) -> None:
    version = locked().get(canonicalize_name(requirement.name))

    assert version is not None, "run `tox -e lock`"
    assert Version(version) in requirement.specifier, "run `tox -e lock`"


def test_the_lock_has_a_hash_for_everything_and_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]

    assert len(entries) == len(locked()) > len(declared())
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links|--trusted-host", text)


def test_dependencies_have_a_lower_and_an_upper_bound() -> None:
    open_ended = [requirement.name for requirement in declared() if "<" not in str(requirement.specifier)]

    assert len(list(oldest())) == len(declared())
    # Versioned by year: there is no next major version to stay below.
    assert open_ended == ["dockerflow"]
