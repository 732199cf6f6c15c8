"""Paths of the files that CTMS includes, in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
MIGRATIONS = next(
    folder for folder in (PACKAGE.parent / "migrations", PACKAGE / "_migrations") if (folder / "env.py").exists()
)
