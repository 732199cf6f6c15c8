"""Generator of the Grafana dashboards in `docs/monitoring/grafana/`: `python -m tools.dashboards`."""
