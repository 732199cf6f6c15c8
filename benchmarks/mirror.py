"""Measure the cost of a backend and the rate of the sync: `python -m benchmarks.mirror`.

Prints the rate of PATCH with a backend registered and without one, interleaved on one database, and their ratio; then
the rate at which one `flask ctms worker` pushes contacts to a backend that does nothing, and the 99th percentile of
reads before and meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import data, load, servers
from benchmarks.interleaved import add_arguments, measure_interleaved, median, ratios
from benchmarks.kinds import KINDS
from benchmarks.servers import Server
from ctms.database.pool import Connection

_PLUGIN = """
from ctms.plugins import Backend, hookimpl


class Nowhere:
    def push(self, contacts, idempotency_key):
        pass


@hookimpl
def ctms_backends(settings):
    yield Backend(name="nowhere", implementation=Nowhere())
"""

_ALL_WAIT = """
    INSERT INTO outbox (backend, email_id, version, priority, waiting_since, due_at, attempts, failures)
    SELECT 'nowhere', email_id, 1, -1, now(), now(), 0, 0 FROM emails LIMIT %s"""


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark with the command line's options."""
    options = _parser().parse_args(arguments)
    load.wrk()
    with tempfile.TemporaryDirectory() as folder, data.prepared(options.data_dir, options.contacts) as contacts:
        plugin = {"PYTHONPATH": write_plugin(Path(folder))}
        with (
            servers.service(contacts, options.workers, "without a backend") as without,
            servers.service(contacts, options.workers, "with a backend", **plugin) as with_one,
        ):
            compare(contacts, with_one, without, options)
            resync(contacts, without, plugin, options)


def compare(contacts: data.Contacts, with_one: Server, without: Server, options: argparse.Namespace) -> None:
    """Print the rates of PATCH with a backend and without, and their ratio."""
    with_it, without_it = measure_interleaved((with_one, without), KINDS["patch"], contacts, options)
    for server, measured in ((with_one, with_it), (without, without_it)):
        print(f"PATCH {server.name}: {median(measured).rate:,.0f} requests per second")
    found = ratios(with_it, without_it)
    print(f"ratio: {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})", flush=True)


def resync(contacts: data.Contacts, reader: Server, plugin: dict[str, str], options: argparse.Namespace) -> None:
    """Print the rate of one worker, and the latency of reads before and meanwhile."""
    with contacts.connect() as connection:
        connection.execute("TRUNCATE outbox, procrastinate_jobs CASCADE")
        connection.execute(_ALL_WAIT, (options.resync,))
        connection.execute("VACUUM ANALYZE outbox")
        idle = _p99(reader, contacts)
        environment = {**os.environ, **servers.environment_of(contacts), **plugin}
        began = time.monotonic()
        worker = subprocess.Popen([servers.FLASK, "ctms", "worker", "--once"], env=environment)
        busy: list[float] = []
        reads = threading.Thread(target=lambda: busy.append(_p99(reader, contacts, while_running=worker)))
        reads.start()
        first = _wait_for(connection, "SELECT count(*) < %s FROM outbox", options.resync)
        _wait_for(connection, "SELECT count(*) = %s FROM outbox", 0)
        seconds = time.monotonic() - first
        worker.wait()
        reads.join()
    print(
        f"{options.resync:,} contacts in {seconds:.1f} s: {options.resync / seconds:,.0f} per second"
        f" (and {first - began:.1f} s to start)"
    )
    print(f"p99 of reads: {idle:.1f} ms before, {busy[0]:.1f} ms meanwhile: {busy[0] / idle:.1f} times")


def write_plugin(folder: Path) -> str:
    """Write a distribution with a backend that does nothing; return the folder for `PYTHONPATH`."""
    information = folder / "nowhere-1.dist-info"
    information.mkdir()
    (folder / "nowhere.py").write_text(_PLUGIN)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: nowhere\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[ctms]\nnowhere = nowhere\n")
    return str(folder)


def _wait_for(connection: Connection, question: str, value: int) -> float:
    while connection.execute(question, (value,)).fetchone() != (True,):
        time.sleep(0.2)
    return time.monotonic()


def _p99(server: Server, contacts: data.Contacts, while_running: subprocess.Popen[bytes] | None = None) -> float:
    """Read with few connections, two seconds at a time; return the median of the 99th percentiles, in milliseconds."""
    found = []
    for _ in range(1000):
        found.append(load.measure(server, KINDS["read"], contacts, seconds=2, connections=2).p99)
        if (while_running is None and len(found) == 3) or (while_running and while_running.poll() is not None):
            break
    return statistics.median(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mirror", description=__doc__)
    data.add_arguments(parser)
    add_arguments(parser)
    parser.add_argument("--resync", type=int, default=100_000, help="contacts to push (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
