"""Names of tests: the same in every process of a run, which collect the tests at different times."""

from __future__ import annotations

import gzip

import pytest


@pytest.mark.parametrize("content", [gzip.compress(b"a list"), gzip.compress(b"another")])
def test_the_time_in_a_compressed_parameter_is_in_no_name(content: bytes, request: pytest.FixtureRequest) -> None:
    assert content
    assert request.node.name.partition("[")[2] in {"content0]", "content1]"}
