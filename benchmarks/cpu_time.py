"""The CPU time of a process and its children, which other load on the machine does not distort."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

_PROC = Path("/proc")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its living descendants in seconds; 0 without /proc."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    used: dict[int, float] = {}
    for entry in _PROC.glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has just terminated
            continue
        child = int(entry.parent.name)
        children[int(fields[1])].append(child)
        used[child] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    total, waiting = 0.0, [pid]
    while waiting:
        current = waiting.pop()
        total += used.get(current, 0.0)
        waiting += children[current]
    return total
