"""A backend has one lane for each call that may run at the same time."""

from __future__ import annotations

from ctms.hooks.receivers import Backend
from ctms.outbox.lanes import BACKEND, Lane, lanes_of
from tests.sync.working import OTHER


def test_a_backend_has_as_many_lanes_as_calls_may_run_at_once() -> None:
    lanes = lanes_of(BACKEND, Backend(name="mail", implementation=OTHER, concurrency=2))

    assert lanes == [Lane(BACKEND, "mail", 0), Lane(BACKEND, "mail", 1)]
    assert [lane.lock for lane in lanes] == ["backend:mail:0", "backend:mail:1"]
