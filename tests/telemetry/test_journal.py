"""The journal: what a request leaves there is told once, also of a process that was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ctms.telemetry.journal import EVERY_SECONDS, AtOnce, Journal, open_journal
from ctms.telemetry.requests import Answer, AuthFailure, Finished, TokenFailure
from ctms.telemetry.sheets import Sheet
from ctms.telemetry.slots import SHEETS, Slots, folder_of_run

READ = Answer("GET", "/ctms/{email_id}", 200, "agent/1.0", "id_test", True)
REFUSED = Answer("GET", "/ctms", 401, 'a "q" é', None, None, AuthFailure.NO_TOKEN, TokenFailure.LIMITED)
LEFT = Finished(REFUSED, 0.5, "r-1", 1700000000.25, None, 0.25)

_PROCESS = """
import sys, time
from pathlib import Path
from ctms.telemetry import journal
from ctms.telemetry.requests import Answer, AuthFailure, Finished, TokenFailure
from ctms.telemetry.slots import Slots
journal.EVERY_SECONDS = float(sys.argv[2])
mine = journal.Journal(Slots(Path(sys.argv[1])), lambda told: print("told of", len(told), flush=True))
refused = Answer("GET", "/ctms", 401, 'a "q" é', None, None, AuthFailure.NO_TOKEN, TokenFailure.LIMITED)
mine.add(Finished(refused, 0.5, "r-1", 1700000000.25, None, 0.25))
print("added", flush=True)
sys.stdin.readline()
"""


class Told:
    """Observes, and remembers what it was told of."""

    def __init__(self) -> None:
        self.batches: list[list[Finished]] = []

    def __call__(self, told: Sequence[Finished]) -> None:
        self.batches.append(list(told))

    @property
    def ids(self) -> list[str]:
        return [one.request_id for batch in self.batches for one in batch]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a run, whose processes may all die."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with folder_of_run() as folder:
        yield folder


def finished(request_id: str, answer: Answer = READ) -> Finished:
    return Finished(answer, 0.002, request_id, time.time(), read=0.001)


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def started_process(folder: Path, every: float) -> subprocess.Popen[str]:
    """Let a process take a request, and tell of it after so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROCESS, str(folder), str(every)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "added\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(timeout=30)
    for pipe in (process.stdin, process.stdout):
        assert pipe
        pipe.close()


def killed_process(folder: Path) -> None:
    """Let a process take a request, and kill it before it has told of it."""
    kill(started_process(folder, 1000))


def test_without_a_folder_everything_is_told_at_once(told: Told) -> None:
    account = AtOnce(told)
    account.add(finished("r-1"))
    assert told.ids == ["r-1"]
    account.settle()
    assert told.ids == ["r-1"]
    assert isinstance(open_journal(None, told, tick=lambda: None), AtOnce)


def test_it_tells_of_many_together_and_of_each_once(tmp_path: Path, told: Told) -> None:
    ticks: list[float] = []
    journal = Journal(Slots(tmp_path), told, tick=lambda: ticks.append(time.monotonic()))
    for number in range(100):
        journal.add(finished(f"r-{number}"))
    wait_for(lambda: len(told.ids) == 100)

    assert told.ids == [f"r-{number}" for number in range(100)]
    assert told.batches[0][0] == finished("r-0")._replace(at=told.batches[0][0].at)
    wait_for(lambda: len(ticks) > 1)
    assert ticks[1] - ticks[0] >= EVERY_SECONDS
    journal.settle()
    assert len(told.ids) == 100


def test_settling_tells_of_all_that_waits(tmp_path: Path, told: Told) -> None:
    journal = Journal(Slots(tmp_path), told)
    journal.settle()
    assert told.ids == []
    journal.add(finished("r-1"))
    journal.settle()
    assert told.ids == ["r-1"]


