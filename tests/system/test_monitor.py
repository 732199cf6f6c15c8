"""A test run in which a hook was never called fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ctms.hooks import specs

CONFTEST = 'pytest_plugins = ["tests.hooks.monitor"]\n'
TEST = """
from importlib.metadata import EntryPoint

import click
import flask_smorest
import marshmallow
import pytest

from ctms.hooks.manager import load_plugins
from ctms.plugins import hookimpl
from ctms.settings import Settings


class Plugin:
    pass


for hook in {hooks}:
    exec(f"def {{hook}}(self):\\n    return []", globals())
    setattr(Plugin, hook, hookimpl(globals()[hook]))


@pytest.mark.parametrize("number", range(2))
def test_it(number):
    point = EntryPoint("it", "test_it:Plugin", "ctms")
    assert load_plugins(Settings(), [point]).get("it").hooks == tuple(sorted({hooks}))
"""


@pytest.mark.parametrize("processes", ["0", "2"])
@pytest.mark.parametrize("left_out", [[], ["ctms_backends"]])
def test_a_run_in_which_a_hook_was_not_called(tmp_path: Path, processes: str, left_out: list[str]) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\npythonpath = tests\n")
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(TEST.format(hooks=[hook for hook in specs.HOOKS if hook not in left_out]))

    def pytest_run(*arguments: str) -> subprocess.CompletedProcess[str]:
        root = Path(__file__).parent.parent.parent
        code = f"import sys, pytest; sys.path.insert(0, {str(root)!r}); sys.exit(pytest.main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "-n", processes, "-q", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={"PYTHONPATH": str(root), "PYTEST_DEBUG_TEMPROOT": str(tmp_path)},
        )

    whole = pytest_run()
    assert whole.returncode == bool(left_out), whole.stdout
    assert ("no test called a plugin's ctms_backends" in whole.stdout) == bool(left_out)
    if processes == "0":
        assert pytest_run("tests/test_it.py").returncode == 0
