"""What the tests of `deploy/` share: secrets as `create-secrets` creates them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.deploy.manifests import DEPLOY


@pytest.fixture(scope="session")
def created_secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The contents of the secrets, by name."""
    folder = Path(tmp_path_factory.mktemp("created")) / "secrets"
    subprocess.run([DEPLOY / "create-secrets", folder, "db.example.com:5433"], check=True, stdout=subprocess.DEVNULL)
    assert folder.stat().st_mode & 0o777 == 0o700
    return {path.name: path.read_text() for path in folder.iterdir()}
