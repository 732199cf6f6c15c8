"""The metrics of the real service: several processes that are killed and replaced while they count."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.serving import Served, serve
from tests.telemetry.scraped import total, values
from tests.waiting import until

UNKNOWN = "/ctms/332de237-cab7-4461-bcc3-48e68f42bd5c"
GRANIANS_PATIENCE_IN_SECONDS = 6
"""It ends the service when a process dies that soon after it was started."""
ROUTE = {"method": "GET", "path_template": "/ctms/{email_id}"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a separate instance, whose counts are known."""
    with serve(tmp_path_factory.mktemp("counted"), CTMS_WORKERS="2") as running:
        yield running


@pytest.fixture(scope="module")
def headers(running: Served) -> dict[str, str]:
    return {"Authorization": f"Bearer {running.token()}"}


def scrape(running: Served) -> str:
    answer = requests.get(f"{running.url}/metrics", timeout=60)
    answer.raise_for_status()
    return answer.text


def scrape_until(running: Served, is_complete: Callable[[str], bool]) -> str:
    """Scrape until a page is complete: a scrape waits only briefly for the other processes and for the database."""
    text = until(lambda: scrape(running), is_complete)
    assert is_complete(text), text
    return text


def is_idle(text: str) -> bool:
    """Return whether no process has a connection to the database in use."""
    return total(text, "ctms_database_connections", state="in_use") == 0


def test_the_metrics_of_all_processes_are_compressed_on_request(running: Served) -> None:
    for accepted in ("gzip", "identity"):
        answer = requests.get(f"{running.url}/metrics", headers={"Accept-Encoding": accepted}, timeout=30, stream=True)
        sent = answer.raw.read(decode_content=False)

        assert (answer.headers.get("Content-Encoding") == "gzip") is (accepted == "gzip")
        assert len(sent) == int(answer.headers["Content-Length"])
        text = gzip.decompress(sent) if accepted == "gzip" else sent
        assert b"ctms_database_connections_limit" in text
        assert text.endswith(b"\n")


def processes(running: Served) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(running.process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_known_traffic_is_counted_exactly_by_any_process(running: Served, headers: dict[str, str]) -> None:
    before = scrape(running)
    for number in range(60):
        # Each on a connection of its own, which the kernel gives to one of the processes.
        answer = requests.get(f"{running.url}{UNKNOWN}", headers=headers if number % 2 else None, timeout=30)
        assert answer.status_code == (404 if number % 2 else 401)

    expected = [
        ("ctms_requests_total", {**ROUTE, "status_code": "404"}, 30),
        ("ctms_requests_total", {**ROUTE, "status_code": "401"}, 30),
        ("ctms_requests_duration_seconds_count", {**ROUTE, "status_code_family": "4xx"}, 60),
        ("ctms_api_requests_total", {**ROUTE, "client_id": "id_admin"}, 30),
        ("ctms_auth_failures_total", {"cause": "no_token"}, 30),
    ]

    def more(text: str) -> list[float]:
        return [total(text, name, **labels) - total(before, name, **labels) for name, labels, _ in expected]

    numbers = [number for _, _, number in expected]

    def is_complete(text: str) -> bool:
        return (
            all(found >= number for found, number in zip(more(text), numbers, strict=True))
            and all(values(text, name) for name in ("ctms_contacts_total", "ctms_erasures_open"))
            and is_idle(text)
        )

    for _ in range(8):
        text = scrape_until(running, is_complete)

        assert more(text) == numbers
        assert values(text, "ctms_contacts_total") == {(): 0}
        assert values(text, "ctms_erasures_open") == {(): 0}
        assert total(text, "ctms_metrics_files_bytes") > 0


def newest_process(running: Served) -> psutil.Process:
    """Return the newest process, once it is old enough for Granian to replace it."""
    time.sleep(GRANIANS_PATIENCE_IN_SECONDS)
    return max(processes(running), key=psutil.Process.create_time)


def wait_for_replacement(running: Served, victim: psutil.Process) -> None:
    psutil.wait_procs([victim], timeout=200)
    give_up = time.monotonic() + 200
    while len(processes(running)) < 2:
        assert time.monotonic() < give_up, "the process was not replaced"
        time.sleep(0.1)


def get_unknown(running: Served, headers: dict[str, str], number: int) -> None:
    for _ in range(number):
        # Each on a connection of its own, which the kernel gives to one of the processes.
        assert requests.get(f"{running.url}{UNKNOWN}", headers=headers, timeout=30).status_code == 404


def counted_unknown(running: Served, at_least: float = 0) -> float:
    """Return how many were counted, as soon as there are so many."""

    def counted(text: str) -> float:
        return total(text, "ctms_requests_total", **ROUTE, status_code="404")

    return counted(scrape_until(running, lambda text: counted(text) >= at_least))


def test_a_terminated_process_flushes_its_requests(running: Served, headers: dict[str, str]) -> None:
    before = counted_unknown(running)
    victim = newest_process(running)
    get_unknown(running, headers, 60)

    victim.terminate()  # before it has flushed the last requests
    wait_for_replacement(running, victim)

    assert counted_unknown(running, before + 60) == before + 60


def test_a_killed_process_loses_no_flushed_request(running: Served, headers: dict[str, str]) -> None:
    before = counted_unknown(running)
    for number in (60, 120):
        victim = newest_process(running)
        get_unknown(running, headers, 60)
        assert counted_unknown(running, before + number) == before + number  # all processes have flushed

        victim.kill()
        wait_for_replacement(running, victim)

        assert counted_unknown(running, before + number) == before + number


def test_the_metrics_are_consistent_after_kills_under_load(running: Served, headers: dict[str, str]) -> None:
    first = scrape(running)
    before = total(first, "ctms_requests_total", **ROUTE, status_code="404")
    of_client = total(first, "ctms_api_requests_total", **ROUTE, client_id="id_admin")
    files = total(first, "ctms_metrics_files_bytes")
    sent = [0]
    stop = threading.Event()
    lock = threading.Lock()

    def load() -> None:
        while not stop.is_set():
            with lock:
                sent[0] += 1
            with suppress(requests.RequestException):
                assert requests.get(f"{running.url}{UNKNOWN}", headers=headers, timeout=30).status_code == 404

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        victim = newest_process(running)
        victim.kill()
        wait_for_replacement(running, victim)
    time.sleep(1)
    stop.set()
    for thread in threads:
        thread.join()

    text = scrape_until(running, is_idle)
    counted = total(text, "ctms_requests_total", **ROUTE, status_code="404") - before
    assert 0 < counted <= sent[0]
    of_client = total(text, "ctms_api_requests_total", **ROUTE, client_id="id_admin") - of_client
    assert 0 < of_client <= counted  # a kill may occur between the two counters
    # The successor continues to count in the files of the killed process.
    assert total(text, "ctms_metrics_files_bytes") <= 2 * files


def test_instances_do_not_count_each_others_requests(running: Served, tmp_path: Path) -> None:
    with serve(tmp_path) as other:

        def unmatched(text: str) -> float:
            return total(text, "ctms_requests_total", path_template="unmatched", status_code="404")

        here = unmatched(scrape(running))
        for _ in range(5):
            requests.get(f"{other.url}/nothing", timeout=30)

        assert unmatched(scrape_until(other, lambda text: unmatched(text) >= 5)) == 5
        assert unmatched(scrape(running)) == here
        assert other.stop() == 0
