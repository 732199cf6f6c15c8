"""The packages to publish: their types, their content, and their installation into an empty environment."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_bytes
from importlib.metadata import distribution
from pathlib import Path

import ctms_client
import pytest
from packaging.requirements import Requirement

from tests.generated_clients.conftest import DRIVER, STRICT, mypy, run
from tests.serving import Served
from tools.clients import PYTHON, ROOT, TYPESCRIPT, build

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NAME = "ctms_client"

USE = """\
import asyncio, sys
from ctms_client import AsyncClient, Client, models

url, client_id, secret = sys.argv[1:]
body = models.ContactInput(email=models.EmailInput(primary_email="wheel@example.com"))
with Client(url, client_id, secret) as ctms:
    (contact,) = ctms.contacts.find(primary_email="wheel@example.com") or [ctms.contacts.create(body)]

async def read():
    async with AsyncClient(url, client_id, secret) as ctms:
        return await ctms.contacts.get(contact.email.email_id)

print(asyncio.run(read()).email.primary_email)
"""

USE_TYPESCRIPT = """\
import { Client, type Contact } from "ctms-client";

const [url = "", clientId = "", secret = ""] = process.argv.slice(2);
const ctms = new Client(url, clientId, secret);
const [found] = await ctms.contacts.find({ primary_email: "tarball@example.com" });
const { email } = found ?? (await ctms.contacts.create({ email: { primary_email: "tarball@example.com" } }));
const contact: Contact = await ctms.contacts.get(email.email_id);
console.log(contact.email.primary_email);
"""


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the packages."""
    folder = tmp_path_factory.mktemp("packages")
    build(folder)
    return folder


def test_there_is_nothing_else(packages: Path) -> None:
    assert {path.name for path in packages.iterdir()} == {
        f"{NAME}-{VERSION}-py3-none-any.whl",
        f"{NAME}-{VERSION}.tar.gz",
        f"ctms-client-{VERSION}.tgz",
    }


def sources() -> set[str]:
    """Return the modules of the Python client, generated ones included."""
    source = PYTHON / "src"
    files = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    assert f"{NAME}/generated/api/updates/list_updates.py" in files
    return files | {f"{NAME}/py.typed"}


def test_the_wheel(packages: Path) -> None:
    with zipfile.ZipFile(packages / f"{NAME}-{VERSION}-py3-none-any.whl") as wheel:
        files = set(wheel.namelist())
        metadata = message_from_bytes(wheel.read(f"{NAME}-{VERSION}.dist-info/METADATA"))

    info = f"{NAME}-{VERSION}.dist-info"
    assert {name for name in files if not name.startswith(info)} == sources()
    assert f"{info}/licenses/LICENSE" in files
    assert (metadata["Version"], metadata["License-Expression"]) == (VERSION, "MPL-2.0")
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "# ctms-client" in str(metadata.get_payload())


def test_the_sdist(packages: Path) -> None:
    prefix = f"{NAME}-{VERSION}/"
    with tarfile.open(packages / f"{NAME}-{VERSION}.tar.gz") as sdist:
        files = {name.removeprefix(prefix) for name in sdist.getnames()}

    assert files - {".gitignore"} == {f"src/{name}" for name in sources()} | {
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "pyproject.toml",
    }


def test_the_tarball(packages: Path) -> None:
    with tarfile.open(packages / f"ctms-client-{VERSION}.tgz") as tarball:
        files = {name.removeprefix("package/") for name in tarball.getnames()}
        manifest_file = tarball.extractfile("package/package.json")
        assert manifest_file is not None
        manifest = json.load(manifest_file)

    modules = {path.stem for path in (TYPESCRIPT / "src").glob("*.ts")}
    assert {"index", "schema"} <= modules
    compiled = {f"dist/{name}{suffix}" for name in modules for suffix in (".js", ".d.ts")}
    assert files == compiled | {"LICENSE", "README.md", "package.json"}
    assert (manifest["version"], manifest["license"]) == (VERSION, "MPL-2.0")
    assert manifest["exports"]["."]["types"] == "./dist/index.d.ts"


