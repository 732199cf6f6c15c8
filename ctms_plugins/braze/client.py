"""A client of Braze's REST API that respects its rate limits."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from ctms.plugins import Outcome, Pause, Refused, SlowDown, TryLater

if TYPE_CHECKING:
    import requests

_USUAL_WAIT_IN_SECONDS = 60.0
_LONGEST_WAIT_IN_SECONDS = 3600.0
_SAID_OF_SUCCESS = ("message", "deleted")
_PAUSES = {
    401: "Braze does not take the key",
    403: "the key may not do this",
    404: "CTMS_PLUGIN_BRAZE_URL is no REST endpoint of Braze",
}


@dataclass(frozen=True)
class BrazeResponse:
    """Braze's response: the status, and the body, an object."""

    status: int
    body: Mapping[str, Any]

    def errors(self) -> dict[int | None, str]:
        """Return the error of each faulty entry by its index; None is the key of errors without an index."""
        given = self.body.get("errors")
        found: dict[int | None, str] = {}
        for error in given if isinstance(given, list) else ():
            index = error.get("index") if isinstance(error, dict) else None
            what = error.get("type") if isinstance(error, dict) else error
            found[index if isinstance(index, int) else None] = _readable(what)
        return found

    @property
    def reason(self) -> str:
        """The status and the message, in one line."""
        return f"HTTP {self.status}: {_readable(self.body.get('message'))}"


class _Bearer:
    # Without this, requests would use a .netrc file.
    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class BrazeClient:
    """A client of one workspace. A path whose limit is used up is not called until Braze resets it."""

    def __init__(self, url: str, key: str, timeout: float) -> None:
        import requests  # noqa: PLC0415  installations without Braze do without, and it takes long to import

        self._url = url.rstrip("/")
        self._timeout = timeout
        self._session = requests.Session()
        self._session.auth = _Bearer(key)
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._free_at: dict[str, float] = {}

    def post(self, path: str, body: Mapping[str, Any]) -> BrazeResponse | Outcome:
        """Return the response if Braze accepts or refuses entries, else the outcome.

        Raises `OSError` without a response.
        """
        rest = self._free_at.get(path, 0.0) - time.time()
        if rest > 0:
            return SlowDown(rest, f"the limit of {path} is used up")
        answer = self._session.post(f"{self._url}{path}", json=body, timeout=self._timeout, allow_redirects=False)
        status, reset = answer.status_code, _until_reset(answer.headers)
        if status == 429:
            return SlowDown(_USUAL_WAIT_IN_SECONDS if reset is None else reset, "HTTP 429")
        if answer.headers.get("X-RateLimit-Remaining") == "0" and reset is not None:
            self._free_at[path] = time.time() + reset
        if status in _PAUSES:
            return Pause(f"HTTP {status}: {_PAUSES[status]}")
        if status >= 500 or 300 <= status < 400:
            return TryLater(reason=f"HTTP {status}")
        return _read(answer)


def _read(answer: requests.Response) -> BrazeResponse | Outcome:
    try:
        body = answer.json()
    except ValueError:  # requests' JSONDecodeError
        body = None
    if isinstance(body, dict) and (not answer.ok or not body.keys().isdisjoint(_SAID_OF_SUCCESS)):
        return BrazeResponse(answer.status_code, body)
    return TryLater(reason="a response that is not Braze's") if answer.ok else Refused(f"HTTP {answer.status_code}")


def _until_reset(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the limit is reset, from the header with the Unix time."""
    moment, seconds = headers.get("X-RateLimit-Reset", ""), headers.get("Retry-After", "")
    if re.fullmatch(r"\d+(\.\d+)?", moment):
        wait = float(moment) - time.time()
    elif seconds.isdecimal():
        wait = float(seconds)
    else:
        return None
    return min(max(wait, 1.0), _LONGEST_WAIT_IN_SECONDS)


def _readable(text: Any) -> str:
    """Return Braze's message as a short line, without values that it may repeat of a contact."""
    words = re.sub(r"\S*@\S*|\"[^\"]*\"", "…", " ".join(str(text).split()))
    return words[:120] if text else "no reason"
