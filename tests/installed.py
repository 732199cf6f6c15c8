"""Programs of the system that tests run, and that pip cannot install."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED_VARIABLE = "CTMS_TEST_REQUIRE_PROGRAMS"


def needs(*programs: str) -> pytest.MarkDecorator:
    """Return the mark of tests that run these programs: they are skipped where one is missing.

    With the variable, which `.ci/run` sets, nothing is skipped: the tests run, and fail.
    """
    missing = [name for name in programs if shutil.which(name) is None]
    skips = bool(missing) and not os.environ.get(REQUIRED_VARIABLE)
    return pytest.mark.skipif(skips, reason=f"not installed: {', '.join(missing)}")
