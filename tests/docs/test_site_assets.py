"""The check of the built site finds each way to load an asset from another host."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import site_assets

CDN = "https://cdn.example.com/x"


@pytest.mark.parametrize(
    "html",
    [
        f'<script src="{CDN}"></script>',
        f'<script SRC="{CDN}"/>',
        '<script src="//cdn.example.com/x"></script>',
        f'<link rel="stylesheet" href="{CDN}">',
        f'<link rel="preload" as="font" href="{CDN}">',
        f'<link rel="alternate stylesheet" href="{CDN}">',
        f'<img src="{CDN}">',
        f'<img src="a.png" srcset="b.png 1x, {CDN} 2x">',
        f'<video poster="{CDN}"></video>',
        f'<iframe src="{CDN}"></iframe>',
        f"<style>@font-face {{ src: url('{CDN}') }}</style>",
        f"<style>@import '{CDN}';</style>",
        f'<p style="background: url({CDN})">x</p>',
        f'<script type="module">import mermaid from "{CDN}";</script>',
        f'<script type="module">const a = await import("{CDN}");</script>',
    ],
)
def test_an_asset_of_another_host_is_found(html: str) -> None:
    (found,) = site_assets.in_page(f"<html><body>{html}</body></html>")

    assert found.endswith("//cdn.example.com/x")


@pytest.mark.parametrize(
    "html",
    [
        f'<a href="{CDN}">x</a>',
        f'<link rel="canonical" href="{CDN}">',
        f'<link rel="next" href="{CDN}">',
        '<script src="_static/x.js"></script>',
        '<img src="data:image/png;base64,//8=">',
        f"<pre>import {CDN}; url({CDN})</pre>",
        f'<script>const home = "{CDN}";</script>',
        '<svg xmlns="http://www.w3.org/2000/svg"><use href="#icon"/></svg>',
    ],
)
def test_pages_without_foreign_assets_are_accepted(html: str) -> None:
    assert site_assets.in_page(html) == []


def test_a_site_is_refused_with_the_file_and_the_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "index.html").write_text("<p>local</p>")
    assert site_assets.main(tmp_path) == 0

    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "site.css").write_text(f"p {{ background: url({CDN}) }}")
    (tmp_path / "_static" / "draw.mjs").write_text(f'import "{CDN}";')
    assert site_assets.main(tmp_path) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(" loads ")[0] for line in errors] == ["_static/draw.mjs", "_static/site.css"]
    assert all(CDN in line for line in errors)


def test_a_folder_without_a_site_is_refused(tmp_path: Path) -> None:
    assert site_assets.main(tmp_path) == 2
