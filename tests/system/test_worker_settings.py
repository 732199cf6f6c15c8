"""The worker as a command: without plugins, for exports, and with a backend whose settings are wrong."""

from __future__ import annotations

from pathlib import Path

from tests.serving import environment_for, run_flask, serve, wait_for_checks


def test_without_a_plugin_it_has_nothing_to_do(tmp_path: Path) -> None:
    once = run_flask("ctms", "worker", "--once", environment=environment_for(tmp_path))

    assert once.returncode == 0, once.stderr
    assert "no receivers: no plugin registers a backend or a deletion handler" in once.stdout + once.stderr


def test_it_says_that_it_runs_exports(tmp_path: Path) -> None:
    environment = environment_for(tmp_path, CTMS_EXPORT_DIR=str(tmp_path / "exports"))

    once = run_flask("ctms", "worker", "--once", environment=environment)

    assert once.returncode == 0, once.stderr
    assert "CTMS: working for exports\n" in once.stderr


def test_a_backend_whose_file_cannot_be_written_stops_no_other_command(tmp_path: Path) -> None:
    environment = environment_for(tmp_path, CTMS_PLUGIN_JSONL_PATH=str(tmp_path / "nowhere" / "contacts.jsonl"))
    warning = "CTMS: warning: jsonl: the folder of CTMS_PLUGIN_JSONL_PATH does not exist"

    once = run_flask("ctms", "worker", "--once", environment=environment)
    listed = run_flask("ctms", "clients", "list", environment=environment)

    assert (once.returncode, listed.returncode) == (0, 0), once.stderr + listed.stderr
    assert warning in once.stderr
    assert "warning" not in listed.stderr
    with serve(tmp_path, CTMS_PLUGIN_JSONL_PATH=str(tmp_path / "nowhere" / "contacts.jsonl")) as running:
        wait_for_checks(running.url, database="ok", migrations="ok", receivers="ok", jsonl="warning")
