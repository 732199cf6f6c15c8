"""A merge at backends and deletion handlers: one deletion of the source and one change of the target."""

from __future__ import annotations

from tests.api.test_history import create
from tests.api.test_merges import merged
from tests.contacts.factories import full
from tests.http import ApiClient
from tests.sync.working import Other, Worker, rows


def test_backends_receive_a_deletion_and_a_change(api: ApiClient, other: Other, worker: Worker) -> None:
    target, source = create(api), create(api, **full(waitlists=[]))
    target_id, source_id = (path.rpartition("/")[2] for path in (target, source))
    worker.push()
    assert other.copies.keys() == {target_id, source_id}
    other.calls.clear()

    contact = merged(api, target, source)["contact"]
    worker.push()
    worker.erase()

    assert [sorted(call) for call in other.calls] == [sorted([target_id, source_id])]
    assert other.gone == [source_id]
    assert other.copies == {target_id: {**contact, "status": "ok"}}
    assert other.erased == [], "the person is still known: a handler would erase the target by its identities"
    assert rows("SELECT FROM erasures") == []


def test_a_dry_run_reaches_no_backend(api: ApiClient, other: Other, worker: Worker) -> None:
    target, source = create(api), create(api)
    worker.push()
    other.calls.clear()

    api.post(f"{target}/merge", {"from": source.rpartition("/")[2], "dry_run": True})
    worker.push()

    assert other.calls == []
