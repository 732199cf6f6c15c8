"""The examples of the how-to guides: their types are checked, and they print what the guides say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.docs import pages
from tests.generated_clients.conftest import DRIVER, STRICT, URL_OF_THE_DOCS, mypy, run
from tests.serving import Served
from tools.clients import PYTHON, TYPESCRIPT

PYTHON_GUIDE = pages.DOCS / "how-to" / "use-the-python-client.md"
TYPESCRIPT_GUIDE = pages.DOCS / "how-to" / "use-the-typescript-client.md"


def examples(guide: Path, folder: Path, service: Served) -> list[str]:
    """Write the examples of a guide into the folder; return their names."""
    names = re.findall(r"<!-- file: (\S+) -->", guide.read_text())
    assert len(names) == len([block for block in pages.blocks(guide) if block.language in {"python", "typescript"}])
    for name in names:
        text = pages.marked(guide, f"file: {name}").replace(URL_OF_THE_DOCS, service.url)
        (folder / name).write_text(text.replace("secret_…", service.client_secret))
    return names


def shows(guide: Path, name: str, printed: str) -> None:
    """Compare what an example printed with the guide."""
    wanted = pages.marked(guide, f"prints: {name}")
    assert pages.matches(wanted, printed), f"{name} printed\n{printed}"


def test_the_python_client(service: Served, tmp_path: Path) -> None:
    names = examples(PYTHON_GUIDE, tmp_path, service)
    source = str(PYTHON / "src")

    options = ("--follow-imports", "silent", "--scripts-are-modules")
    mypy(*STRICT, *options, *names, cwd=tmp_path, MYPYPATH=source)
    for name in names:
        for _ in range(2):  # the second time with what the first one left
            printed = run(sys.executable, "-W", "error", name, cwd=tmp_path, PYTHONPATH=source)
            shows(PYTHON_GUIDE, name, printed)


def test_the_typescript_client(service: Served, tmp_path: Path) -> None:
    names = examples(TYPESCRIPT_GUIDE, tmp_path, service)
    modules = tmp_path / "node_modules"
    modules.mkdir()
    for path in (TYPESCRIPT / "node_modules").iterdir():
        (modules / path.name).symlink_to(path)
    (modules / "ctms-client").symlink_to(TYPESCRIPT)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "tsconfig.json").write_text((DRIVER / "tsconfig.json").read_text())
    run("npm", "run", "build", cwd=TYPESCRIPT)

    run("npx", "tsc", "--project", ".", cwd=tmp_path)
    for name in names:
        for _ in range(2):  # the second time with what the first one left
            printed = run("node", f"built/{name.removesuffix('.ts')}.js", cwd=tmp_path)
            shows(TYPESCRIPT_GUIDE, name, printed)
