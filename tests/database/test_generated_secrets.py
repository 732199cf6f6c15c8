"""Generated secrets: created once, readable by the user only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ctms.database.generated_secrets import load_or_create_secret


def test_a_secret_is_created_once_and_readable_by_the_user_only(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: load_or_create_secret(folder, "key"), range(32)))

    (secret,) = found
    assert len(secret) >= 32
    assert load_or_create_secret(folder, "key") == secret
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == ["key"]
    assert load_or_create_secret(folder, "other", lambda: "made") == "made"
