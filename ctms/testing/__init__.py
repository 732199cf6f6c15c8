"""What plugin authors test with: fixtures, factories and contract suites. Needs `pip install 'ctms[testing]'`.

The fixtures are those of `ctms.testing.fixtures`, which a project's tests ask for by name. The contract suites are
classes to subclass: what they hold a plugin to is what the service expects of it.
"""

from __future__ import annotations

import pytest

# Before they are imported: their assertions are to say what was found, as those of the tests do.
pytest.register_assert_rewrite(
    "ctms.testing.clients",
    "ctms.testing.contracts",
    "ctms.testing.fixtures",
    "ctms.testing.http",
)

from ctms.testing.commands import CommandRunner  # noqa: E402
from ctms.testing.contacts import contact_body  # noqa: E402
from ctms.testing.contracts import BackendContract, DeletionHandlerContract, WaitlistContract  # noqa: E402
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
    "ReceivedRequest",
    "Reply",
    "StubServer",
    "WaitlistContract",
    "assert_error",
    "contact_body",
]
