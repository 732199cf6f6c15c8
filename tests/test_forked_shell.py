"""The forked `flask` of shells behaves like the command."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.forked_shell import activated
from tests.serving import FLASK, environment_for


def in_shell(script: str, folder: Path, typed: str = "") -> str:
    """Run a script in a folder, and return what it prints."""
    done = subprocess.run(
        ["bash", "-euc", script],
        env=activated(environment_for(folder)),
        cwd=folder,
        capture_output=True,
        input=typed,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_command_that_is_found(tmp_path: Path) -> None:
    assert in_shell("command -v flask", tmp_path).strip() != FLASK
    assert "Flask" in in_shell("flask --version | grep Flask", tmp_path)


def test_its_streams_are_redirected_and_its_status_is_the_commands(tmp_path: Path) -> None:
    printed = in_shell("flask ctms nothing >out.txt 2>errors.txt || echo status $?", tmp_path)

    assert printed == "status 2\n"
    assert (tmp_path / "out.txt").read_text() == ""
    assert "No such command 'nothing'" in (tmp_path / "errors.txt").read_text()


def test_its_folder_variables_and_input_are_the_shells(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    read = "import os, sys; print(os.getcwd(), os.environ['WORD'], sys.stdin.read())"
    (tmp_path / "here" / "reader.py").write_text(
        f"import click\nfrom flask import Flask\napp = Flask('reader')\n@app.cli.command()\ndef read():\n    {read}\n"
    )

    printed = in_shell("cd here; WORD=a PYTHONPATH=. flask --app reader read", tmp_path, typed="b")

    assert printed == f"{tmp_path / 'here'} a b\n"
