"""Generator of the Grafana dashboards in `deploy/monitoring/grafana/`: `python -m tools.dashboards`."""
