"""Reading another system's data with a backend's `fetch`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ctms.errors import OperatorError
from ctms.hooks.receivers import Backend, Fetches
from ctms.outbox.lanes import BACKEND, Lane
from ctms.sync.calls import Calls


class Fetch:
    """Calls `fetch` as the background service calls `push`: with the backend's timeout and rate.

    Raises `OperatorError` if the backend has no `fetch`, or a call fails.
    """

    def __init__(self, backend: Backend) -> None:
        if not isinstance(backend.implementation, Fetches):
            raise OperatorError(f"the backend {backend.name} cannot be compared: its implementation has no `fetch`")
        self._backend = backend
        self._fetch = backend.implementation.fetch
        self._calls = Calls()
        self._turn = 0.0

    def __call__(self, email_ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the other system's data about these contacts, at most `max_batch`, by `email_id`."""
        backend = self._backend
        time.sleep(max(0.0, self._turn - time.monotonic()))
        if backend.rate:
            self._turn = time.monotonic() + 1 / backend.rate
        try:
            answer = self._calls.call(Lane(BACKEND, backend.name, 0), lambda: self._fetch(email_ids), backend.timeout)
        except Exception as error:
            raise OperatorError(f"`fetch` of the backend {backend.name} raised {type(error).__name__}") from error
        if not isinstance(answer, Mapping) or not all(isinstance(kept, Mapping) for kept in answer.values()):
            raise OperatorError(f"`fetch` of the backend {backend.name} must return what is kept by email_id")
        return answer
