"""Alerts: their rules hold by Prometheus' own tools, and each has a test, a panel and a runbook."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.installed import needs
from tests.monitoring import definitions
from tests.monitoring.definitions import FOLDER, ROOT, RULES, RULES_TESTS, RUNBOOKS, Alert, alerts, panels

ALERTS = [pytest.param(alert, id=str(alert)) for alert in alerts()]
needs_promtool = needs("promtool")


def promtool(*arguments: str) -> str:
    """Run promtool; return its output."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@needs_promtool
def test_promtool_finds_the_rules_good() -> None:
    files = sorted(map(str, RULES.glob("*.yml")))

    said = promtool("check", "rules", *files)

    assert sum(map(int, re.findall(r"(\d+) rules found", said))) == len(alerts())


@needs_promtool
@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-kubernetes.yml"])
def test_promtool_accepts_the_configuration(name: str) -> None:
    assert "is valid prometheus config file syntax" in promtool("check", "config", str(RULES.parent / name))


@needs_promtool
@pytest.mark.parametrize("name", sorted(path.name for path in RULES_TESTS.glob("*.yml")))
def test_promtool_raises_each_alert_when_it_should(name: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", str(RULES_TESTS / name))


@needs_promtool
def test_promtool_finds_the_configuration_good() -> None:
    assert "SUCCESS" in promtool("check", "config", str(FOLDER / "prometheus" / "prometheus.yml"))


def test_each_alert_is_tested_both_ways() -> None:
    raised: set[tuple[str, str]] = set()
    silent: set[str] = set()
    for path in RULES_TESTS.glob("*.yml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            for one in case["alert_rule_test"]:
                found = {(one["alertname"], alert["exp_labels"]["severity"]) for alert in one["exp_alerts"]}
                raised |= found
                if not found:
                    silent.add(one["alertname"])

    assert raised == {(alert.name, alert.severity) for alert in alerts()}
    assert silent == {alert.name for alert in alerts()}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_pages_or_opens_a_ticket(alert: Alert) -> None:
    assert alert.severity in {"page", "ticket"}
    assert alert.summary
    assert alert.name.startswith("Ctms")


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_runbook_that_names_it(alert: Alert) -> None:
    page = (ROOT / alert.runbook).read_text()

    assert (ROOT / alert.runbook).parent == RUNBOOKS
    assert f"`{alert.name}`" in page
    for part in ("## Meaning", "## Diagnosis", "## Mitigation"):
        assert part in page


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_panel_with_its_threshold(alert: Alert) -> None:
    (panel,) = [panel for panel in panels() if panel.dashboard == "ctms-alerts" and panel.title == alert.name]

    assert panel.description.endswith(f"Runbook: {alert.runbook}")
    limits = [product(found) for found in re.findall(r"> ([\d.]+(?: \* \d+)*)", alert.expr)]
    assert not panel.thresholds or set(panel.thresholds) & set(limits)
    asked = {one.metric for target in panel.targets for one in definitions.selectors(target["expr"])}
    assert asked >= {one.metric for one in definitions.selectors(alert.expr)}


def product(text: str) -> float:
    """Return the value of a product such as `25 * 86400`."""
    result = 1.0
    for factor in text.split(" * "):
        result *= float(factor)
    return result


def test_no_panel_is_left_of_an_alert_that_is_gone() -> None:
    shown = {panel.title for panel in panels() if panel.title.startswith("Ctms")}

    assert shown == {alert.name for alert in alerts()}


@pytest.mark.parametrize("alert", ALERTS)
def test_the_docs_list_the_alert(alert: Alert) -> None:
    text = (ROOT / "docs" / "how-to" / "monitor.md").read_text()
    runbook = alert.runbook.removeprefix("docs/")

    row = re.search(rf"^\| \[`{alert.name}`\]\(\.\./{re.escape(runbook)}\) \| ([^|]+) \|", text, re.MULTILINE)
    assert row, f"{alert.name} is not in the table of alerts"
    assert alert.severity in row[1]
