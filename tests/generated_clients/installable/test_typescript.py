"""The tests of the TypeScript client, `clients/typescript/test`, which are compiled with the strictest types."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.generated_clients.conftest import run
from tests.serving import Served
from tools.clients import TYPESCRIPT

TESTS = sorted(path.name.removesuffix(".test.ts") for path in (TYPESCRIPT / "test").glob("*.test.ts"))


@pytest.fixture(scope="session")
def compiled() -> Path:
    """The folder with the compiled tests."""
    run("npx", "tsc", "--project", ".", cwd=TYPESCRIPT)
    return TYPESCRIPT / "build" / "test"


@pytest.mark.parametrize("name", TESTS)
def test_typescript(compiled: Path, service: Served, name: str) -> None:
    variables = {
        "CTMS_TEST_URL": service.url,
        "CTMS_TEST_CLIENT_ID": service.client_id,
        "CTMS_TEST_CLIENT_SECRET": service.client_secret,
    }
    printed = run("node", "--test", str(compiled / f"{name}.test.js"), cwd=TYPESCRIPT, **variables)

    assert "fail 0" in printed
    assert "skipped 0" in printed
