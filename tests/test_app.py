"""The app as a whole."""

from __future__ import annotations

import pytest

from tests.http import ApiClient, assert_error


@pytest.mark.parametrize("path", ["/ctms//b", "/updates/", "/nowhere"])
def test_malformed_paths_are_not_found_and_not_redirected(api: ApiClient, path: str) -> None:
    assert_error(api.put(path, {}), 404, "Not Found")
