"""Webhooks over https: the certificate must match the name, whatever address it resolves to."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import which
from threading import Thread

import pytest

from ctms.plugins import ContactState, Done, TryLater
from ctms_plugins.webhook import addresses
from ctms_plugins.webhook.backend import ChangeMessages
from ctms_plugins.webhook.client import WebhookClient
from tests.plugins.test_webhook_addresses import Names
from tests.plugins.webhook_client import OLD
from tests.waiting import timeout_of_requests

GONE = ContactState("an-id", None)
_MAKE = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hooks"

pytestmark = pytest.mark.skipif(which("openssl") is None, reason="certificates are made with openssl")


class _Hooks(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(HTTPServer):
    def handle_error(self, *_: object) -> None:
        """Report nothing: a client that does not trust the certificate disconnects."""


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The certificate of `hooks.example.com`, which is its own authority; its key lies beside it."""
    file = tmp_path / "hooks.pem"
    extension = "subjectAltName=DNS:hooks.example.com"
    made = [*_MAKE.split(), "-addext", extension, "-out", str(file), "-keyout", str(tmp_path / "key.pem")]
    subprocess.run(made, check=True, capture_output=True)
    return file


@pytest.fixture
def port(authority: Path) -> Iterator[int]:
    """The port of a receiver that has the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, authority.with_name("key.pem"))
    with _Server(("127.0.0.1", 0), _Hooks) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("allow_private", [True, False])
@pytest.mark.parametrize(
    ("host", "trusted", "outcome"),
    [
        ("hooks.example.com", True, Done()),
        ("hooks.example.com", False, TryLater(None, "no response (SSLError)")),
        ("others.example.com", True, TryLater(None, "no response (SSLError)")),
    ],
)
def test_the_name_counts(
    *,
    allow_private: bool,
    host: str,
    trusted: bool,
    outcome: object,
    authority: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Names(monkeypatch, ["127.0.0.1"])
    monkeypatch.setattr(addresses, "is_public", lambda _: True)
    client = WebhookClient(
        [OLD], allow_private=allow_private, timeout=timeout_of_requests(), ca_file=authority if trusted else None
    )

    assert ChangeMessages(client, f"https://{host}:{port}").push([GONE], "key") == {"an-id": outcome}
