"""What telemetry costs: `python -m benchmarks.telemetry`.

First what it takes to count and to log one request, kept in files as `flask ctms serve` keeps it. Then reads of single
contacts through the service's WSGI app in this process, with telemetry and without, by turns: the ratio is what it
costs the requests. Medians, and for counting and logging the processor's time: what others do on the machine counts
little, but where it is very busy the ratio is rough.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

from werkzeug.test import EnvironBuilder

from benchmarks import data
from benchmarks.kinds import KINDS

_SECRET_KEY = "a key of thirty-two bytes or more, for the benchmark"  # noqa: S105  signs nothing that leaves this process
_LIMIT_IN_MICROSECONDS = 30
_ROUNDS = 25


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says; returns 1 when counting a request takes longer than it may."""
    options = _parser().parse_args(arguments)
    # Where metrics are kept is decided before prometheus_client is imported.
    with tempfile.TemporaryDirectory() as folder, data.prepared(options.data_dir, options.contacts) as contacts:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        counting = _counting()
        logging = _logging()
        print(f"counting a request   {counting:7.1f} µs (at the most {_LIMIT_IN_MICROSECONDS})")
        print(f"logging a request    {logging:7.1f} µs")
        for (with_it, without), what in zip(_requests(contacts, options.requests), ("elapsed", "worked"), strict=True):
            share = 1 - without / with_it
            print(f"a request, {what:9} {with_it:7.1f} µs, without telemetry {without:7.1f} µs: {share:.1%} less")
    return 1 if counting > _LIMIT_IN_MICROSECONDS else 0


def _cost(call: Callable[[], object], times: int = 1000) -> float:
    """Return how many microseconds of the processor a call takes: the median of several rounds."""
    rounds = []
    for _ in range(_ROUNDS):
        started = time.thread_time()
        for _ in range(times):
            call()
        rounds.append((time.thread_time() - started) / times)
    return statistics.median(rounds) * 1e6


def _finished() -> Any:
    from ctms.telemetry.requests import Answer, Finished  # noqa: PLC0415  after the environment is set

    return Finished(Answer("GET", "/ctms/{email_id}", 200, "benchmark/1.0", "id_benchmark", True), 0.002, "r")


def _counting() -> float:
    from ctms.telemetry.metrics import Metrics  # noqa: PLC0415
    from ctms.telemetry.slots import slots  # noqa: PLC0415

    slots()
    metrics, finished = Metrics(), _finished()

    def count() -> None:
        metrics.connections.taken(16)
        metrics.connections.returned()
        metrics.connections.spent("read", 0.001)
        metrics.count(finished)

    return _cost(count)


@contextmanager
def _silent() -> Iterator[None]:
    """Send standard error, where logs go, to nowhere."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _logging() -> float:
    from ctms.settings import Settings  # noqa: PLC0415
    from ctms.telemetry.logs import init_logs, log_summary  # noqa: PLC0415

    init_logs(Settings(secret_key=_SECRET_KEY))
    finished = _finished()
    with _silent():
        return _cost(lambda: log_summary(finished))


def _requests(contacts: data.Contacts, count: int) -> list[list[float]]:
    """Return how many microseconds a read takes with telemetry and without it: the medians."""
    from ctms.app import create_app  # noqa: PLC0415
    from ctms.clients.tokens import tokens  # noqa: PLC0415
    from ctms.database import release_database  # noqa: PLC0415
    from ctms.pool import Pool  # noqa: PLC0415
    from ctms.settings import Settings  # noqa: PLC0415

    app = create_app(Settings(db_url=contacts.url, secret_key=_SECRET_KEY))
    with app.app_context():
        authorization = f"Bearer {tokens().issue(data.CLIENT_ID)}"
    # One app, one connection, with telemetry and without by turns: else it is two processes of PostgreSQL that are
    # compared, and the processors that they happen to run on.
    switched = {True: (app.extensions["ctms.pool"].watch, app.after_request_funcs), False: (Pool.watch, {})}
    taken: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with _silent():
        for number, request in enumerate(islice(cycle(KINDS["read"].requests(contacts, count)), count)):
            for telemetry in (True, False) if number % 2 else (False, True):
                app.extensions["ctms.pool"].watch, app.after_request_funcs = switched[telemetry]
                taken[telemetry].append(_elapsed(app, _environ(request.path, authorization)))
    release_database(app)
    # Until half of the way statements get prepared and caches filled.
    return [
        [statistics.median(one[which] for one in taken[telemetry][count // 2 :]) * 1e6 for telemetry in (True, False)]
        for which in (0, 1)
    ]


def _environ(path: str, authorization: str) -> dict[str, Any]:
    return EnvironBuilder(path, headers=[("Authorization", authorization)]).get_environ()


def _elapsed(app: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> tuple[float, float]:
    """Return how long a request takes, and how long this process works on it."""
    started, worked = time.perf_counter(), time.thread_time()
    answer = app(environ, _start)
    for _ in answer:
        pass
    if hasattr(answer, "close"):
        answer.close()
    return time.perf_counter() - started, time.thread_time() - worked


def _start(status: str, _headers: Any, _error: Any = None) -> None:
    if status != "200 OK":
        raise SystemExit(f"a request was answered with {status}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--requests", type=int, default=4000, help="to each (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
