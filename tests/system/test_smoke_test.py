"""`deploy/smoke_test.py` against a service of a known commit, and against services that are not well."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctms.testing import ReceivedRequest, Reply, StubServer
from tests.serving import Served, serve_as_is
from tests.waiting import until

SCRIPT = Path(__file__).parent.parent.parent / "deploy" / "smoke_test.py"
COMMIT = "c0ffee" + "0" * 34


@pytest.fixture(scope="module")
def versioned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service in a folder with a `version.json`, as in the image."""
    folder = tmp_path_factory.mktemp("versioned")
    (folder / "version.json").write_text(json.dumps({"version": "1.0.0", "commit": COMMIT, "source": "", "build": ""}))
    with pytest.MonkeyPatch.context() as patches:
        patches.chdir(folder)
        with serve_as_is(folder) as running:
            yield running


def smoke_test(served: Served, *arguments: str, url: str = "", **variables: str) -> tuple[int, str]:
    """Run the script without packages; returns its exit status and all that it writes."""
    environment = {"CTMS_CLIENT_ID": served.client_id, "CTMS_CLIENT_SECRET": served.client_secret, **variables}
    done = subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT, "--url", url or served.url, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout


def assert_becomes(expected: tuple[int, str], served: Served, *arguments: str, **variables: str) -> None:
    """Repeat it until the result is as expected: on a busy machine `/__heartbeat__` may be an error for a while."""
    assert until(lambda: smoke_test(served, *arguments, **variables), expected.__eq__) == expected


def test_it_passes(versioned: Served) -> None:
    assert_becomes((0, f"passed: {versioned.url} runs {COMMIT}\n"), versioned, "--commit", COMMIT)


def test_it_fails(versioned: Served) -> None:
    no_rights = versioned.flask("ctms", "clients", "create", "id_none", "none@example.com").stdout.split()[-1]
    ready = ("--commit", COMMIT)

    assert smoke_test(versioned, "--commit", "0" * 40) == (
        1,
        f"FAILED: /__version__ names the commit {COMMIT}, not {'0' * 40}\n",
    )
    assert_becomes((1, "FAILED: /token answers 400\n"), versioned, *ready, CTMS_CLIENT_SECRET="secret_wrong")
    no_role = {"CTMS_CLIENT_ID": "id_none", "CTMS_CLIENT_SECRET": no_rights}
    assert_becomes((1, "FAILED: /ctms answers 403\n"), versioned, *ready, **no_role)
    status, written = smoke_test(versioned, *ready, url="http://127.0.0.1:1")
    assert (status, "cannot be reached" in written) == (1, True)
    assert smoke_test(versioned, *ready, CTMS_CLIENT_SECRET="")[0] == 2
    assert smoke_test(versioned, *ready, url="file:///")[0] == 2


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/__heartbeat__", {"status": "error"}, "/__heartbeat__ is error"),
        ("/__lbheartbeat__", {}, "/__lbheartbeat__ is not ok"),
        ("/ctms", {}, "/ctms answers no list of contacts"),
        ("/__version__", b"<html>", "/__version__ answers no JSON (JSONDecodeError)"),
        ("/__version__", [], "/__version__ answers no JSON object"),
        ("/__version__", {}, f"/__version__ names the commit none, not {COMMIT}"),
    ],
)
def test_a_service_that_is_not_well(versioned: Served, path: str, body: Any, reason: str) -> None:
    bodies = {
        "/__version__": {"commit": COMMIT},
        "/__lbheartbeat__": {"status": "ok"},
        "/__heartbeat__": {"status": "warning"},
        "/token": {"access_token": "t"},
        "/ctms": [],
    }

    with StubServer() as server:
        server.reply = lambda request: Reply(200, {}, bodies[request.path.partition("?")[0]])
        assert smoke_test(versioned, "--commit", COMMIT, url=server.url)[0] == 0
        bodies[path] = body
        assert smoke_test(versioned, "--commit", COMMIT, url=server.url) == (1, f"FAILED: {reason}\n")


def test_it_waits_until_no_old_process_is_left(versioned: Served) -> None:
    found = []

    def reply(request: ReceivedRequest) -> Reply:
        found.append(request.path)
        commit = COMMIT if len(found) != 3 else "old"
        return Reply(200, {}, {"commit": commit, "status": "ok", "access_token": "t"})

    with StubServer() as server:
        server.reply = lambda request: Reply(200, {}, []) if request.path.startswith("/ctms?") else reply(request)
        status, written = smoke_test(versioned, "--commit", COMMIT, "--wait", "30", url=server.url)

    assert (status, written.count("waiting: /__version__ names the commit old")) == (0, 1)
    assert found.count("/__version__") == 3 + 5
