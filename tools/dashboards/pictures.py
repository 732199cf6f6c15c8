"""Pictures of dashboards for the docs, as SVG: drawn from the dashboards' JSON and from answers to their queries.

They show what Grafana would, not quite as it would.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

COLUMN, LINE, GAP, HEAD = 58, 30, 6, 24
COLORS = ("#3274d9", "#e0752d", "#56a64b", "#a352cc", "#c4162a", "#0f8a8a", "#b58a00", "#6d6d8a")
NAMED = {"green": "#56a64b", "orange": "#ff9830", "red": "#e02f44"}
GONE_AFTER_IN_SECONDS = 10
STYLE = (
    "text{font:11px sans-serif;fill:#464c54} .t{font-weight:bold;fill:#24292e} .r{font-size:14px} .v{font-size:26px}"
)

Json = dict[str, Any]


@dataclass(frozen=True)
class Series:
    """A series of an answer: its name, its labels, and its values with their times."""

    name: str
    labels: dict[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


Ask = Callable[[Json, Json], list[Series]]
"""Answers a query: panel and target."""


def draw(dashboard: Json, ask: Ask, start: float, end: float) -> str:
    """Return the picture of a dashboard, its time from `start` to `end`."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    width = 24 * COLUMN + GAP
    height = max(place["y"] + place["h"] for place in places) * LINE + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="#f4f5f5"/>',
    ]
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        x, y = place["x"] * COLUMN + GAP, place["y"] * LINE + GAP
        if panel["type"] == "row":
            parts.append(_text(panel["title"], x, y + 17, class_="t r"))
            continue
        w, h = place["w"] * COLUMN - GAP, place["h"] * LINE - GAP
        parts.append(f'<svg x="{x}" y="{y}" width="{w}" height="{h}">')
        parts.append(_rect(0, 0, w, h, rx="3", fill="white", stroke="#d8d9da"))
        parts.append(_text(panel["title"], 8, 16, class_="t"))
        series = [found for target in panel["targets"] for found in ask(panel, target)]
        parts += _KINDS[panel["type"]](Box(panel, w, h, start, end), series)
        parts.append("</svg>")
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True)
class Box:
    """Where a panel is drawn: its size, and the time that it shows."""

    panel: Json
    w: float
    h: float
    start: float
    end: float

    @property
    def defaults(self) -> Json:
        """How values are shown."""
        found: Json = self.panel["fieldConfig"]["defaults"]
        return found

    @property
    def unit(self) -> str:
        """The unit of the values."""
        return str(self.defaults["unit"])

    def x(self, when: float, left: float = 50) -> float:
        """Return where a time is."""
        return left + (when - self.start) / (self.end - self.start) * (self.w - left - 10)

    def color(self, value: float) -> str:
        """Return the colour that the thresholds give a value."""
        steps = self.defaults.get("thresholds", {}).get("steps", [])
        passed = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
        return NAMED[passed[-1]] if passed else NAMED["green"]


