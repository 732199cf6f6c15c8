"""Installs the packages of npm that the tests of TypeScript need, just those of `package-lock.json`.

Run by `tox -e generated-clients`, whose environment has npm.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    programs = Path(sys.executable).parent
    subprocess.run(
        [programs / "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=Path(__file__).parent / "typescript",
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        check=True,
    )
