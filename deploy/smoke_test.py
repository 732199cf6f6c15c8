#!/usr/bin/env python3
"""Check a deployed service over HTTP: version, health, and a read with a token.

Needs nothing but Python. With --wait it repeats the checks until they pass, as a roll-out takes its time. The read uses
the API client of the variables CTMS_CLIENT_ID and CTMS_CLIENT_SECRET, which needs the permission view_contacts. Exits
with 0 if all checks pass, otherwise with 1 and the reason of the last failure.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

TIMEOUT_IN_SECONDS = 30
INTERVAL_IN_SECONDS = 5.0
NOBODY = "smoke-test@example.com"


class CheckError(Exception):
    """A check that fails; the message names it, and repeats no response."""


def call(url: str, path: str, data: Mapping[str, str] | None = None, token: str | None = None) -> Any:
    """Return the JSON that the service answers with 200. Raises `CheckError`."""
    body = urllib.parse.urlencode(data).encode() if data else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    what = path.partition("?")[0]
    try:
        request = urllib.request.Request(url.rstrip("/") + path, body, headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_IN_SECONDS) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise CheckError(f"{what} answers {error.code}") from None
    except urllib.error.URLError as error:
        raise CheckError(f"{what} cannot be reached: {error.reason}") from None
    except (OSError, ValueError) as error:
        raise CheckError(f"{what} answers no JSON ({type(error).__name__})") from None


def call_object(url: str, path: str, data: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON object that the service answers with 200. Raises `CheckError`."""
    found = call(url, path, data)
    if not isinstance(found, dict):
        raise CheckError(f"{path} answers no JSON object")
    return found


def check(url: str, commit: str, client_id: str, secret: str, repeat: int) -> None:
    """Run all checks. Raises `CheckError`."""
    for _ in range(repeat):  # behind a load balancer, an old process may be left
        found = call_object(url, "/__version__").get("commit")
        if found != commit:
            raise CheckError(f"/__version__ names the commit {found or 'none'}, not {commit}")
    if call_object(url, "/__lbheartbeat__").get("status") != "ok":
        raise CheckError("/__lbheartbeat__ is not ok")
    health = call_object(url, "/__heartbeat__")
    if health.get("status") not in {"ok", "warning"}:  # a warning is about other systems, and no reason to stop
        raise CheckError(f"/__heartbeat__ is {health.get('status')}")
    token = call_object(url, "/token", {"client_id": client_id, "client_secret": secret}).get("access_token")
    contacts = call(url, f"/ctms?primary_email={urllib.parse.quote(NOBODY)}", token=token)
    if not isinstance(contacts, list):
        raise CheckError("/ctms answers no list of contacts")


def main() -> None:
    """Run the checks until they pass or time is up, and exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="URL of the service")
    parser.add_argument("--commit", required=True, help="commit that /__version__ must name")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="how long to repeat the checks (0)")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="requests that must name the commit (5)")
    options = parser.parse_args()
    if not options.url.startswith(("http://", "https://")):
        parser.error("--url must start with https:// or http://")
    client_id, secret = os.environ.get("CTMS_CLIENT_ID"), os.environ.get("CTMS_CLIENT_SECRET")
    if not client_id or not secret:
        parser.error("set CTMS_CLIENT_ID and CTMS_CLIENT_SECRET")
    give_up = time.monotonic() + options.wait
    while True:
        try:
            check(options.url, options.commit, client_id, secret, options.repeat)
        except CheckError as error:
            if time.monotonic() + INTERVAL_IN_SECONDS > give_up:
                sys.exit(f"FAILED: {error}")
            print(f"waiting: {error}", flush=True)
            time.sleep(INTERVAL_IN_SECONDS)
        else:
            print(f"passed: {options.url} runs {options.commit}")
            return


if __name__ == "__main__":
    main()
