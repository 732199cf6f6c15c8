"""A failing test does not affect later ones, and a test that changes shared state fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = """
import gc, logging, os, signal
from pathlib import Path
import pytest
from ctms.database import pool
from ctms.settings import Settings
from ctms.telemetry.logs import init_logs

def changed():
    return Path.cwd(), dict(os.environ, PYTEST_CURRENT_TEST=""), signal.getsignal(signal.SIGHUP), pool.acquire

BEFORE = changed()

@pytest.fixture
def opens():
    file = Path("lock").open("w")
    raise RuntimeError("on purpose")

def test_1_in_its_call():
    opened = Path("lock").open("w")
    assert False, "on purpose"

def test_2_in_its_setup(opens):
    pass

def test_3_environment():
    os.environ["LEFT"] = "1"

def test_4_environment():
    os.environ.pop("PYTHONPATH")

def test_5_folder():
    os.chdir("/")

def test_6_signal():
    signal.signal(signal.SIGHUP, print)

def test_7_pool():
    pool.acquire = None

def test_8_logs():
    init_logs(Settings(use_mozlog=True, logging_level="ERROR"))

def test_9_after():
    gc.collect()
    assert changed() == BEFORE
    (handler,) = [one for one in logging.getLogger().handlers if type(one).__module__.startswith("ctms")]
    assert type(handler.formatter).__name__ == "TextFormatter"
    assert logging.getLogger("ctms").level == logging.INFO
"""


def test_only_the_test_that_leaks_fails(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_it.py").write_text(TESTS)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.leaks", "-p", "no:randomly", "-q", "-rA", "--color=no"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PYTEST_DEBUG_TEMPROOT": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    for line in (
        "FAILED test_it.py::test_1_in_its_call - AssertionError: on purpose",
        "ERROR test_it.py::test_2_in_its_setup - RuntimeError: on purpose",
        "ERROR test_it.py::test_3_environment - AssertionError: the environment is changed: LEFT",
        "ERROR test_it.py::test_4_environment - AssertionError: the environment is changed: PYTHONPATH",
        "ERROR test_it.py::test_5_folder - AssertionError: the working directory is another",
        "ERROR test_it.py::test_6_signal - AssertionError: another handler for SIGHUP is there",
        "ERROR test_it.py::test_7_pool - AssertionError: `ctms.database.pool.acquire` is patched",
        "PASSED test_it.py::test_8_logs",
        "PASSED test_it.py::test_9_after",
    ):
        assert line in done.stdout, done.stdout
    assert "1 failed, 7 passed, 6 errors" in done.stdout
