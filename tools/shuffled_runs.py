"""Repeat the README's test command in fresh clones, each time in another order: `python -m tools.shuffled_runs 10`.

Prints for each run its seed, whether the processors were busy, the duration and the result. With `--busy` all
processors are busy during every second run. The output of a failed run is kept. `--seed` repeats one order.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
TIMEOUT_SECONDS = 3600


def test_command() -> str:
    """Return the test command in the README."""
    found = re.search(r"<!-- command: test -->\n```bash\n(.+?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    if found is None:
        raise SystemExit("README.md has no test command")
    return found[1]


def _work_for_nothing() -> None:
    # Ends with its parent process, even if that was killed.
    while multiprocessing.parent_process().is_alive():  # type: ignore[union-attr]
        sum(range(1_000_000))


@contextmanager
def busy_processors(number: int) -> Iterator[None]:
    """Keep this many processors busy."""
    hogs = [multiprocessing.Process(target=_work_for_nothing, daemon=True) for _ in range(number)]
    for hog in hogs:
        hog.start()
    try:
        yield
    finally:
        for hog in hogs:
            hog.terminate()
            hog.join()


def run(seed: int, output: Path) -> bool:
    """Run the test command in a fresh clone; return whether it passed."""
    folder = Path(tempfile.mkdtemp(prefix="ctms-shuffled-"))
    folder.chmod(0o711)  # as root, PostgreSQL runs as another user, which must be able to enter the environment
    try:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "ctms")], check=True)
        command = ["bash", "-euo", "pipefail", "-c", f"{test_command()} -- --randomly-seed={seed}"]
        with output.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=folder / "ctms",
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            return process.wait(timeout=TIMEOUT_SECONDS) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the run with all its processes, unless it has ended."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    """Repeat the command with the command line's options; exit with 1 unless all runs passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="?", default=10)
    parser.add_argument("--busy", action="store_true", help="keep all processors busy in every second run")
    parser.add_argument("--seed", type=int, help="the order of the first run; those after it add one")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that it ends the run and cleans up
    first = random.getrandbits(31) if given.seed is None else given.seed
    failed = 0
    for number in range(given.runs):
        is_busy = given.busy and number % 2 == 1
        output = Path(tempfile.gettempdir(), f"ctms-shuffled-{first + number}.txt")
        began = time.monotonic()
        with busy_processors(os.cpu_count() or 1 if is_busy else 0):
            passed = run(first + number, output)
        minutes, seconds = divmod(round(time.monotonic() - began), 60)
        failed += not passed
        result = "passed" if passed else f"FAILED, see {output}"
        load = "busy" if is_busy else "idle"
        sys.stdout.write(f"run {number + 1}: seed {first + number}, {load}, {minutes}:{seconds:02} minutes, {result}\n")
        sys.stdout.flush()
        if passed:
            output.unlink()
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
