"""Writers of the plugin `jsonl` are killed at random moments: what was answered with done is in the files."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

WRITER = """
import sys
from pathlib import Path
from ctms.plugins import ContactState
from ctms_plugins.jsonl.journal import Journal

folder, name = Path(sys.argv[1]), sys.argv[2]
journal = Journal(folder / "contacts.jsonl", 200_000, "never")
print("ready", flush=True)
for number in range(1_000_000):
    document = {"email": {"email_id": f"{name}-{number}", "text": "x" * 5_000}}
    journal.push([ContactState(f"{name}-{number}-{part}", {**document, "part": part}) for part in range(7)], "key")
    print(number, flush=True)
"""
KILLS = 20


def test_nothing_that_was_done_is_lost(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311  for moments
    done: dict[str, int] = {}
    for kill in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(kill)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert [writer.stdout.readline() for _ in range(3)] == ["ready\n", "0\n", "1\n"]
        time.sleep(chance.uniform(0.02, 0.3))
        writer.kill()
        rest, _ = writer.communicate(timeout=200)
        done[str(kill)] = 2 + len([line for line in rest.split("\n")[:-1] if line.isdecimal()])

    files = sorted(tmp_path.glob("contacts*.jsonl"), key=lambda file: (file.name == "contacts.jsonl", file.name))
    found = set()
    for number, file in enumerate(files):
        *whole, part = file.read_bytes().split(b"\n")
        assert not part or number == len(files) - 1, "only the file that is written may end within a line"
        for line in map(json.loads, whole):
            found.add((line["email"]["email_id"], line["part"]))
    wanted = {
        (f"{kill}-{number}", part) for kill, count in done.items() for number in range(count) for part in range(7)
    }
    assert sum(done.values()) > KILLS
    assert wanted <= found
