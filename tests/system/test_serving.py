"""`flask ctms serve` as its users run it: the first start, the end, concurrent starts, and refusals."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import requests
from sqlalchemy.engine import make_url

from ctms.cli.first_requests import first_requests
from ctms.database.pool import libpq_url
from tests.conftest import SECRET_KEY, empty_database
from tests.contacts.factories import minimal
from tests.docs.messages import is_documented
from tests.prepared import prepare
from tests.serving import (
    FLASK,
    START_TIMEOUT_IN_SECONDS,
    STOP_TIMEOUT_IN_SECONDS,
    Served,
    end,
    environment_for,
    free_port,
    run_flask,
    serve,
    wait_for_checks,
    wait_until_up,
)


def postgres_of(folder: Path) -> list[psutil.Process]:
    """The PostgreSQL server whose data lie in the folder, if it runs."""
    pid_file = folder / "postgresql" / "postmaster.pid"
    pid = int(pid_file.read_text().splitlines()[0]) if pid_file.exists() else 0
    return [psutil.Process(pid)] if pid and psutil.pid_exists(pid) else []


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One clear line on standard error, exit status 1, no traceback."""
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("Error: ")
    for word in words:
        assert word in lines[0]
    assert is_documented(lines[0]), lines[0]
    assert done.stdout.count("\n") <= 1, done.stdout


class TestFirstStart:
    def test_it_gives_a_working_service(self, served: Served) -> None:
        session = served.session()

        created = session.post(f"{served.url}/ctms", json=minimal(), timeout=60)
        read = session.get(f"{served.url}{created.headers['Location']}", timeout=60)

        assert created.status_code == 201
        assert read.json() == created.json()

    def test_it_prints_the_secret_once_and_lines_that_work(self, served: Served, tmp_path: Path) -> None:
        output = served.output.read_text()
        assert output.count(served.client_secret) == 2  # by itself, and in the line to copy
        curl = tmp_path / "curl"  # as it was before version 7.82
        curl.write_text('#!/bin/sh\ncase " $* " in *" --json "*) exit 2 ;; esac\nPATH=${PATH#*:} exec curl "$@"\n')
        curl.chmod(0o755)

        self.works(served, output[output.index("TOKEN=") : output.index("CTMS: serving")], tmp_path)

    def test_without_curl_the_lines_are_for_python(
        self, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))

        script = first_requests(served.url, served.client_id, served.client_secret)

        assert "curl" not in script
        monkeypatch.undo()
        self.works(served, script, tmp_path)

    def works(self, served: Served, script: str, folder: Path) -> None:
        """Run the commands that the first start prints: they create a contact and find it."""
        served.session().delete(f"{served.url}/ctms/jane@example.com", timeout=60)  # another one, of another test
        done = subprocess.run(
            ["bash", "-eu", "-c", script],
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count('"primary_email":"jane@example.com"') == 2, done.stdout

    def test_options_override_variables(self, tmp_path: Path) -> None:
        data, port = tmp_path / "data", free_port()
        prepare(data, FLASK, environment_for(data))
        (tmp_path / "workers").write_text("3")
        environment = environment_for(
            tmp_path / "unused", PORT="1", HOST="192.0.2.1", CTMS_WORKERS_FILE=str(tmp_path / "workers")
        )
        options = ("--port", str(port), "--host", "127.0.0.1", "--workers", "1", "--data-dir", "data")

        line = self.announced(f"http://127.0.0.1:{port}", environment, *options, folder=tmp_path)

        assert line.startswith(f"CTMS: serving on http://127.0.0.1:{port} with 1 process; ")
        assert (data / "secret-key").exists()
        assert not (tmp_path / "unused").exists()

    @pytest.mark.parametrize(
        ("host", "reached_at", "workers"),
        [("127.0.0.1", "127.0.0.1", "1"), ("0.0.0.0", "127.0.0.1", "2")],  # noqa: S104
    )
    def test_it_announces_serving_when_the_port_responds(
        self, tmp_path: Path, host: str, reached_at: str, workers: str
    ) -> None:
        prepare(tmp_path, FLASK, environment_for(tmp_path))
        port = free_port()
        environment = environment_for(tmp_path, PORT=str(port), CTMS_WORKERS=workers, HOST=host)

        line = self.announced(f"http://{reached_at}:{port}", environment)

        counted = "1 process;" if workers == "1" else f"{workers} processes;"
        assert line.startswith(f"CTMS: serving on http://{host}:{port} with {counted} docs at ")

    def announced(self, url: str, environment: dict[str, str], *options: str, folder: Path | None = None) -> str:
        """Start the service, return the line that announces it, and check that it responds immediately."""
        process = subprocess.Popen(
            [FLASK, "ctms", "serve", *options], env=environment, stdout=subprocess.PIPE, text=True, cwd=folder
        )
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if line.startswith("CTMS: serving on "))
            assert requests.get(f"{url}/__lbheartbeat__", timeout=60).status_code == 200
        finally:
            end(process)
            process.stdout.close()
        return line

    def test_nothing_secret_is_readable_by_others(self, served: Served) -> None:
        assert (served.folder / "secret-key").stat().st_mode & 0o077 == 0
        assert (served.folder / "postgresql").stat().st_mode & 0o077 == 0


