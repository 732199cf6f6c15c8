"""The documentation site: the Markdown files of the repository, built by Sphinx (`tox -e docs-site`).

The source folder is the root of the repository, so that a link works both on a forge and on the site. The navigation
comes from the lists of the index pages, so that each page is listed in one place.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import tomllib
from pathlib import Path

import flask_swagger_ui
from sphinx.application import Sphinx

from ctms.api.openapi import current_document
from ctms.app import create_app
from ctms.settings import Settings

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

project = "CTMS"
author = "The CTMS authors"
version = release = PROJECT["version"]
language = "en"

root_doc = "README"
include_patterns = ["*.md", "docs/**.md"]
exclude_patterns = [".*", "build", "node_modules"]
extensions = ["myst_parser", "sphinx_copybutton", "sphinxcontrib.mermaid"]

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
# Examples leave parts out (`…`), which their languages do not know.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"CTMS {version}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_use_index = False
html_show_copyright = False
mermaid_use_local = "mermaid.mjs"
mermaid_fullscreen_button = "+"
copybutton_exclude = ".linenos, .gp, .go"

INDEX = "docs/README"
PROJECT_PAGES = ("CHANGELOG", "CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT")
OPENAPI_PAGE = "docs/reference/openapi"
SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"
SWAGGER_UI_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_PAGE_LINK = re.compile(r"\]\(([^)#:\s]+)\.md\)")


def _toctree(caption: str, pages: list[str]) -> str:
    option = f":caption: {caption}\n" if caption else ""
    return "\n".join(["\n```{toctree}", f":hidden:\n{option}", *(f"/{page}" for page in pages), "```\n"])


def _linked_pages(docname: str, text: str) -> list[str]:
    folder = posixpath.dirname(docname)
    return [posixpath.normpath(posixpath.join(folder, link)) for link in _PAGE_LINK.findall(text)]


def _navigation() -> str:
    """Return the table of contents of the site, one part for each section of the index."""
    _, *sections = _SECTION.split((ROOT / f"{INDEX}.md").read_text())
    parts = [_toctree("", [INDEX])]
    parts += [
        _toctree(caption, _linked_pages(INDEX, text))
        for caption, text in zip(sections[::2], sections[1::2], strict=True)
    ]
    return "".join([*parts, _toctree("Project", list(PROJECT_PAGES))])


def add_navigation(_: Sphinx, docname: str, source: list[str]) -> None:
    """Add the table of contents to the start page and to each index page."""
    if docname == root_doc:
        source[0] += _navigation()
    elif docname.endswith("/README") and docname != INDEX:
        source[0] += _toctree("", [page for page in _linked_pages(docname, source[0]) if _is_below(page, docname)])


def _is_below(page: str, index: str) -> bool:
    return page.startswith(f"{posixpath.dirname(index)}/")


def add_swagger_ui(app: Sphinx, pagename: str, *_: object) -> None:
    """Load Swagger UI on the page that shows the OpenAPI document."""
    if pagename == OPENAPI_PAGE:
        app.add_css_file("swagger-ui.css")
        app.add_js_file("swagger-ui-bundle.js")
        app.add_js_file("openapi.js")


def write_assets(app: Sphinx, exception: Exception | None) -> None:
    """Write the OpenAPI document, the files of Swagger UI and the start page under its usual name."""
    if exception is not None:
        return
    static = app.outdir / "_static"
    for name in SWAGGER_UI_FILES:
        shutil.copyfile(SWAGGER_UI / name, static / name)
    service = create_app(Settings(db_url="postgresql://127.0.0.1:1/none", secret_key="-" * 32, use_mozlog=False))
    with service.app_context():
        (static / "openapi.json").write_text(current_document())
    shutil.copyfile(app.outdir / "README.html", app.outdir / "index.html")


def setup(app: Sphinx) -> None:
    """Connect the handlers above to the build."""
    app.connect("source-read", add_navigation)
    app.connect("html-page-context", add_swagger_ui)
    app.connect("build-finished", write_assets)
