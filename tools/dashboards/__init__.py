"""Grafana's dashboards, `docs/monitoring/grafana/*.json`, and what they are made from: `python -m tools.dashboards`."""
