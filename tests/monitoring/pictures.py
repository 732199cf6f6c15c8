"""Draw the pictures of the dashboards, from five minutes of traffic: `python -m tests.monitoring.pictures`."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

from ctms.testing.servers import let_server_enter
from tests.monitoring.definitions import FOLDER
from tests.monitoring.pipeline import Pipeline, pipeline
from tools.dashboards.pictures import Series, draw

PICTURES = FOLDER / "grafana" / "pictures"
ENVIRONMENT = "production"
SECONDS = 300
STEP = 3


def named(legend: str, labels: dict[str, str]) -> str:
    """Return the name that Grafana gives a series."""
    if legend in {"", "__auto"}:
        return ", ".join(f"{label}={value}" for label, value in labels.items())
    return re.sub(r"\{\{(\w+)\}\}|\$tag_(\w+)", lambda found: labels.get(found[1] or found[2], ""), legend)


def ask(running: Pipeline, panel: dict[str, Any], target: dict[str, Any]) -> list[Series]:
    """Answer a panel's query, as `draw` wants it."""
    found = []
    for one in running.ask(target, ENVIRONMENT, step=STEP):
        points = [(when, value) for when, value in one.points if math.isfinite(value)]
        if panel["type"] in {"stat", "table"}:  # they show what is now
            points = [point for point in points if point[0] > time.time() - 10]
        if points:
            name = named(target.get("legendFormat", target.get("alias", "")), one.labels)
            found.append(Series(name, one.labels, points))
    return found


def main() -> None:
    """Run traffic that comes and goes, then draw."""
    chance = Random(1)  # noqa: S311  traffic, no secret
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c")))
        let_server_enter(folder)
        running = stack.enter_context(pipeline(folder))
        running.start = time.time()
        while (gone := time.time() - running.start) < SECONDS:
            for client in running.clients.values():
                client.visit(round(4 + 3 * math.sin(gone / 40)) + chance.randrange(3))
                if chance.random() < 0.1:
                    client.guess(10)
            time.sleep(chance.random())
        end = time.time()
        for path in sorted((FOLDER / "grafana").glob("*.json")):
            board = json.loads(path.read_text())
            picture = draw(board, lambda panel, target: ask(running, panel, target), running.start, end)
            (PICTURES / f"{path.stem}.svg").write_text(picture)


if __name__ == "__main__":
    main()
