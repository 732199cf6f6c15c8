"""The dashboards match Grafana's own types, for which this environment has TypeScript: `@grafana/schema`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.clients import TYPESCRIPT, search_path
from tools.dashboards.all import DASHBOARDS

KINDS = {
    "timeseries": "timeseries",
    "stat": "stat",
    "heatmap": "heatmap",
    "table": "table",
    "state-timeline": "statetimeline",
}
"""The module with the types of each kind of panel."""

OPTIONS = {"noEmit": True, "strict": True, "skipLibCheck": True, "module": "nodenext", "types": []}

TYPES = """
import type { Dashboard, Panel, RowPanel } from "@grafana/schema";
// As JSON has it: the values of enumerations rather than their members.
type Json<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T
  : T extends Array<infer U> ? Json<U>[] : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
type Source<T> = { refId: string; datasource: { type: T; uid: string } };
type Prometheus = Source<"prometheus"> & { expr: string; legendFormat: string; instant: boolean; range: boolean;
  format: "time_series" | "table" | "heatmap" };
type InfluxDB = Source<"influxdb"> & { query: string; rawQuery: true; alias: string;
  resultFormat: "time_series" | "table" };
"""


def statements(dashboard: dict[str, Any]) -> Iterator[str]:
    """Give TypeScript that compiles if a dashboard matches the types."""
    panels = dashboard.pop("panels")
    yield satisfies(dashboard, "Omit<Dashboard, 'panels'>")
    for panel in panels:
        if panel["type"] == "row":
            yield satisfies(panel, "RowPanel")
            continue
        kind = KINDS[panel["type"]]
        yield satisfies(panel.pop("options"), f"Partial<{kind}.Options>")
        custom = panel["fieldConfig"]["defaults"].pop("custom", None)
        if custom is not None:
            yield satisfies(custom, f"Partial<{kind}.FieldConfig>")
        yield f"({json.dumps(panel.pop('targets'))}) satisfies (Prometheus | InfluxDB)[];"
        yield satisfies(panel, "Panel")


def satisfies(value: Any, name: str) -> str:
    """Return a statement that compiles if a value has a type."""
    return f"({json.dumps(value)}) satisfies Json<{name}>;"


def errors(folder: Path, dashboards: list[dict[str, Any]]) -> list[str]:
    """Compile the dashboards; returns the errors."""
    (folder / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    types = "./node_modules/@grafana/schema/dist/types/raw/composable"
    lines = [f'import type * as {kind} from "{types}/{kind}/panelcfg/x/types.gen.js";' for kind in KINDS.values()]
    lines += [TYPES, *(line for dashboard in dashboards for line in statements(dashboard))]
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS}))
    (folder / "dashboards.ts").write_text("\n".join(lines))
    compiler = TYPESCRIPT / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        ["node", compiler, "--project", "tsconfig.json"],
        cwd=folder,
        env={**os.environ, "PATH": search_path()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (done.stdout == ""), done.stdout + done.stderr
    return done.stdout.splitlines()


def test_dashboards_match_the_types_of_grafana(tmp_path: Path) -> None:
    assert errors(tmp_path, [json.loads(dashboard.json()) for dashboard in DASHBOARDS]) == []


def test_an_unknown_option_of_a_panel_is_found(tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARDS[0].json())
    (panel, *_) = [panel for panel in dashboard["panels"] if panel["type"] == "heatmap"]
    panel["options"]["tooltip"] = {"show": True, "yHistogram": False}

    (error,) = errors(tmp_path, [dashboard])

    assert "'\"show\"' does not exist" in error
