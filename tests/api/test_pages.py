"""`/docs`, `/redoc` and their assets. A browser without internet access loads them in `.ci/docs-page`."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests
from flask import Flask

from ctms.api import pages
from ctms.api.pages import ASSETS, FILES, assets_version
from tests.http import Answer, ApiClient, assert_error
from tests.serving import Served

PAGES = ("/docs", "/redoc")
LINK = re.compile(r'(?:src|href|spec-url)="([^"]+)"')
TYPES = {".css": "text/css", ".js": "text/javascript", ".png": "image/png", ".json": "application/json"}


def links(page: Answer) -> list[str]:
    found = LINK.findall(page.text)
    assert len(found) > 2
    return found


@pytest.mark.parametrize("path", PAGES)
class TestPage:
    def test_all_that_it_loads_is_there(self, app: Flask, anonymous: ApiClient, path: str) -> None:
        page = anonymous.get(path)

        assert page.status_code == 200
        assert page.content_type == "text/html; charset=utf-8"
        for link in links(page):
            loaded = app.test_client().get(urljoin(path, link))
            assert loaded.status_code == 200, link
            assert loaded.mimetype == TYPES[Path(link).suffix]

    def test_all_that_it_loads_is_below_the_same_prefix(self, anonymous: ApiClient, path: str) -> None:
        for link in links(anonymous.get(path)):
            assert urljoin(f"https://example.com/some/prefix{path}", link).startswith(
                "https://example.com/some/prefix/"
            )

    def test_it_may_load_from_its_own_service_only(self, anonymous: ApiClient, path: str) -> None:
        policy = dict(
            directive.split(" ", 1) for directive in anonymous.get(path).headers["Content-Security-Policy"].split("; ")
        )

        assert policy.pop("default-src") == "'none'"
        assert policy["script-src"] == "'self'"
        allowed = {source for sources in policy.values() for source in sources.split()}
        assert allowed == {"'self'", "'none'", "'unsafe-inline'", "data:", "blob:"}

    def test_it_is_asked_for_anew_so_that_a_release_shows(self, anonymous: ApiClient, path: str) -> None:
        assert anonymous.get(path).headers["Cache-Control"] == "no-cache"


class TestAssets:
    @pytest.mark.parametrize("name", FILES)
    def test_versioned_urls_are_cached_permanently(self, app: Flask, name: str) -> None:
        answer = app.test_client().get(f"/docs/assets/{assets_version()}/{name}")

        assert answer.data == FILES[name].read_bytes()
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    def test_an_address_of_another_release_works_but_is_not_kept(self, anonymous: ApiClient) -> None:
        answer = anonymous.get("/docs/assets/another/docs.js")

        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-cache"

    def test_a_client_with_the_current_file_gets_304(self, anonymous: ApiClient) -> None:
        path = f"/docs/assets/{assets_version()}/docs.js"
        etag = anonymous.get(path).headers["ETag"]

        assert anonymous.get(path, headers={"If-None-Match": etag}).status_code == 304

    @pytest.mark.parametrize("name", ["docs.html", "redoc.LICENSE.txt", "..", "%2e%2e%2fpages.py", "index.html"])
    def test_nothing_else_is_served(self, anonymous: ApiClient, name: str) -> None:
        assert_error(anonymous.get(f"/docs/assets/{assets_version()}/{name}"), 404, "Not Found")

    def test_the_version_is_another_when_a_file_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = assets_version()
        changed = tmp_path / "docs.js"
        changed.write_bytes(FILES["docs.js"].read_bytes() + b" ")
        monkeypatch.setitem(pages.FILES, "docs.js", changed)

        assert assets_version.__wrapped__() != before

    def test_redoc_has_its_licence_beside_it_and_loads_no_logo(self) -> None:
        licence = (ASSETS / "redoc.LICENSE.txt").read_text()

        assert re.match(r"Redoc \d+\.\d+\.\d+, ", licence)
        assert "The MIT License" in licence
        assert "cdn.redoc.ly" not in (ASSETS / "redoc.standalone.js").read_text()


def test_files_arrive_complete_over_http(served: Served) -> None:
    for name, path in FILES.items():
        answer = requests.get(f"{served.url}/docs/assets/{assets_version()}/{name}", timeout=30)
        assert answer.status_code == 200
        assert answer.content == path.read_bytes()
    assert requests.get(served.url, timeout=30, allow_redirects=True).url == f"{served.url}/docs"
