"""Test support for plugin authors: fixtures, factories and contract suites. Requires `pip install 'ctms[testing]'`.

The fixtures are those of `ctms.testing.fixtures`, which tests request by name. The contract suites are classes to
subclass: they test what the service expects of a plugin.
"""

from __future__ import annotations

import pytest

# Before they are imported: rewritten assertions report the compared values, as in tests.
pytest.register_assert_rewrite(
    "ctms.testing.clients",
    "ctms.testing.contracts",
    "ctms.testing.fixtures",
    "ctms.testing.http",
)

from ctms.testing.commands import CommandRunner  # noqa: E402
from ctms.testing.contacts import contact_body  # noqa: E402
from ctms.testing.contracts import BackendContract, DeletionHandlerContract, NewsletterContract, WaitlistContract  # noqa: E402
from ctms.testing.http import Answer, ApiClient, assert_error  # noqa: E402
from ctms.testing.receivers import FakeBackend, FakeDeletionHandler  # noqa: E402
from ctms.testing.stub_server import ReceivedRequest, Reply, StubServer  # noqa: E402

__all__ = [
    "Answer",
    "ApiClient",
    "BackendContract",
    "CommandRunner",
    "DeletionHandlerContract",
    "FakeBackend",
    "FakeDeletionHandler",
    "NewsletterContract",
    "ReceivedRequest",
    "Reply",
    "StubServer",
    "WaitlistContract",
    "assert_error",
    "contact_body",
]
