"""The service without its telemetry: nothing is counted, timed or logged; else it is as it is, `X-Request-Id` included.

What it answers more in a second than the service does is what telemetry costs. `python -m benchmarks.silent` starts it
on HOST:PORT.
"""

from __future__ import annotations

import multiprocessing

from flask import Flask, Response

from ctms.cli.serve import granian, worker_app
from ctms.current import current_g
from ctms.pool import Pool
from ctms.settings import Settings
from ctms.telemetry.requests import init_requests


def silenced(app: Flask) -> Flask:
    """Take what keeps account of requests out of the app."""
    hooks = app.after_request_funcs
    (told,) = [hook for hook in hooks[None] if hook.__module__ == init_requests.__module__]
    hooks[None].remove(told)
    app.after_request(_add_request_id)
    app.extensions["ctms.pool"].observer = Pool.observer
    return app


def _add_request_id(response: Response) -> Response:
    response.headers["X-Request-Id"] = current_g().request_id
    return response


def silent_app() -> Flask:
    """Make the app of a process that serves, without telemetry."""
    return silenced(worker_app())


def serve() -> None:
    """Serve it as `flask ctms serve` serves the service."""
    settings = Settings.from_environment()
    multiprocessing.set_start_method("spawn", force=True)
    granian("benchmarks.silent:silent_app", settings).serve()


if __name__ == "__main__":
    serve()
