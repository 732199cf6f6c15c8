"""The thin thread: first command, POST and GET over HTTP."""

from __future__ import annotations

from tests.contacts.factories import minimal
from tests.serving import Served


def test_the_first_command_gives_a_working_service(served: Served) -> None:
    session = served.session()

    created = session.post(f"{served.url}/ctms", json=minimal())
    read = session.get(f"{served.url}{created.headers['Location']}")

    assert created.status_code == 201
    assert read.json() == created.json()
