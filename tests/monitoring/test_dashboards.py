"""The dashboards are up to date, and usable in every Grafana that imports them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from tests.monitoring import definitions
from tests.monitoring.definitions import dashboards, panels
from tools.dashboards.all import DASHBOARDS, FOLDER
from tools.dashboards.grafana import Dashboard

NAMES = sorted(dashboards())
HOW_TO = definitions.ROOT / "docs" / "how-to" / "monitor.md"


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_the_file_is_the_one_that_is_written(dashboard: Dashboard) -> None:
    written = (FOLDER / f"{dashboard.uid}.json").read_text()

    assert written == dashboard.json(), "run `tox -e reference`"


def test_there_are_the_two_dashboards() -> None:
    assert {name: board["title"] for name, board in dashboards().items()} == {
        "ctms-telemetry": "CTMS Telemetry",
        "ctms-alerts": "CTMS Alerts",
    }
    assert [board["uid"] for board in dashboards().values()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_panels_lie_beside_each_other(name: str) -> None:
    places = [panel["gridPos"] for panel in dashboards()[name]["panels"]]

    for place in places:
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, f"{one} lies on {other}"


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_numbers_and_titles_of_their_own(name: str) -> None:
    found = dashboards()[name]["panels"]

    assert len({panel["id"] for panel in found}) == len(found)
    assert len({panel["title"] for panel in found}) == len(found)


@pytest.mark.parametrize("panel", panels(), ids=str)
def test_panels_have_descriptions(panel: definitions.Panel) -> None:
    assert panel.description.endswith((".", ".md"))
    assert panel.targets


@pytest.mark.parametrize("panel", panels(), ids=str)
def test_a_panel_looks_at_the_chosen_environment(panel: definitions.Panel) -> None:
    for target in panel.targets:
        query = target.get("expr") or target["query"]
        own = "prometheus_remote_storage" in query  # Prometheus serves all environments
        assert own or "$environment" in query


@pytest.mark.parametrize("name", NAMES)
def test_data_sources_are_chosen_not_named(name: str) -> None:
    board = dashboards()[name]
    variables = {variable["name"] for variable in board["templating"]["list"]}

    assert {f"${{{variable}}}" for variable in variables} >= set(data_sources(board["panels"]))
    assert "environment" in variables


def data_sources(thing: Any) -> list[str]:
    """Return the ids of the data sources that are named anywhere in there."""
    if isinstance(thing, dict):
        here = [thing["datasource"]["uid"]] if "datasource" in thing else []
        return here + [uid for value in thing.values() for uid in data_sources(value)]
    if isinstance(thing, list):
        return [uid for value in thing for uid in data_sources(value)]
    return []


@pytest.mark.parametrize("title", sorted({panel.row for panel in panels()}))
def test_the_docs_tell_of_each_row(title: str) -> None:
    assert f"| {title} |" in HOW_TO.read_text()
