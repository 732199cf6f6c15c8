"""Holds a whole test run to this: of each hook at least one implementation was called.

A pytest plugin. Test processes tell the one that collects their results which hooks were called; that one, or the only
process there is, fails the run. When somebody runs a part of the tests it says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from ctms.hooks import manager, specs

CALLED = pytest.StashKey[set[str]]()
KEY = "ctms_hooks_called"


def pytest_configure(config: pytest.Config) -> None:
    """Observe the hooks of every app that is created from now on."""
    called = config.stash[CALLED] = set[str]()
    make = manager.Plugins.__init__

    def before(hook: str, implementations: Iterable[Any], _arguments: Mapping[str, Any]) -> None:
        if list(implementations):
            called.add(hook)

    def watched(self: manager.Plugins, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        self._manager.add_hookcall_monitoring(before, lambda *_: None)

    manager.Plugins.__init__ = watched  # type: ignore[method-assign]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the results of a test process. (A hook of pytest-xdist.)"""
    called: set[str] = node.config.stash[CALLED]
    called |= set(getattr(node, "workeroutput", {}).get(KEY, ()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Report to the controlling process, or check the result."""
    config = session.config
    if hasattr(config, "workeroutput"):
        called: set[str] = config.stash[CALLED]
        config.workeroutput[KEY] = sorted(called)
    elif session.exitstatus == pytest.ExitCode.OK and is_whole(config) and missing(config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which hooks were not called."""
    if is_whole(config) and missing(config):
        terminalreporter.write_line(f"no test called a plugin's {', '.join(missing(config))}", red=True)


def missing(config: pytest.Config) -> list[str]:
    """Return the hooks that were not called."""
    return [hook for hook in specs.HOOKS if hook not in config.stash[CALLED]]


def is_whole(config: pytest.Config) -> bool:
    """Return whether all tests of the hooks were selected and run."""
    narrowed = any(config.getoption(option, None) for option in ("keyword", "markexpr", "lf", "maxfail", "collectonly"))
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not narrowed
