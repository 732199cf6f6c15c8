"""Prometheus and InfluxDB as operators run them, with the files of `deploy/monitoring`, on ports and folders of a test.

The programs are those of Debian's packages `prometheus` and `influxdb`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import requests
import yaml

from tests.installed import needs
from tests.monitoring.definitions import FOLDER
from tests.serving import free_port
from tests.waiting import TIMEOUT_IN_SECONDS, until

needs_programs = needs("prometheus", "promtool", "influxd")


@dataclass
class InfluxDB:
    """A running InfluxDB with the database that Prometheus writes to."""

    address: str

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Ask in InfluxQL; returns the series."""
        answer = requests.post(f"http://{self.address}/query", {"db": "ctms", "q": query}, timeout=30)
        answer.raise_for_status()
        (result,) = answer.json()["results"]
        assert "error" not in result, result
        found: list[dict[str, Any]] = result.get("series", [])
        return found


@dataclass
class Prometheus:
    """A running Prometheus."""

    address: str

    def get(self, path: str, **parameters: Any) -> Any:
        """Ask its API; returns `data`."""
        answer = requests.get(f"http://{self.address}/api/v1/{path}", parameters, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Ask for values of now; returns the series."""
        found: list[dict[str, Any]] = self.get("query", query=query)["result"]
        return found

    def ask_range(self, query: str, start: float, end: float) -> list[dict[str, Any]]:
        """Ask for values of a time; returns the series."""
        found: list[dict[str, Any]] = self.get("query_range", query=query, start=start, end=end, step=1)["result"]
        return found

    def up(self) -> dict[str, float]:
        """Return whether each target of CTMS answers, by its address."""
        found = self.ask('up{job=~"ctms-.*"}')
        return {one["metric"]["instance"]: float(one["value"][1]) for one in found}


@contextmanager
def influxdb(folder: Path) -> Iterator[InfluxDB]:
    """Run InfluxDB with our configuration, and set it up as the docs have it."""
    address = f"127.0.0.1:{free_port()}"
    text = (FOLDER / "influxdb" / "influxdb.conf").read_text()
    text = put(text, "127.0.0.1:8086", address)
    text = put(text, "127.0.0.1:8088", f"127.0.0.1:{free_port()}")
    text = put(text, "/var/lib/influxdb", str(folder / "influxdb"))
    configuration = folder / "influxdb.conf"
    configuration.write_text(text)
    with running(["influxd", "-config", str(configuration)], f"http://{address}/ping", folder / "influxdb.txt"):
        database = InfluxDB(address)
        for statement in (FOLDER / "influxdb" / "setup.influxql").read_text().splitlines():
            database.ask(statement)
        yield database


@contextmanager
def prometheus(
    folder: Path,
    database: InfluxDB,
    targets: Mapping[str, Mapping[str, list[str]]],
    alertmanager: str | None = None,
) -> Iterator[Prometheus]:
    """Run Prometheus with our configuration and rules; `targets` are addresses by job and environment.

    It scrapes every second. With an Alertmanager, at that address, rules raise their alerts at once.
    """
    home = folder / "prometheus"
    shutil.copytree(FOLDER / "prometheus", home)
    address = f"127.0.0.1:{free_port()}"
    text = (home / "prometheus.yml").read_text()
    for name in ("scrape_interval", "evaluation_interval"):
        text = put(text, f"{name}: 15s", f"{name}: 1s")
    text = put(text, "127.0.0.1:9090", address)
    text = put(text, "127.0.0.1:9093", alertmanager or f"127.0.0.1:{free_port()}")
    if alertmanager:
        for rules in (home / "rules").glob("*.yml"):
            rules.write_text(re.sub(r"for: \d+m", "for: 0m", rules.read_text()))
    text = put(text, "127.0.0.1:8086", database.address)
    (home / "prometheus.yml").write_text(text)
    for job, environments in targets.items():
        groups = [{"targets": found, "labels": {"environment": name}} for name, found in environments.items()]
        (home / "targets" / f"{job}.yml").write_text(yaml.safe_dump(groups))
    with _prometheus(home, address):
        yield Prometheus(address)


@contextmanager
def alertmanager() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Run a receiver of alerts in place of an Alertmanager; yield its address, and the labels of received alerts."""
    came: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.extend(one["labels"] for one in json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", came
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def reader(folder: Path, database: InfluxDB) -> Iterator[Prometheus]:
    """Run a Prometheus whose only data are those in InfluxDB."""
    home = folder / "reader"
    home.mkdir()
    ours = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())
    text = put(yaml.safe_dump({"remote_read": ours["remote_read"]}), "127.0.0.1:8086", database.address)
    (home / "prometheus.yml").write_text(text)
    address = f"127.0.0.1:{free_port()}"
    with _prometheus(home, address):
        yield Prometheus(address)


@contextmanager
def _prometheus(home: Path, address: str) -> Iterator[None]:
    arguments = [
        "prometheus",
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address={address}",
        "--storage.remote.flush-deadline=1s",
        "--rules.alert.resend-delay=1s",
    ]
    with running(arguments, f"http://{address}/-/ready", home / "output.txt"):
        yield


@contextmanager
def running(
    arguments: list[str], url: str, output: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, as soon as `url` answers, and end it."""
    with output.open("w") as file:
        process = subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        assert until(lambda: process.poll() is not None or answers(url)), output.read_text()
        assert process.poll() is None, output.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=TIMEOUT_IN_SECONDS)
        finally:
            process.kill()


def answers(url: str) -> bool:
    """True when a GET is answered well."""
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def put(text: str, old: str, new: str) -> str:
    """Replace text that must occur."""
    assert old in text, f"{old} is not in the file any more"
    return re.sub(rf"{re.escape(old)}\b", lambda _: new, text)
