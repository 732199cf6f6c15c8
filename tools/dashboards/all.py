"""All dashboards and their output folder."""

from __future__ import annotations

from pathlib import Path

from tools.dashboards.alerts import ALERTS
from tools.dashboards.telemetry import TELEMETRY

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "monitoring" / "grafana"

DASHBOARDS = (TELEMETRY, ALERTS)
