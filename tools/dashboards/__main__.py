"""Write the dashboards."""

from __future__ import annotations

from tools.dashboards.all import DASHBOARDS, FOLDER

if __name__ == "__main__":
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.uid}.json").write_text(dashboard.json())
