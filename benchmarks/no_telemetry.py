"""The service without telemetry: nothing is counted, timed or logged; everything else is unchanged.

The comparison with the service shows the cost of telemetry. `python -m benchmarks.no_telemetry` starts it on HOST:PORT.
"""

from __future__ import annotations

import multiprocessing

from flask import Flask, Response

from ctms.cli.serve import granian
from ctms.cli.serving_process import worker_app
from ctms.database.pool import Pool
from ctms.request_context import request_context
from ctms.settings import Settings
from ctms.telemetry.requests import init_requests


def remove_telemetry(app: Flask) -> Flask:
    """Remove the recording of requests from the app."""
    hooks = app.after_request_funcs
    (finish,) = [hook for hook in hooks[None] if hook.__module__ == init_requests.__module__]
    hooks[None].remove(finish)
    app.after_request(_add_request_id)
    app.extensions["ctms.pool"].observer = Pool.observer
    return app


def _add_request_id(response: Response) -> Response:
    response.headers["X-Request-Id"] = request_context().request_id
    return response


def create_app() -> Flask:
    """Create the app of a server process, without telemetry."""
    return remove_telemetry(worker_app())


def serve() -> None:
    """Serve the app as `flask ctms serve` serves the service."""
    settings = Settings.from_environment()
    multiprocessing.set_start_method("spawn", force=True)
    granian("benchmarks.no_telemetry:create_app", settings).serve()


if __name__ == "__main__":
    serve()
