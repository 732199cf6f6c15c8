"""The HTML page of a report, as a reader sees it."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """The texts, the elements and the rows of tables (section, label, value) of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[tuple[str, list[str]]] = []
        self._heading = ""
        self._inside: list[str] = []
        self.feed(page)
        self.close()

    @property
    def names(self) -> set[str]:
        """The names of all elements."""
        return {name for name, _ in self.elements}

    def value(self, section: str, label: str) -> str:
        """Return the value with a label in the section."""
        (found,) = [cells[1] for heading, cells in self.rows if heading == section and cells[0] == label]
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        if tag == "meta":
            return
        self._inside.append(tag)
        if tag == "tr":
            self.rows.append((self._heading, []))
        elif tag in {"th", "td"}:
            self.rows[-1][1].append("")
        elif tag in {"h2", "h3"}:
            self._heading = ""

    def handle_endtag(self, tag: str) -> None:
        """Leave an element, which must be the innermost one."""
        assert self._inside.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.texts.append(data)
        if {"td", "th"} & set(self._inside):
            self.rows[-1][1][-1] += data if "bdi" in self._inside else data.strip()
        elif {"h2", "h3"} & set(self._inside):
            self._heading += data
