"""Where the time of a request goes: `python -m benchmarks.profile`, or `python -m benchmarks.api --profile`.

Calls the service's WSGI app and the baseline app in this process, one request after the other, on a real database.
Prints for each kind of request the elapsed time, the CPU time of this process (the rest is mostly waiting for
PostgreSQL), and, from pyinstrument's samples, the packages in which the service spends its time. On a busy machine the
process also waits for the CPU: then the packages' shares are too large, but the CPU time is still right.
"""

from __future__ import annotations

import argparse
import io
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from pyinstrument import Profiler
from pyinstrument.frame import Frame
from werkzeug.test import EnvironBuilder

from benchmarks import baseline, data
from benchmarks.kinds import KINDS, Kind, Request
from benchmarks.load import WrongAnswer
from ctms.app import create_app
from ctms.clients.tokens import tokens
from ctms.settings import Settings

_PAGES = 50
_PARTS = 12
_INTERVAL_IN_SECONDS = 0.0002
_SECRET_KEY = "a key of thirty-two bytes or more, for the benchmark"  # noqa: S105  signs nothing that leaves this process
_PROJECT = Path(__file__).parent.parent


class App(NamedTuple):
    """A WSGI app, and the environ of every request to it."""

    wsgi: Callable[..., Iterable[bytes]]
    headers: dict[str, str]


class Cost(NamedTuple):
    """The cost of a request: elapsed time, and CPU time of this process, in milliseconds."""

    elapsed: float
    worked: float


def main(arguments: list[str] | None = None) -> None:
    """Profile with the command line's options."""
    options = _parser().parse_args(arguments)
    with data.prepared(options.data_dir, options.contacts) as contacts:
        settings = Settings(db_url=contacts.url, secret_key=_SECRET_KEY)
        app = create_app(settings)
        with app.app_context():
            service = App(app, {"Authorization": f"Bearer {tokens().issue(data.CLIENT_ID)}"})
        yardstick = App(baseline.create_app(settings), {})
        for name in options.kinds:
            _profile(KINDS[name], contacts, service, yardstick, options)


def _profile(kind: Kind, contacts: data.Contacts, service: App, yardstick: App, options: argparse.Namespace) -> None:
    count = min(options.requests, _PAGES) if kind.name == "page" else options.requests
    rounds = iter(_rounds(kind, contacts, 5, count))
    for app in (yardstick, service):
        _cost(kind, app, next(rounds))  # statements are prepared, caches filled
    its, ours = (_cost(kind, app, next(rounds)) for app in (yardstick, service))
    profiler = Profiler(interval=_INTERVAL_IN_SECONDS)
    with profiler:
        _cost(kind, service, next(rounds))
    print(f"\n{kind.title:16}{'elapsed':>10}{'worked':>14}")
    print(f"  {'service':14}{ours.elapsed:7.3f} ms   {ours.worked:8.3f} ms")
    print(f"  {'baseline app':14}{its.elapsed:7.3f} ms   {its.worked:8.3f} ms")
    session = profiler.last_session
    root = session.root_frame() if session else None
    if root is None:
        raise SystemExit("too few samples: increase --requests")
    spent = _by_package(root)
    whole = sum(spent.values())
    parts = {package: seconds / whole * ours.elapsed for package, seconds in spent.items()}
    parts["waiting"] = min(ours.elapsed - ours.worked, parts.get("psycopg", 0))
    parts["psycopg"] = parts.get("psycopg", 0) - parts["waiting"]
    for package, milliseconds in sorted(parts.items(), key=itemgetter(1), reverse=True)[:_PARTS]:
        print(f"    {milliseconds / ours.elapsed:6.1%}  {milliseconds:7.3f} ms  {package}")
    if options.tree:
        print(profiler.output_text(unicode=True, show_all=True))


def _rounds(kind: Kind, contacts: data.Contacts, number: int, count: int) -> list[list[Request]]:
    """Yield `number` times `count` requests; repeatable ones may be fewer."""
    made = kind.requests(contacts, number * count)
    requests = made if kind.once else list(islice(cycle(made), number * count))
    return [requests[start : start + count] for start in range(0, number * count, count)]


def _cost(kind: Kind, app: App, requests: list[Request]) -> Cost:
    """Send the requests one after the other and return the cost of one. Raises `WrongAnswer`."""
    environs = [_environ(request, app.headers) for request in requests]
    statuses: Counter[str] = Counter()

    def start_response(status: str, _headers: Any, _exc_info: Any = None) -> Any:
        statuses[status[:3]] += 1

    elapsed, worked = time.perf_counter(), time.thread_time()
    for environ in environs:
        answer = app.wsgi(environ, start_response)
        for _ in answer:
            pass
        if hasattr(answer, "close"):
            answer.close()
    cost = Cost(
        (time.perf_counter() - elapsed) * 1000 / len(requests), (time.thread_time() - worked) * 1000 / len(requests)
    )
    if set(statuses) != {str(kind.status)}:
        raise WrongAnswer(f"{kind.title}: {dict(statuses)}")
    return cost


def _environ(request: Request, headers: dict[str, str]) -> dict[str, Any]:
    body = {"data": request.body, "content_type": "application/json"} if request.body else {}
    environ = EnvironBuilder(request.path, method=request.method, headers=headers, **body).get_environ()  # type: ignore[arg-type]
    return {**environ, "wsgi.input": io.BytesIO(request.body.encode())}


def _by_package(root: Frame) -> dict[str, float]:
    """Sum the seconds that are spent in each package; the standard library's time is its caller's."""
    spent: defaultdict[str, float] = defaultdict(float)

    def walk(frame: Frame, caller: str) -> None:
        package = _package(frame.file_path) or caller
        spent[package] += frame.time - sum(child.time for child in frame.children)
        for child in frame.children:
            walk(child, package)

    walk(root, "benchmarks")
    return spent


def _package(path: str | None) -> str | None:
    if path is None:
        return None
    parts = Path(path).parts
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    if path.startswith(str(_PROJECT)):
        return str(Path(path).relative_to(_PROJECT))
    return "logging" if "logging" in parts else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    data.add_arguments(parser)
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which to profile (default: all)"
    )
    parser.add_argument("--requests", type=int, default=1000, help="requests per kind (default: %(default)s)")
    parser.add_argument("--tree", action="store_true", help="also print the call tree")
    return parser


if __name__ == "__main__":
    main()
