"""Writers of the plugin `jsonl` are killed at random: data that were reported as done are in the files."""

from __future__ import annotations

import json
import random
import time
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from ctms.plugins import ContactState
from ctms_plugins.jsonl.journal import Journal
from tests import forked

KILLS = 20


def write(folder: Path, name: str, told: Connection) -> None:
    """Write until this process is killed, and report finished batches."""
    journal = Journal(folder / "contacts.jsonl", 200_000, "never")
    for number in count():
        document = {"email": {"email_id": f"{name}-{number}", "text": "x" * 5_000}}
        journal.push([ContactState(f"{name}-{number}-{part}", {**document, "part": part}) for part in range(7)], "key")
        told.send(number)


def test_nothing_that_was_done_is_lost(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311  for moments
    done: dict[str, int] = {}
    forks = forked.context()
    for kill in range(KILLS):
        ours, theirs = forks.Pipe(duplex=False)
        with ours:
            writer = forks.Process(target=write, args=(tmp_path, str(kill), theirs))
            writer.start()
            theirs.close()
            assert [ours.recv(), ours.recv()] == [0, 1]
            time.sleep(chance.uniform(0.02, 0.3))
            writer.kill()
            writer.join()
            done[str(kill)] = 2
            with suppress(EOFError, OSError):  # the end, within a message perhaps
                while True:
                    ours.recv()
                    done[str(kill)] += 1

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
    assert wanted <= found
