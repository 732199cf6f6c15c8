"""Installs the packages of npm that the tests of TypeScript need, just those of `package-lock.json`.

Run by `tox -e generated-clients`. Without npm it installs nothing: the tests say what is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

if __name__ == "__main__":
    if npm := shutil.which("npm"):
        folder = Path(__file__).parent / "typescript"
        subprocess.run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, check=True)