class TestEnd:
    def slow_request(
        self, running: Served, answers: list[Any]
    ) -> tuple[threading.Thread, psycopg.Connection[tuple[Any, ...]]]:
        """Start a request and wait until it waits; returns its thread, and the connection that holds its contact."""
        session = running.session()
        created = session.post(f"{running.url}/ctms", json=minimal(), timeout=60)
        path = created.headers["Location"]
        url = (running.folder / "postgresql").as_posix()
        blocker = psycopg.connect(f"postgresql://postgres@/postgres?host={url}")
        blocker.execute("SELECT FROM emails WHERE email_id = %s FOR UPDATE", (path.removeprefix("/ctms/"),))

        def patch() -> None:
            answers.append(session.patch(f"{running.url}{path}", json={"email": {"first_name": "J"}}, timeout=60))

        waiting = threading.Thread(target=patch)
        waiting.start()
        give_up = time.monotonic() + 200
        while blocker.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        ).fetchone() == (0,):
            assert time.monotonic() < give_up
            time.sleep(0.05)
        return waiting, blocker

    @pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C", "supervisor"])
    def test_requests_in_flight_are_finished_and_all_stops(self, tmp_path: Path, how: str) -> None:
        answers: list[Any] = []
        port = free_port()
        environment = environment_for(
            tmp_path, PORT=str(port), CTMS_WORKERS="2", CTMS_DB_STATEMENT_TIMEOUT_IN_SECONDS="60"
        )
        output = tmp_path / "output.txt"
        ours, theirs = pty.openpty()
        with output.open("w") as file:
            process = subprocess.Popen(
                [FLASK, "ctms", "serve"],
                env=environment,
                stdin=theirs,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,  # with a group of its own, as a shell gives it
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_up(url, process, output)
            found = re.search(r"client secret: +(secret_\S+)", output.read_text())
            assert found
            running = Served(url, tmp_path, process, output, environment, client_secret=found[1])
            children = psutil.Process(process.pid).children(recursive=True) + postgres_of(tmp_path)
            assert postgres_of(tmp_path)
            waiting, blocker = self.slow_request(running, answers)
            idle = [requests.Session() for _ in range(6)]
            for client in idle:  # kept-alive connections do not delay the end
                client.get(f"{url}/__lbheartbeat__", timeout=60)
            if how == "SIGTERM":
                process.send_signal(signal.SIGTERM)
            elif how == "Ctrl-C":
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group receives it
            else:
                os.killpg(process.pid, signal.SIGTERM)  # as a supervisor may do

            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            blocker.close()  # now the request can be finished

            assert process.wait(timeout=STOP_TIMEOUT_IN_SECONDS) == 0, output.read_text()
            waiting.join(timeout=60)
            assert [answer.status_code for answer in answers] == [200]
            assert answers[0].json()["email"]["first_name"] == "J"
            _, alive = psutil.wait_procs(children, timeout=60)
            assert not alive
            assert not postgres_of(tmp_path)
            assert "Traceback" not in output.read_text()
            assert "PATCH" in output.read_text(), "the last request is missing in the log"
            for client in idle:
                client.close()
        finally:
            os.close(ours)
            os.close(theirs)
            if process.poll() is None:
                process.kill()

    def test_a_second_start_finds_the_data_and_shows_no_secret(self, tmp_path: Path) -> None:
        with serve(tmp_path) as first:
            session = first.session()
            created = session.post(f"{first.url}/ctms", json=minimal(), timeout=60)
            assert first.stop() == 0

        with serve(tmp_path) as second:
            assert "secret_" not in second.output.read_text()
            again = requests.get(
                f"{second.url}{created.headers['Location']}",
                headers={"Authorization": str(session.headers["Authorization"])},  # a token of the first one
                timeout=60,
            )
            assert again.json() == created.json()


class TestTwoAtOnce:
    def test_on_one_port_one_fails_and_the_other_serves(self, tmp_path: Path) -> None:
        port = free_port()
        environment = environment_for(tmp_path, PORT=str(port), CTMS_WORKERS="1")
        outputs = [tmp_path / "first.txt", tmp_path / "second.txt"]
        processes = []
        for output in outputs:
            with output.open("w") as file:
                processes.append(
                    subprocess.Popen(
                        [FLASK, "ctms", "serve"], env=environment, stdout=file, stderr=subprocess.STDOUT, text=True
                    )
                )
        try:
            give_up = time.monotonic() + START_TIMEOUT_IN_SECONDS
            while all(process.poll() is None for process in processes):
                assert time.monotonic() < give_up
                time.sleep(0.1)
            loser = 0 if processes[0].poll() is not None else 1
            assert processes[loser].returncode == 1
            (line,) = outputs[loser].read_text().strip().splitlines()
            assert line.startswith(f"Error: port {port} on 127.0.0.1 cannot be used")
            winner = 1 - loser
            wait_until_up(f"http://127.0.0.1:{port}", processes[winner], outputs[winner])
        finally:
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(timeout=STOP_TIMEOUT_IN_SECONDS) == 0

    def test_on_two_ports_both_serve_and_one_outlives_the_other(self, tmp_path: Path) -> None:
        environments = [environment_for(tmp_path, PORT=str(free_port()), CTMS_WORKERS="1") for _ in range(2)]
        processes: list[subprocess.Popen[str]] = []
        outputs = [tmp_path / "first.txt", tmp_path / "second.txt"]
        for environment, output in zip(environments, outputs, strict=True):
            with output.open("w") as file:
                processes.append(
                    subprocess.Popen(
                        [FLASK, "ctms", "serve"], env=environment, stdout=file, stderr=subprocess.STDOUT, text=True
                    )
                )
        try:
            urls = [f"http://127.0.0.1:{environment['PORT']}" for environment in environments]
            for url, process, output in zip(urls, processes, outputs, strict=True):
                wait_until_up(url, process, output)
            shown = [re.findall(r"client secret: +(secret_\S+)", output.read_text()) for output in outputs]
            (secret,) = shown[0] + shown[1]
            token = requests.post(f"{urls[0]}/token", auth=("id_admin", secret), timeout=60).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}

            processes[0].send_signal(signal.SIGTERM)
            assert processes[0].wait(timeout=STOP_TIMEOUT_IN_SECONDS) == 0

            answer = requests.post(f"{urls[1]}/ctms", json=minimal(), headers=headers, timeout=60)
            assert answer.status_code == 201
        finally:
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(timeout=STOP_TIMEOUT_IN_SECONDS) == 0
        assert not postgres_of(tmp_path)


