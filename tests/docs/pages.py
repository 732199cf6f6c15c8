"""Reading the docs: fenced blocks and the comments before them, and running what is there to be run.

`<!-- run -->` before a block: it is run, after the blocks before it on its page, in one shell.
`<!-- prints -->` before a block: what the last block printed, where `…` stands for anything.
`<!-- command: NAME -->`, `<!-- run: NAME -->`, `<!-- shows: NAME -->`: a test of its own looks for it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_END = "--- the end of a block ---"
_ANYTHING = "…"


@dataclass(frozen=True)
class Block:
    """A fenced block: its text, its language and the comment before it."""

    mark: str
    language: str
    text: str


def name(page: Path) -> str:
    """Return the page's path in the project."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order, without their indentation."""
    return [
        Block(
            found["mark"] or "",
            found["language"],
            re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
        )
        for found in _BLOCK.finditer(page.read_text())
    ]


def marked(page: Path, mark: str) -> str:
    """Return the text of the one block with this mark."""
    (found,) = [block.text for block in blocks(page) if block.mark == mark]
    return found


def parts(page: Path, mark: str) -> tuple[list[Block], list[Block]]:
    """Return the blocks of a page before and after the one with this mark."""
    found = blocks(page)
    (place,) = [index for index, block in enumerate(found) if block.mark == mark]
    return found[:place], found[place + 1 :]


def run(
    page: Path,
    environment: Mapping[str, str],
    folder: Path,
    says: Mapping[str, str] | None = None,
    part: Sequence[Block] | None = None,
    *,
    timeout: float = 300,
) -> None:
    """Run a page's blocks, or a part of them, in one shell in `folder`, and hold what they print to what the page says.

    `says` are words of the page and what stands for them here, such as the address of the service.
    """
    script, expected = ["set -euo pipefail"], []
    for block in blocks(page) if part is None else part:
        if block.mark == "run":
            assert block.language == "bash", f"{name(page)}: only bash is run"
            script.append(f"{block.text}\necho; echo '{_END}'")
            expected.append(_ANYTHING)
        elif block.mark == "prints":
            assert expected, f"{name(page)}: nothing has been run yet"
            expected[-1] = block.text
    assert expected, f"{name(page)} has nothing to run"
    text = "\n".join(script)
    for word, here in (says or {}).items():
        text = text.replace(word, here)
    done = subprocess.run(
        ["bash", "-c", text],
        env=dict(environment),
        cwd=folder,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{name(page)}: {done.stdout}\n{done.stderr}"
    printed = done.stdout.split(_END)[:-1]
    for wanted, found in zip(expected, printed, strict=True):
        assert matches(wanted, found), f"{name(page)} says\n{wanted}\nand this was printed:\n{found}"


def matches(wanted: str, found: str) -> bool:
    """Compare, `…` standing for anything, white space at both ends for nothing."""
    parts = [re.escape(part) for part in wanted.strip().split(_ANYTHING)]
    return re.fullmatch(".*?".join(parts), found.strip(), re.DOTALL) is not None
