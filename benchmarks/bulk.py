"""Measure the bulk commands on a database of 500,000 contacts: `python -m benchmarks.bulk`.

Prints how long `flask ctms opt-out` takes for a list of a million lines that names every contact, how long `flask ctms
delete-bulk` takes for 100,000 addresses and the latency of concurrent reads, and the peak memory of the command for a
list of ten million lines.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import data, servers
from benchmarks.cpu_time import cpu_seconds
from benchmarks.servers import Server

READERS = 8
ALONE_IN_SECONDS = 10


@dataclass(frozen=True)
class Figures:
    """The cost of a command: elapsed seconds, CPU seconds of it and of PostgreSQL, and its peak memory."""

    seconds: float
    cpu_time: float
    database: float
    megabytes: float
    summary: dict[str, Any]


@dataclass(frozen=True)
class Waited:
    """The latency of responses in milliseconds, counted from when each request was due."""

    requests: int
    p50: float
    p99: float
    longest: float


class Readers:
    """Clients that together read contacts at a constant `rate` per second, whether or not responses arrive."""

    def __init__(self, server: Server, contacts: data.Contacts, rate: float) -> None:
        self._server = server
        self._ids = contacts.ids
        self._apart = READERS / rate
        self._stop = threading.Event()
        self._waited: list[float] = []
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(READERS)]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def waited(self) -> Waited:
        """Return the measurements; call it at the end."""
        found = sorted(self._waited)
        places = (len(found) // 2, int(len(found) * 0.99), len(found) - 1)
        return Waited(len(found), *(round(found[place] * 1000, 1) for place in places))

    def _read(self, number: int) -> None:
        connection = HTTPConnection(urlsplit(self._server.url).netloc, timeout=30)
        due = time.monotonic() + self._apart * number / READERS
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            connection.request("GET", f"/ctms/{random.choice(self._ids)}", headers=self._server.headers)  # noqa: S311
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"no figures: a read got the status {answer.status}")
            self._waited.append(time.monotonic() - due)
            due += self._apart
        connection.close()


def main() -> None:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    parser.set_defaults(contacts=500_000)
    parser.add_argument("--delete", type=int, default=100_000, help="contacts (default: %(default)s)")
    parser.add_argument("--opt-outs", type=int, default=1_000_000, help="lines of that list (default: %(default)s)")
    parser.add_argument("--lines", type=int, default=10_000_000, help="of the large list (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=200, help="reads per second (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the service (default: %(default)s)")
    parser.add_argument("--no-large-list", action="store_true", help="omit the last one, which takes long")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    found = measure(options)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all measurements and print the results."""
    found: dict[str, Any] = {"load before": os.getloadavg()[0]}
    with (
        data.prepared(options.data_dir, options.contacts) as contacts,
        tempfile.TemporaryDirectory(dir=options.data_dir) as folder,
    ):
        clear(contacts)
        listed = Path(folder, "list.txt")
        print(f"{options.contacts:,} contacts; load of the machine before: {found['load before']:.1f}")
        found["opt-out"] = run(contacts, "opt-out", str(opt_outs(listed, options)), "--yes")
        settle(contacts)
        write(listed, doomed(contacts, options.delete))
        with servers.service(contacts, options.workers) as service:
            with Readers(service, contacts, options.rate) as alone:
                time.sleep(ALONE_IN_SECONDS)
            with Readers(service, contacts, options.rate) as meanwhile:
                found["delete-bulk"] = run(contacts, "delete-bulk", "--email-file", str(listed), "--yes")
        for name, readers in (("reads before", alone), ("reads meanwhile", meanwhile)):
            found[name] = asdict(readers.waited())
            print(f"{'':12} {name}, {options.rate:.0f}/s: {readers.waited()}")
        if options.no_large_list:
            return found
        write(listed, (f"{number}-in-a-long-list@example.com" for number in range(options.lines)))
        found["large list"] = run(contacts, "delete-bulk", "--dry-run", "--email-file", str(listed))
    return found


def clear(contacts: data.Contacts) -> None:
    """Delete the records of an earlier run."""
    with contacts.connect() as connection:
        connection.execute("UPDATE emails SET has_opted_out_of_email = false WHERE has_opted_out_of_email")
        connection.execute("TRUNCATE erasures, outbox CASCADE")
    settle(contacts)


def settle(contacts: data.Contacts) -> None:
    """Let PostgreSQL finish deferred work, such as vacuuming, before a measurement."""
    with contacts.connect() as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def opt_outs(path: Path, options: argparse.Namespace) -> Path:
    """Write a shuffled list of opt-outs: contacts' addresses and as many unknown ones."""
    numbers = list(range(1, options.opt_outs + 1))
    random.shuffle(numbers)
    rows = (
        f'"contact-{number * options.contacts * 2 // options.opt_outs}@example.com","2023-01-05 02:05 PM","bounced"'
        for number in numbers
    )
    with path.open("w") as file:
        file.write("Email,Date,Reason\n")
        file.writelines(f"{row}\n" for row in rows)
    return path


def doomed(contacts: data.Contacts, count: int) -> list[str]:
    """Return the addresses of this many contacts that are not read."""
    with contacts.connect() as connection:
        rows = connection.execute(
            "SELECT primary_email FROM emails WHERE email_id <> ALL(%s) ORDER BY random() LIMIT %s",
            (contacts.ids, count),
        )
        return [address for (address,) in rows]


def write(path: Path, lines: Iterable[str]) -> None:
    """Write a list."""
    with path.open("w") as file:
        file.writelines(f"{line}\n" for line in lines)


def run(contacts: data.Contacts, command: str, *arguments: str) -> dict[str, Any]:
    """Run a command, print and return its figures."""
    flask = str(Path(sys.executable).parent / "flask")
    report = contacts.settings.data_dir / f"{command}.csv"
    report.unlink(missing_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CTMS_")}
    began, worked = time.monotonic(), _worked(contacts.database_pid)
    with subprocess.Popen(
        [flask, "ctms", command, *arguments, "--json", "--report", str(report)],
        env={**clean, "CTMS_DATA_DIR": str(contacts.settings.data_dir)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101  it is a pipe
        size = 0.0
        while (found := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            size = max(size, _peak(process.pid))
            time.sleep(0.05)
        _, status, usage = found
        process.returncode = os.waitstatus_to_exitcode(status)
        output = process.stdout.read()  # it is short and fits the pipe
    seconds, worked = time.monotonic() - began, _worked(contacts.database_pid) - worked
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    used = round(usage.ru_utime + usage.ru_stime, 1)
    figures = Figures(round(seconds, 1), used, round(worked, 1), round(size), json.loads(output))
    print(
        f"{command:12} {figures.seconds:,} s (CPU time: {figures.cpu_time:,} s, PostgreSQL's {figures.database:,} s),"
        f" {figures.megabytes:,} MB: {figures.summary}",
        flush=True,
    )
    return asdict(figures)


def _worked(pid: int) -> float:
    """Return the CPU seconds of PostgreSQL's processes, including terminated ones; 0 without /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return cpu_seconds(pid) + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> float:
    """Return the peak memory of a process in megabytes; 0 without /proc.

    `ru_maxrss` would include that of its parent, from before the exec.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


if __name__ == "__main__":
    main()
