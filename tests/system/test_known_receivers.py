"""What a service has run with is known to commands in shells that lack the plugin's variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugins.webhook_client import OLD
from tests.serving import environment_for, run_flask, serve

PLUGIN = {
    "CTMS_PLUGIN_WEBHOOK_URL": "https://example.com/changes",
    "CTMS_PLUGIN_WEBHOOK_ERASURE_URL": "https://example.com/erase",
    "CTMS_PLUGIN_WEBHOOK_SECRETS": OLD,
}
ERASE = ("ctms", "delete-bulk", "--email", "nobody@example.com", "--yes")


@pytest.mark.parametrize("service", ["serve", "worker"])
def test_an_erasure_before_the_first_call_is_refused(tmp_path: Path, service: str) -> None:
    if service == "serve":
        with serve(tmp_path, **PLUGIN):
            pass
    else:
        once = run_flask("ctms", "worker", "--once", environment=environment_for(tmp_path, **PLUGIN))
        assert once.returncode == 0, once.stderr
    environment = environment_for(tmp_path)

    refused = run_flask(*ERASE, environment=environment)

    assert refused.returncode == 1
    assert "no enabled plugin provides the backend webhook, the deletion handler webhook" in refused.stderr
    for options in ((), ("--deletion-handler",)):
        done = run_flask("ctms", "backends", "forget", "webhook", *options, "--yes", environment=environment)
        assert done.returncode == 0, done.stderr
    erased = run_flask(*ERASE, environment=environment)
    assert erased.returncode == 0, erased.stderr