class TestRefused:
    def serve(self, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        variables = {"PORT": str(free_port()), **variables}
        return run_flask("ctms", "serve", environment=environment_for(folder, **variables))

    def test_a_port_in_use(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            assert_refused(self.serve(tmp_path, PORT=port), port, "in use")
        assert not (tmp_path / "postgresql").exists()

    def test_a_host_that_is_not_ours(self, tmp_path: Path) -> None:
        assert_refused(self.serve(tmp_path, HOST="192.0.2.1"), "192.0.2.1")
        for name in ("no-such-host.invalid", "a..b"):
            assert_refused(self.serve(tmp_path, HOST=name), f"HOST {name} cannot be resolved")

    def test_a_missing_or_short_key(self, tmp_path: Path, postgres: str) -> None:
        assert_refused(self.serve(tmp_path, CTMS_DB_URL=postgres), "CTMS_SECRET_KEY", "missing")
        done = self.serve(tmp_path, CTMS_DB_URL=postgres, CTMS_SECRET_KEY="short-and-secret")
        assert_refused(done, "CTMS_SECRET_KEY", "too short")
        assert "short-and-secret" not in done.stderr

    def test_several_bad_settings_are_named_at_once(self, tmp_path: Path) -> None:
        done = self.serve(tmp_path, PORT="eighty", CTMS_DB_POOL_SIZE="0", CTMS_USE_MOZLOG="perhaps")

        assert_refused(done, "PORT must", "CTMS_DB_POOL_SIZE must", "CTMS_USE_MOZLOG must")

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://ctms:hidden@127.0.0.1:1/ctms",
            "postgresql://ctms:hidden@no-such-host.invalid/ctms",
            "no such database",
        ],
    )
    def test_a_database_that_cannot_be_reached(self, tmp_path: Path, postgres: str, url: str) -> None:
        if url == "no such database":
            url = make_url(postgres).set(database="no_such").render_as_string(hide_password=False)

        done = self.serve(tmp_path, CTMS_DB_URL=url, CTMS_SECRET_KEY=SECRET_KEY)

        assert_refused(done, "the database cannot be reached")
        assert "hidden" not in done.stderr

    def test_a_database_that_is_not_migrated(self, tmp_path: Path, postgres: str, worker_id: str) -> None:
        variables = {"CTMS_DB_URL": empty_database(postgres, f"serving_{worker_id}"), "CTMS_SECRET_KEY": SECRET_KEY}

        assert_refused(self.serve(tmp_path, **variables), "revision none", "`flask db upgrade`")
        environment = environment_for(tmp_path, **variables)
        assert run_flask("db", "upgrade", "2b00e4069aea", environment=environment).returncode == 0
        assert_refused(self.serve(tmp_path, **variables), "revision 2b00e4069aea", "`flask db upgrade`")
        with psycopg.connect(libpq_url(variables["CTMS_DB_URL"])) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'unheard-of'")
        assert_refused(self.serve(tmp_path, **variables), "revision unheard-of")

    def test_a_folder_that_cannot_be_used(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        assert_refused(self.serve(tmp_path / "file"), "CTMS_DATA_DIR", "is a file: set CTMS_DATA_DIR to a folder")


class TestOwnServer:
    def test_an_external_server(self, tmp_path: Path, postgres: str, worker_id: str) -> None:
        url = empty_database(postgres, f"own_{worker_id}")
        variables = {"CTMS_DB_URL": url, "CTMS_SECRET_KEY": SECRET_KEY}
        assert run_flask("db", "upgrade", environment=environment_for(tmp_path, **variables)).returncode == 0

        with serve(tmp_path, **variables) as running:
            wait_for_checks(running.url, database="ok", migrations="ok", erasure_key="warning")
            assert "CTMS: warning: CTMS_ERASURE_KEY is not set: " in running.output.read_text()
            assert running.stop() == 0
        with serve(tmp_path, **variables, CTMS_ERASURE_KEY="k" * 32) as running:
            wait_for_checks(running.url, database="ok", migrations="ok")
            assert "CTMS_ERASURE_KEY" not in running.output.read_text()
            assert "secret_" not in running.output.read_text()
            assert not (tmp_path / "postgresql").exists()
            assert running.stop() == 0
        with psycopg.connect(libpq_url(url)) as connection:  # which keeps running
            assert connection.execute("SELECT count(*) FROM emails").fetchone() == (0,)