def test_versions_and_licenses_are_those_of_the_service() -> None:
    python = tomllib.loads((PYTHON / "pyproject.toml").read_text())["project"]
    lock = json.loads((TYPESCRIPT / "package-lock.json").read_text())

    assert python["version"] == VERSION
    assert json.loads((TYPESCRIPT / "package.json").read_text())["version"] == VERSION
    assert lock["version"] == lock["packages"][""]["version"] == VERSION
    for folder in (PYTHON, TYPESCRIPT):
        assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_wheel_in_an_empty_environment(packages: Path, service: Served, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    (site,) = environment.glob("lib/python*/site-packages")
    _link_dependencies(NAME, site, packages)
    (wheel,) = packages.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", str(environment), "install", "--no-index", "--quiet")
    run(*pip, "--disable-pip-version-check", str(wheel), cwd=tmp_path)

    command = (str(environment / "bin" / "python"), "-W", "error", "-c", USE)
    printed = run(*command, service.url, service.client_id, service.client_secret, cwd=tmp_path)

    assert printed == "wheel@example.com\n"


def _link_dependencies(name: str, site: Path, packages: Path) -> None:
    """Install the dependencies that the wheel declares, and nothing else, as links to those of this environment."""
    (wheel,) = packages.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(f"{name}-{VERSION}.dist-info/METADATA"))
    waiting = [Requirement(line) for line in metadata.get_all("Requires-Dist") or []]
    done = set()
    while waiting:
        requirement = waiting.pop()
        if requirement.name in done or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        done.add(requirement.name)
        found = distribution(requirement.name)
        for top in {file.parts[0] for file in found.files or () if ".." not in file.parts}:
            if not (site / top).exists():
                (site / top).symlink_to(str(found.locate_file(top)))
        waiting += [Requirement(line) for line in found.requires or ()]


def test_the_tarball_in_an_empty_folder(packages: Path, service: Served, tmp_path: Path) -> None:
    (tarball,) = packages.glob("*.tgz")
    package = tmp_path / "node_modules" / "ctms-client"
    package.mkdir(parents=True)
    with tarfile.open(tarball) as archive:
        archive.extractall(tmp_path / "extracted", filter="data")
    (tmp_path / "extracted" / "package").rename(package)
    dependencies = json.loads((package / "package.json").read_text())["dependencies"]
    for name in _dependencies(set(dependencies)):
        (tmp_path / "node_modules" / name).symlink_to(TYPESCRIPT / "node_modules" / name)
    (tmp_path / "node_modules" / "@types").symlink_to(TYPESCRIPT / "node_modules" / "@types")
    (tmp_path / "tsconfig.json").write_text((DRIVER / "tsconfig.json").read_text())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "use.ts").write_text(USE_TYPESCRIPT)

    compiler = TYPESCRIPT / "node_modules" / "typescript" / "bin" / "tsc"
    run("node", str(compiler), "--project", ".", cwd=tmp_path)
    arguments = (service.url, service.client_id, service.client_secret)
    printed = run("node", "built/use.js", *arguments, cwd=tmp_path)

    assert printed == "tarball@example.com\n"


def _dependencies(names: set[str]) -> set[str]:
    """Return these packages of npm and what they need."""
    lock = json.loads((TYPESCRIPT / "package-lock.json").read_text())["packages"]
    needed = {one for name in names for one in lock[f"node_modules/{name}"].get("dependencies", {})}
    return names if needed <= names else _dependencies(names | needed)


def test_a_build_without_the_generated_code_fails(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((PYTHON / name).read_bytes())
    (tmp_path / "src" / NAME).mkdir(parents=True)
    (tmp_path / "src" / NAME / "__init__.py").touch()

    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert f"{NAME}/generated" in done.stderr


def test_the_types_of_the_python_client_are_checked_strictly() -> None:
    own = [str(path) for path in sorted(Path(ctms_client.__file__).parent.glob("*.py"))]
    tests = [str(path) for path in sorted(Path(__file__).parent.glob("*.py"))]
    options = ("--follow-imports", "silent", "--python-version", "3.11", "--explicit-package-bases")

    mypy(*STRICT, *options, *own, *tests, cwd=ROOT, MYPYPATH=f"{PYTHON / 'src'}:{ROOT}")
