"""What a test leaves behind is put away, and is that test's failure, not that of a test after it.

A pytest plugin. A test that passed must have restored what the whole process shares. One that failed may have left
files and connections open: its traceback kept them alive. They are closed before the next test begins; otherwise the
garbage collector would do it during another test, and the warning about it would fail that one.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from ctms.database import pool
from ctms.settings import Settings
from ctms.telemetry.logs import StderrHandler, TextFormatter, init_logs

_FAILED = pytest.StashKey[bool]()
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ACQUIRE = pool.acquire


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note whether any phase of the test failed."""
    report = yield
    item.stash[_FAILED] = report.failed or item.stash.get(_FAILED, False)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Close what a failed test left open."""
    result = yield
    if item.stash.get(_FAILED, False):
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            vars(sys).pop(name, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
    return result


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Restore what the process shares, and fail the test that changed it."""
    folder, environment, signals = os.getcwd(), _environment(), _handlers()  # noqa: PTH109  as it is given back
    yield
    # A command that runs in this process makes an app, which sets up the logs for the process, as it should.
    if any(not isinstance(handler.formatter, TextFormatter) for handler in _log_handlers()):
        init_logs(Settings(use_mozlog=False))
    left = []
    if pool.acquire is not _ACQUIRE:
        left.append("`ctms.database.pool.acquire` is patched: use `monkeypatch.context()`")
        pool.acquire = _ACQUIRE
    if os.getcwd() != folder:  # noqa: PTH109
        left.append("the working directory is another")
        os.chdir(folder)
    if (now := _environment()) != environment:
        changed = sorted(name for name in {*now, *environment} if now.get(name) != environment.get(name))
        left.append(f"the environment is changed: {', '.join(changed)}")
        for name in changed:
            os.environ.pop(name, None)
            os.environ.update({name: environment[name]} if name in environment else {})
    for number, handler in _handlers().items():
        if handler is not signals[number]:
            left.append(f"another handler for {number.name} is there")
            signal.signal(number, signals[number])
    assert not left, "; ".join(left)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in _SIGNALS}


def _log_handlers() -> list[StderrHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, StderrHandler)]
