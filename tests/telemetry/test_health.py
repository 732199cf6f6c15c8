"""Health checks of plugins: every problem is a warning, even a crash or a hang."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from flask import Flask

from ctms.errors import PluginError
from ctms.hooks.plugin import Plugin, Registered
from ctms.plugins import HealthCheck, hookimpl
from ctms.settings import Settings
from ctms.telemetry import health
from ctms.telemetry.health import BUILT_IN_CHECKS, PluginChecks
from ctms.telemetry.logs import init_logs
from ctms.testing.apps import Apps
from ctms.testing.http import ApiClient
from ctms.testing.plugins import bundled, points_of

PLUGIN = Plugin("shelf", "acme-shelf", "1.0")


def checks(*declared: HealthCheck) -> PluginChecks:
    """Return the checks of a plugin."""
    return PluginChecks(Flask(__name__), [Registered(PLUGIN, one) for one in declared])


def raising(error: BaseException) -> Callable[[], str | None]:
    """Return a check that raises."""

    def check() -> str | None:
        raise error

    return check


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        (lambda: None, None),
        (lambda: "", None),
        (lambda: "the shelf is full", ("warning", "the shelf is full")),
        (lambda: True, ("warning", "the check returned one bool, not None or a text")),
        (raising(LookupError("a secret")), ("warning", "the check failed with LookupError")),
        (raising(TimeoutError("its own")), ("warning", "the check failed with TimeoutError")),
        (raising(SystemExit(3)), ("warning", "the check failed with SystemExit")),
    ],
)
def test_result_of_a_check(check: Any, problem: Any) -> None:
    assert checks(HealthCheck(name="shelf", check=check)).run() == {"shelf": problem}


@pytest.mark.parametrize("mozlog", [True, False])
def test_an_error_of_a_check_is_logged_without_its_message(
    mozlog: bool, settings: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    init_logs(replace(settings, use_mozlog=mozlog))
    try:
        checks(HealthCheck(name="full", check=raising(LookupError("a secret")))).run()
    finally:
        init_logs(settings)

    (record,) = caplog.records
    assert record.getMessage() == "health check full of plugin shelf failed"
    assert record.exc_info is not None  # also after it was written: Sentry reads it then
    written = capfd.readouterr().err
    assert "health check full of plugin shelf failed" in written
    assert "LookupError" in written
    assert "a secret" not in written


@pytest.fixture
def hanging() -> Iterator[tuple[HealthCheck, list[str], Event]]:
    """A check that hangs, the list of its starts, and the event that releases it."""
    started: list[str] = []
    go = Event()

    def hang() -> str | None:
        started.append("")
        go.wait(60)
        return None

    yield HealthCheck(name="hanging", check=hang, timeout=0.2), started, go
    go.set()


def test_a_hanging_check_times_out_and_is_not_restarted(
    hanging: tuple[HealthCheck, list[str], Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    check, started, go = hanging
    both = checks(check, HealthCheck(name="quick", check=lambda: None, timeout=10))
    waited: list[float] = []

    def noting(answers: list[Any], timeout: float) -> Any:
        waited.append(timeout)
        return wait(answers, timeout=timeout)

    monkeypatch.setattr(health, "wait", noting)
    late = {"hanging": ("warning", "no answer within 0.2 s"), "quick": None}

    assert both.run() == late
    waited.clear()
    assert [both.run() for _ in range(20)] == [late] * 20
    assert waited[::2] == [0] * 20  # its timeout is over: a second request does not wait for it
    assert min(waited[1::2]) > 0
    assert len(started) == 1

    go.set()
    give_up = time.monotonic() + 200
    while both.run() != {"hanging": None, "quick": None} or len(started) == 1:
        assert time.monotonic() < give_up


def test_checks_run_concurrently() -> None:
    met = Event()

    def first() -> str | None:
        return None if met.wait(10) else "nobody came"

    def second() -> str | None:
        met.set()
        return None

    found = checks(
        HealthCheck(name="a", check=first, timeout=10), HealthCheck(name="b", check=second, timeout=10)
    ).run()

    assert found == {"a": None, "b": None}


def test_a_process_ends_while_a_check_hangs() -> None:
    code = """
import time
from flask import Flask
from ctms.hooks.plugin import Plugin, Registered
from ctms.plugins import HealthCheck
from ctms.settings import Settings
from ctms.telemetry.health import PluginChecks
check = HealthCheck(name="x", check=lambda: time.sleep(600), timeout=0.1)
print(PluginChecks(Flask("x"), [Registered(Plugin("p", "p", "1"), check)]).run())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)

    assert "no answer within 0.1 s" in done.stdout


class Shelf:
    """A plugin with checks."""

    def __init__(self, *declared: HealthCheck) -> None:
        self.declared = declared

    @hookimpl
    def ctms_health_checks(self) -> tuple[HealthCheck, ...]:
        """Return the checks."""
        return self.declared


def test_the_heartbeat_is_degraded_never_down(apps: Apps, api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "has_erasure_key", True)
    plugin = Shelf(
        HealthCheck(name="good", check=lambda: None), HealthCheck(name="full", check=lambda: "the shelf is full")
    )
    app = apps.get([*bundled(), *points_of([plugin])])

    answer = ApiClient(app.test_client(), None).get("/__heartbeat__")

    assert answer.status_code == 200
    assert answer.json["checks"] == {"database": "ok", "migrations": "ok", "good": "ok", "full": "warning"}
    assert answer.json["status"] == "warning"
    assert answer.json["details"] == {"full": {"status": "warning", "message": "the shelf is full"}}
    assert api.get("/__heartbeat__").json["status"] == "ok"  # another app, without the plugin


@pytest.mark.parametrize("name", BUILT_IN_CHECKS)
def test_a_check_cannot_have_the_name_of_a_built_in_check(apps: Apps, name: str) -> None:
    plugin = Shelf(HealthCheck(name=name, check=lambda: None))

    with pytest.raises(PluginError, match=f"{name}.*rename it") as caught:
        apps.get(points_of([plugin]))

    assert caught.value.plugins == ("shelf",)