def number(value: float, unit: str) -> str:
    """Return a value with its unit, as short as Grafana writes it."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return "0 s"
    if unit == "bytes":
        return f"{value / 1024:.3g} KiB" if abs(value) < 1024**2 else f"{value / 1024**2:.3g} MiB"
    name = {"reqps": " req/s", "cps": "/s"}.get(unit, "")
    return f"{value:,.0f}{name}" if abs(value) >= 1000 else f"{value:.3g}{name}"


def _text(words: str, x: float, y: float, **attributes: str) -> str:
    """Return a text; `anchor` says which end of it is at `x`."""
    anchor = attributes.pop("anchor", "start")
    return f'<text text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}"{_more(attributes)}>{escape(words)}</text>'


def _rect(x: float, y: float, w: float, h: float, **attributes: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"{_more(attributes)}/>'


def _across(box: Box, y: float, **attributes: str) -> str:
    """Return a line from the left of the plot to its right."""
    return f'<line x1="50" x2="{box.w - 10:.1f}" y1="{y:.1f}" y2="{y:.1f}"{_more(attributes)}/>'


def _more(attributes: dict[str, str]) -> str:
    return "".join(f' {name.replace("_", "-").rstrip("-")}="{value}"' for name, value in attributes.items())


def _stat(box: Box, series: Sequence[Series]) -> Iterator[str]:
    for place, one in enumerate(series):
        x = box.w * (place + 0.5) / len(series)
        style = f"fill:{box.color(one.last)}"
        yield _text(number(one.last, box.unit), x, box.h / 2 + 18, anchor="middle", class_="v", style=style)
        if len(series) > 1:
            yield _text(one.name, x, box.h - 10, anchor="middle")


def _timeseries(box: Box, series: Sequence[Series]) -> Iterator[str]:
    custom = box.defaults["custom"]
    stacked = "stacking" in custom
    lines = _stack(series) if stacked else [list(one.points) for one in series]
    values = [value for line in lines for _, value in line]
    low = min([0.0, *values]) if "min" in box.defaults else min(values, default=0.0)
    high = max(values, default=1.0)
    if high <= low:
        high = low + 1
    bottom = box.h - 36

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - HEAD - 10)

    yield from _axes(box, low, high, y, bottom)
    for place in reversed(range(len(lines))):
        color = COLORS[place % len(COLORS)]
        points = " ".join(f"{box.x(when):.1f},{y(value):.1f}" for when, value in lines[place])
        if custom.get("drawStyle") == "bars":
            for when, value in lines[place]:
                yield _rect(box.x(when) - 3, y(value), 6, bottom - y(value), fill=color)
            continue
        if stacked and lines[place]:
            first, last = box.x(lines[place][0][0]), box.x(lines[place][-1][0])
            area = f"{first:.1f},{bottom:.1f} {points} {last:.1f},{bottom:.1f}"
            yield f'<polygon points="{area}" fill="{color}"/>'
        yield f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>'
    for step in box.defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is not None and low <= step["value"] <= high:
            at, color = y(step["value"]), NAMED[step["color"]]
            yield _across(box, at, stroke=color, stroke_dasharray="6 3")
    yield from _legend(box, [one.name for one in series])


def _stack(series: Sequence[Series]) -> list[list[tuple[float, float]]]:
    sums: dict[float, float] = {}
    lines = []
    for one in series:
        line = []
        for when, value in one.points:
            sums[when] = sums.get(when, 0.0) + value
            line.append((when, sums[when]))
        lines.append(line)
    return lines


def _axes(box: Box, low: float, high: float, y: Callable[[float], float], bottom: float) -> Iterator[str]:
    for part in range(4):
        value = low + (high - low) * part / 3
        at = y(value)
        yield _across(box, at, stroke="#e9edf2")
        yield _text(number(value, box.unit).replace(" req", ""), 46, at + 4, anchor="end")
    yield from _times(box, bottom)


def _times(box: Box, bottom: float, left: float = 50) -> Iterator[str]:
    parts = max(1, int(box.w // 150))
    for part in range(parts):
        when = box.start + (box.end - box.start) * (part + 0.5) / parts
        words = time.strftime("%H:%M:%S", time.gmtime(when))
        yield _text(words, box.x(when, left), bottom + 14, anchor="middle")


def _legend(box: Box, names: Sequence[str]) -> Iterator[str]:
    x = 10.0
    for place, name in enumerate(names):
        width = 26 + 6 * len(name)
        if x + width > box.w - 30:
            yield _text("…", x, box.h - 8)
            return
        yield _rect(x, box.h - 14, 12, 3, fill=COLORS[place % len(COLORS)])
        yield _text(name, x + 16, box.h - 8)
        x += width


def _heatmap(box: Box, series: Sequence[Series]) -> Iterator[str]:
    edges = sorted(series, key=lambda one: float(one.labels["le"]))
    below: dict[float, float] = {}
    cells = []
    for row, one in enumerate(edges):
        for when, value in one.points:
            cells.append((row, when, value - below.get(when, 0.0)))
            below[when] = value
    most = max([1e-9, *(value for _, _, value in cells)])
    times = sorted(below)
    width = (box.w - 60) / max(1, len(times))
    bottom = box.h - 20
    height = (bottom - HEAD) / max(1, len(edges))
    for row, when, value in cells:
        if value > 0:
            strength = math.sqrt(value / most)
            y = bottom - (row + 1) * height
            yield _rect(box.x(when), y, width, height - 1, fill="#e0752d", fill_opacity=f"{strength:.2f}")
    for row, one in enumerate(edges):
        yield _text(one.labels["le"], 46, bottom - row * height - 4, anchor="end")
    yield from _times(box, bottom)


def _table(box: Box, series: Sequence[Series]) -> Iterator[str]:
    columns = ("alertname", "severity", "environment", "alertstate", "instance", "backend")
    shown = [name for name in columns if any(name in one.labels for one in series)]
    for place, name in enumerate(shown):
        x = 10 + place * (box.w - 20) / len(shown)
        yield _text(name, x, HEAD + 16, class_="t")
        for row, one in enumerate(series):
            yield _text(one.labels.get(name, ""), x, HEAD + 36 + row * 18)


def _timeline(box: Box, series: Sequence[Series]) -> Iterator[str]:
    left, bottom = 220, box.h - 20
    height = (bottom - HEAD) / max(1, len(series))
    for row, one in enumerate(series):
        y = HEAD + row * height
        yield _text(one.name, left - 8, y + 28, anchor="end")
        color = NAMED["red" if one.labels.get("severity") == "page" else "orange"]
        began = one.points[0][0]
        for (when, _), (after, _) in pairwise([*one.points, (math.inf, 0.0)]):
            if after - when > GONE_AFTER_IN_SECONDS:
                x = box.x(began, left)
                yield _rect(x, y + 4, box.x(when, left) - x, min(height - 8, 40), fill=color)
                began = after
    yield from _times(box, bottom, left)


_KINDS: dict[str, Callable[[Box, Sequence[Series]], Iterator[str]]] = {
    "stat": _stat,
    "timeseries": _timeseries,
    "heatmap": _heatmap,
    "table": _table,
    "state-timeline": _timeline,
}
