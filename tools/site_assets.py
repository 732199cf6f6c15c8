"""Reject a built site that loads assets from another host: `python -m tools.site_assets FOLDER`.

The site works behind a firewall, and no other host learns who reads it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
"""The attributes of elements that a browser loads without a click."""

# Links that load nothing.
NOT_LOADED = {"alternate", "author", "canonical", "help", "index", "license", "next", "prev", "search"}

_REMOTE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
_IN_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)
_IN_SCRIPT = re.compile(r"""(?:\bimport|\bfrom)\s*\(?\s*["']((?:https?:)?//[^"']+)["']""")


class _Page(HTMLParser):
    """Collects the assets of other hosts in a page's elements, styles and scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._element = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._element = tag
        if tag != "link" or not NOT_LOADED.issuperset(values.get("rel", "").lower().split()):
            for attribute in LOADED.get(tag, ()):
                entries = values.get(attribute, "")
                parts = entries.split(",") if attribute == "srcset" else [entries]
                self.found += [part.split()[0] for part in parts if _REMOTE.match(part)]
        self.found += _IN_STYLE.findall(values.get("style", ""))

    def handle_endtag(self, tag: str) -> None:
        self._element = ""

    def handle_data(self, data: str) -> None:
        if self._element == "style":
            self.found += _IN_STYLE.findall(data)
        elif self._element == "script":
            self.found += _IN_SCRIPT.findall(data)


def in_page(html: str) -> list[str]:
    """Return the URLs on other hosts from which a page loads assets."""
    page = _Page()
    page.feed(html)
    page.close()
    return page.found


def in_site(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file of a site with each URL on another host from which it loads an asset."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".html":
            found = in_page(path.read_text())
        elif path.suffix == ".css":
            found = _IN_STYLE.findall(path.read_text())
        elif path.suffix == ".mjs":
            found = _IN_SCRIPT.findall(path.read_text())
        else:
            continue
        yield from ((path, address) for address in found)


def main(folder: Path) -> int:
    """Report the assets from other hosts; return the exit status."""
    if not (folder / "index.html").is_file():
        sys.stderr.write(f"{folder} holds no site: build it with `tox -e docs-site`\n")
        return 2
    found = list(in_site(folder))
    for path, address in found:
        sys.stderr.write(f"{path.relative_to(folder)} loads {address}: serve it from docs/_static\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
