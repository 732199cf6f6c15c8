"""Generate and build the installable clients in `clients/`.

`python -m tools.clients generate` writes their generated code, and `python -m tools.clients build FOLDER` also writes
the packages to publish: a wheel, an sdist and a tarball for npm. Both need the dependency group `client-packages`.

The code is generated from the OpenAPI document that this version serves at `/openapi.json`, and not in the repository.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ctms.api.openapi import current_document
from ctms.app import create_app
from ctms.settings import Settings

ROOT = Path(__file__).parent.parent
PYTHON = ROOT / "clients" / "python"
TYPESCRIPT = ROOT / "clients" / "typescript"
GENERATED_PYTHON = PYTHON / "src" / "ctms_client" / "generated"
GENERATED_TYPESCRIPT = TYPESCRIPT / "src" / "schema.ts"


def search_path() -> str:
    """Return the `PATH` with the programs of this environment first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def run(*command: str | Path, cwd: Path) -> None:
    """Run a program of this environment. Raises `CalledProcessError` if it fails."""
    subprocess.run(command, cwd=cwd, env={**os.environ, "PATH": search_path()}, check=True)


def openapi_document() -> str:
    """Return the OpenAPI document of the service, which needs no database for it."""
    service = create_app(Settings(db_url="postgresql://127.0.0.1:1/none", secret_key="-" * 32, use_mozlog=False))
    with service.app_context():
        return current_document()


def generate() -> None:
    """Install the packages of npm, just those of `package-lock.json`, and write the generated code."""
    run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=TYPESCRIPT)
    with tempfile.TemporaryDirectory() as name:
        # Elsewhere, so that the generator formats the code by its own rules and not by those of this project.
        folder = Path(name)
        document = folder / "openapi.json"
        document.write_text(openapi_document())
        run(
            *("openapi-python-client", "generate", "--path", document),
            *("--meta", "none", "--output-path", folder / "generated", "--fail-on-warning"),
            cwd=folder,
        )
        shutil.rmtree(folder / "generated" / ".ruff_cache", ignore_errors=True)
        shutil.rmtree(GENERATED_PYTHON, ignore_errors=True)
        shutil.move(folder / "generated", GENERATED_PYTHON)
        run("npx", "openapi-typescript", document, "--output", GENERATED_TYPESCRIPT, cwd=TYPESCRIPT)


def build(folder: Path) -> None:
    """Write the packages into a folder, from the code as it was generated last."""
    folder.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder.resolve(), cwd=PYTHON)
    shutil.rmtree(TYPESCRIPT / "dist", ignore_errors=True)  # modules that no longer exist
    run("npm", "pack", "--pack-destination", folder.resolve(), cwd=TYPESCRIPT)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.clients")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("generate", help="write the generated code of the clients")
    building = commands.add_parser("build", help="also write the packages to publish")
    building.add_argument("folder", type=Path)
    options = parser.parse_args()
    generate()
    if options.command == "build":
        build(options.folder)


if __name__ == "__main__":
    main()
