"""Grafana dashboards: panels laid out in rows, rendered as JSON for import or provisioning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 24
"""Number of columns in Grafana's grid."""

SCHEMA = 36
"""Schema version of the dashboard JSON, readable by Grafana 9 and later."""

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
INFLUXDB = {"type": "influxdb", "uid": "${influxdb}"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """A PromQL query, and the legend of each series in its result."""

    expr: str
    legend: str = ""

    def target(self, instant: bool, shape: str) -> Json:
        """Return the query as a panel target; `shape` is `time_series`, `table` or `heatmap`."""
        asked = {"instant": True, "range": False} if instant else {"instant": False, "range": True}
        return {
            "datasource": PROMETHEUS,
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "format": shape,
            **asked,
        }


@dataclass(frozen=True)
class InfluxQuery:
    """An InfluxQL query, and the legend of each series in its result."""

    query: str
    legend: str

    def target(self, instant: bool, shape: str) -> Json:
        """Return the query as a panel target."""
        return {
            "datasource": INFLUXDB,
            "query": self.query,
            "rawQuery": True,
            "resultFormat": shape,
            "alias": self.legend,
        }


@dataclass(frozen=True)
class Panel:
    """A panel with its queries and unit, and the values at which it turns orange or red (`thresholds`)."""

    title: str
    description: str
    queries: Sequence[Query | InfluxQuery]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    thresholds: Sequence[tuple[str, float]] = ()
    stacked: bool = False
    bars: bool = False
    from_zero: bool = True

    def json(self, number: int, x: int, y: int) -> Json:
        """Return the panel at a position of the grid."""
        instant = self.kind in {"stat", "table"}
        shape = {"table": "table", "heatmap": "heatmap"}.get(self.kind, "time_series")
        targets = [{"refId": chr(65 + n), **query.target(instant, shape)} for n, query in enumerate(self.queries)]
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": targets[0]["datasource"],
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            **({"interval": "1d"} if self.bars else {}),
            "targets": targets,
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            **_LOOKS[self.kind],
        }

    def _defaults(self) -> Json:
        defaults: Json = {"unit": self.unit}
        if self.thresholds:
            steps: list[Json] = [{"color": "green", "value": None}]
            steps += [{"color": color, "value": value} for color, value in self.thresholds]
            defaults["thresholds"] = {"mode": "absolute", "steps": steps}
        if self.kind != "timeseries":
            return defaults
        if self.from_zero:
            defaults["min"] = 0
        custom: Json = {"lineWidth": 1, "fillOpacity": 40 if self.stacked or self.bars else 10, "showPoints": "never"}
        if self.stacked:
            custom["stacking"] = {"mode": "normal", "group": "A"}
        if self.bars:
            custom["drawStyle"] = "bars"
        if self.thresholds:
            custom["thresholdsStyle"] = {"mode": "line"}
        defaults["custom"] = custom
        return defaults


# To the other dashboard, with the same environment and time.
_LINK = {
    "type": "dashboards",
    "title": "CTMS",
    "tags": ["ctms"],
    "includeVars": True,
    "keepTime": True,
    "asDropdown": False,
    "targetBlank": False,
    "icon": "external link",
    "tooltip": "",
    "url": "",
}

_LEGEND = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
_LOOKS: dict[str, Json] = {
    "timeseries": {"options": {"legend": _LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}}},
    "stat": {
        "options": {
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }
    },
    "heatmap": {
        "options": {
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Oranges",
                "steps": 64,
                "exponent": 0.5,
                "fill": "dark-orange",
                "reverse": False,
            },
            "yAxis": {"axisPlacement": "left", "unit": "s"},
            "tooltip": {"mode": "single", "yHistogram": False},
            "legend": {"show": True},
        }
    },
    "table": {
        "options": {"showHeader": True},
        "transformations": [
            {"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True, "__name__": True}}}
        ],
    },
    "state-timeline": {
        "options": {
            "mergeValues": True,
            "showValue": "never",
            "rowHeight": 0.8,
            "legend": _LEGEND,
            "tooltip": {"mode": "single", "sort": "none"},
        }
    },
}


@dataclass(frozen=True)
class Dashboard:
    """A dashboard of titled rows of panels, for one environment at a time."""

    uid: str
    title: str
    description: str
    rows: Sequence[tuple[str, Sequence[Panel]]]

    def json(self) -> str:
        """Return the dashboard as JSON for import into Grafana."""
        panels = self._panels()
        dashboard = {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["ctms"],
            "schemaVersion": SCHEMA,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "1m",
            "timezone": "browser",
            "time": {"from": "now-6h", "to": "now"},
            "links": [_LINK],
            "templating": {"list": self._variables(panels)},
            "annotations": {"list": []},
            "panels": panels,
        }
        return json.dumps(dashboard, indent=2) + "\n"

    def _panels(self) -> list[Json]:
        placed: list[Json] = []
        y = 0
        for title, panels in self.rows:
            place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
            row = {"id": len(placed) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place}
            placed.append({**row, "panels": []})
            x, y, height = 0, y + 1, 0
            for panel in panels:
                if x + panel.width > WIDTH:
                    x, y, height = 0, y + height, 0
                placed.append(panel.json(len(placed) + 1, x, y))
                x, height = x + panel.width, max(height, panel.height)
            y += height
        return placed

    def _variables(self, panels: Sequence[Json]) -> list[Json]:
        variables: list[Json] = [_data_source("datasource", "Prometheus")]
        if any(panel.get("datasource") == INFLUXDB for panel in panels):
            variables.append(_data_source("influxdb", "InfluxDB"))
        question = 'label_values(up{job="ctms-api"}, environment)'
        variables.append(
            {
                "name": "environment",
                "label": "Environment",
                "type": "query",
                "datasource": PROMETHEUS,
                "query": {"query": question, "refId": "environment"},
                "refresh": 2,
                "sort": 1,
            }
        )
        return variables


def _data_source(name: str, label: str) -> Json:
    return {"name": name, "label": label, "type": "datasource", "query": name if name == "influxdb" else "prometheus"}