def test_more_requests_than_there_is_room_for(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctms.telemetry.journal.EVERY_SECONDS", 1000)
    journal = Journal(Slots(tmp_path), told)
    for number in range(5000):
        journal.add(finished(f"r-{number}"))
    assert 2000 <= len(told.ids) < 5000
    journal.settle()
    assert told.ids == [f"r-{number}" for number in range(5000)]


def test_many_threads(tmp_path: Path, told: Told) -> None:
    journal = Journal(Slots(tmp_path), told)

    def work(name: int) -> None:
        for number in range(500):
            journal.add(finished(f"r-{name}-{number}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.settle()
    assert Counter(told.ids) == Counter(f"r-{name}-{number}" for name in range(8) for number in range(500))


def test_what_a_killed_process_left_is_told_at_the_next_scrape(run: Path, told: Told) -> None:
    killed_process(run)
    living = Journal(Slots(run), told)
    living.add(finished("r-2"))  # takes the slot
    killed_process(run)
    living.settle()

    assert told.batches[0] == [LEFT]
    assert sorted(told.ids) == ["r-1", "r-1", "r-2"]
    living.settle()
    assert len(told.ids) == 3


def test_what_a_killed_process_left_is_told_by_who_takes_its_slot(run: Path, told: Told) -> None:
    killed_process(run)
    Journal(Slots(run), told).add(finished("r-2"))

    assert told.batches[0] == [LEFT]
    assert len(list(run.glob(f"*.{SHEETS}"))) == 2


def test_what_was_told_is_not_told_again(run: Path, told: Told) -> None:
    process = started_process(run, 0.2)
    assert process.stdout
    assert process.stdout.readline() == "told of 1\n"
    wait_for(lambda: all(Sheet.waits_since(file) is None for file in run.glob(f"*.{SHEETS}")))
    kill(process)
    Journal(Slots(run), told).settle()

    assert told.ids == []


def test_settling_waits_for_what_others_have_to_tell(run: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctms.telemetry.journal._PATIENCE_IN_SECONDS", 30)  # the machine may be busy
    process = started_process(run, 0.4)
    Journal(Slots(run), told).settle()

    assert [Sheet.waits_since(file) for file in sorted(run.glob(f"*.{SHEETS}"))] == [None] * 4
    assert told.ids == []  # it was the other one's to tell
    kill(process)


def test_settling_does_not_wait_for_ever(run: Path, told: Told) -> None:
    process = started_process(run, 1000)
    began = time.monotonic()
    Journal(Slots(run), told).settle()

    assert time.monotonic() - began >= 1
    assert told.ids == []
    kill(process)


def test_a_new_run_does_not_tell_of_an_earlier_one(tmp_path: Path, told: Told) -> None:
    killed_process(tmp_path)
    Journal(Slots(tmp_path), told).settle()

    assert told.ids == []


@pytest.mark.parametrize("spoilt", [b"\xff" * 16, (600_000).to_bytes(8, sys.byteorder)])
def test_a_file_that_cannot_be_read_is_begun_anew(
    run: Path, told: Told, caplog: pytest.LogCaptureFixture, spoilt: bytes
) -> None:
    killed_process(run)
    file = run / f"0.0.{SHEETS}"
    file.write_bytes(spoilt + file.read_bytes()[len(spoilt) :])
    journal = Journal(Slots(run), told)
    journal.add(finished("r-2"))
    journal.settle()

    assert told.ids == ["r-2"]
    assert {record.message for record in caplog.records} == {"a file of requests cannot be read, and is begun anew"}


def test_what_is_not_written_to_its_end_does_not_count(run: Path, told: Told) -> None:
    killed_process(run)
    file = run / f"0.0.{SHEETS}"
    written = file.read_bytes()
    end = int.from_bytes(written[:8], sys.byteorder)
    file.write_bytes(written[:end] + b"half a record" + written[end + 13 :])
    Journal(Slots(run), told).settle()

    assert told.ids == ["r-1"]


def test_agents_that_clients_make_up_are_forgotten_in_time(run: Path, told: Told) -> None:
    journal = Journal(Slots(run), told)
    for number in range(20_000):
        journal.add(finished(f"r-{number}", READ._replace(agent=f"{'a' * 150}/{number}")))
    journal.settle()

    assert told.ids == [f"r-{number}" for number in range(20_000)]
    assert told.batches[-1][-1].answer.agent.endswith("/19999")
    assert all(file.stat().st_size < 1_000_000 for file in run.glob(f"*.{SHEETS}"))


# Python 3.12 and later warn of forks where there are threads; this one does next to nothing before it ends.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_has_a_file_of_its_own(run: Path, told: Told) -> None:
    journal = Journal(Slots(run), told)
    journal.add(finished("r-1"))
    child = os.fork()
    if not child:
        journal.add(finished("r-2"))
        os._exit(0)
    os.waitpid(child, 0)
    journal.settle()

    assert sorted(told.ids) == ["r-1", "r-2"]
    assert len(list(run.glob(f"*.{SHEETS}"))) == 4


def test_a_fork_that_answers_nothing_ends_as_it_should(run: Path) -> None:
    forks = "import os\nif os.fork():\n    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    code = _PROCESS.replace("sys.stdin.readline()\n", forks)
    done = subprocess.run([sys.executable, "-c", code, str(run), "1000"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_who_fails_is_logged_and_keeps_nothing_from_others(
    run: Path, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_told: Sequence[Finished]) -> None:
        raise RuntimeError

    journal = Journal(Slots(run), fail, told)
    for number in range(2):
        journal.add(finished(f"r-{number}"))
        journal.settle()

    assert told.ids == ["r-0", "r-1"]
    assert {record.message for record in caplog.records} == {"telemetry failed"}
