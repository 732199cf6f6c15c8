"""Open `/docs`, `/redoc` and a report in headless Chromium, cut off from everything but the service, and use them.

Run by `.ci/docs-page`, which brings the browser and Selenium. Prints a line per check, and how many passed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.print_page_options import PrintOptions
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

ADDRESS = "jane@example.com"
MARKUP = "<script>document.title = 'run'</script><img src=http://127.0.0.1/x>"
CONTACT = {
    "email": {"primary_email": ADDRESS, "first_name": MARKUP, "unsubscribe_reason": "Too many mails. " * 50},
    "amo": {"username": "jane", "add_on_ids": "x" * 500},
    "newsletters": [{"name": f"newsletter-{number}"} for number in range(20)],
}
A4_IN_CM = (21.0, 29.7)
PATIENCE_IN_SECONDS = 60
CHROMIUM = "/usr/bin/chromium"
DRIVER = "/usr/bin/chromedriver"


@dataclass
class Service:
    """A running service with one contact, and the page of a report about it."""

    url: str
    client_id: str
    secret: str
    email_id: str
    report: Path


@contextmanager
def service(flask: str, folder: Path) -> Iterator[Service]:
    """Start `flask ctms serve` on an empty data folder and create a contact."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CTMS_") and k not in {"HOST", "PORT"}}
    environment = {**clean, "CTMS_DATA_DIR": str(folder / "data"), "PORT": str(port), "CTMS_WORKERS": "1"}
    output = folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen([flask, "ctms", "serve"], env=environment, stdout=file, stderr=file)
    try:
        wait_until_up(url, process, output)
        found = re.search(r"client id: +(\S+)\s+client secret: +(\S+)", output.read_text())
        if found is None:
            sys.exit(f"no client in: {output.read_text()}")
        client_id, secret = found.groups()
        basic = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        token = call(f"{url}/token", b"", {"Authorization": f"Basic {basic}"})["access_token"]
        body = json.dumps(CONTACT).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        contact = call(f"{url}/ctms", body, headers)
        asked = call(f"{url}/access-requests", json.dumps({"address": ADDRESS}).encode(), headers)
        report = folder / "report.html"
        report.write_bytes(read(f"{url}/access-requests/{asked['id']}?format=html", None, headers))
        yield Service(url, client_id, secret, contact["email"]["email_id"], report)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE_IN_SECONDS)


def wait_until_up(url: str, process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until the service answers."""
    give_up = time.monotonic() + PATIENCE_IN_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            call(f"{url}/__lbheartbeat__")
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    sys.exit(f"the service does not answer: {output.read_text()}")


def call(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    """Send a request, POST with a body; returns the parsed answer."""
    return json.loads(read(url, body, headers))


def read(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """Send a request, POST with a body; returns the answer."""
    request = urllib.request.Request(url, body, headers or {})
    with urllib.request.urlopen(request, timeout=30) as response:
        found: bytes = response.read()
    return found


@contextmanager
def browser(folder: Path) -> Iterator[webdriver.Chrome]:
    """Start Chromium with a fresh profile, no host to be found but 127.0.0.1, and all that it does noted."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        "--window-size=1400,1600",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Pages:
    """The checks, in the order in which a reader would meet what they check."""

    def __init__(self, driver: webdriver.Chrome, running: Service, screenshots: Path) -> None:
        self.driver = driver
        self.running = running
        self.screenshots = screenshots
        self.document = call(f"{running.url}/openapi.json")

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Return what is checked, in words, and how."""
        return [
            ("/docs shows every operation", self.docs_are_complete),
            ("/docs authorises with client credentials", self.docs_authorise),
            ("/docs reads a contact", self.docs_read_a_contact),
            ("/docs meets no error and asks nobody else", self.nothing_went_wrong),
            ("/redoc shows every operation", self.redoc_is_complete),
            ("/redoc finds what is searched for", self.redoc_searches),
            ("/redoc meets no error and asks nobody else", self.nothing_went_wrong),
            ("a report is readable, on a narrow screen, too", self.report_is_readable),
            ("a report runs and loads nothing", self.report_loads_nothing),
            ("a report prints on A4", self.report_prints),
        ]

    def docs_are_complete(self) -> None:
        self.driver.get(f"{self.running.url}/docs")
        operations = self.operations()
        self.until(lambda: len(self.all(".opblock")) == len(operations))
        shown = {element.get_attribute("id") for element in self.all(".opblock")}
        assert shown == {f"operations-{tag.replace(' ', '_')}-{name}" for tag, name in operations}, shown

    def docs_authorise(self) -> None:
        self.one(".auth-wrapper .authorize").click()
        self.one("[data-name=clientId]").send_keys(self.running.client_id)
        self.one("[data-name=clientSecret]").send_keys(self.running.secret)
        self.one(".auth-container:has([data-name=clientSecret]) .auth-btn-wrapper .authorize").click()
        self.until(lambda: "Authorized" in self.one(".modal-ux").text)
        self.shot("docs-authorised")
        self.one(".modal-ux .close-modal").click()

    def docs_read_a_contact(self) -> None:
        block = "#operations-Contacts-read_contact"
        self.one(f"{block} .opblock-summary-control").click()
        self.one(f"{block} [data-param-name=email_id] input").send_keys(self.running.email_id)
        self.one(f"{block} .execute").click()
        status = self.one(f"{block} .live-responses-table .response .response-col_status").text
        assert status.startswith("200"), status
        body = self.one(f"{block} .live-responses-table .response .response-col_description").text
        assert ADDRESS in body, body
        self.driver.execute_script("arguments[0].scrollIntoView()", self.one(block))
        self.shot("docs-contact")

    def redoc_is_complete(self) -> None:
        self.driver.get(f"{self.running.url}/redoc")
        operations = self.operations()
        self.until(lambda: len(self.all("[id*='/operation/']")) == len(operations))
        shown = {element.get_attribute("id") for element in self.all("[id*='/operation/']")}
        assert shown == {f"tag/{tag.replace(' ', '-')}/operation/{name}" for tag, name in operations}, shown
        self.shot("redoc")

    def redoc_searches(self) -> None:
        self.one("input[role=search], input[placeholder^=Search]").send_keys("identities")
        self.until(lambda: "identities" in self.one("[data-role='search:results']").text)

    def nothing_went_wrong(self) -> None:
        errors = [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert not errors, errors
        asked = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.add(message["params"]["request"]["url"])
        asked = {url for url in asked if url.startswith(("http", "ws"))}  # the browser's own pages aside
        assert f"{self.running.url}/openapi.json" in asked, asked
        assert all(url.startswith(f"{self.running.url}/") for url in asked), asked

    def report_is_readable(self) -> None:
        self.driver.get(self.running.report.as_uri())
        text = self.one("body").text
        for value in (ADDRESS, MARKUP, "newsletter-19", "x" * 500, "Purposes and retention"):
            assert value in text, value
        assert self.driver.title == "Personal data report"
        for width in (1400, 500):
            self.driver.set_window_size(width, 1600)
            self.shot(f"report-{width}")
            too_wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert self.driver.execute_script(too_wide) == 0, width
        for row in self.all("tr"):
            assert row.rect["height"] > 0, row.text

    def report_loads_nothing(self) -> None:
        errors = [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert not errors, errors
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = {one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"}
        assert asked == {self.running.report.as_uri()}, asked

    def report_prints(self) -> None:
        options = PrintOptions()
        options.page_width, options.page_height = A4_IN_CM
        options.shrink_to_fit = False
        pdf = base64.b64decode(self.driver.print_page(options))
        (self.screenshots / "report.pdf").write_bytes(pdf)
        boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
        assert len(boxes) > 3, boxes
        for box in boxes:  # in points
            assert all(abs(float(size) / 72 * 2.54 - cm) < 0.1 for size, cm in zip(box, A4_IN_CM, strict=True)), box
        # Chromium would print a page that is too wide with its right side cut off.
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        self.driver.set_window_size(673, 1600)  # the width of A4 within the margins
        too_wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.driver.execute_script(too_wide) == 0

    def operations(self) -> set[tuple[str, str]]:
        """Return the tag and the operationId of every operation in the document."""
        return {
            (operation["tags"][0], operation["operationId"])
            for item in self.document["paths"].values()
            for method, operation in item.items()
            if method != "parameters"
        }

    def one(self, selector: str) -> WebElement:
        """Return the first element that is shown, as soon as there is one."""
        return self.until(lambda: next((element for element in self.all(selector) if element.is_displayed()), None))

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until `condition` is true, and return what it is."""
        wait = WebDriverWait(self.driver, PATIENCE_IN_SECONDS, ignored_exceptions=[WebDriverException])
        return wait.until(lambda _: condition())

    def shot(self, name: str) -> None:
        self.driver.save_screenshot(str(self.screenshots / f"{name}.png"))


def main() -> int:
    """Run the checks; returns how many failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flask", required=True, help="the flask to serve with")
    parser.add_argument("--folder", required=True, type=Path, help="an empty folder")
    parser.add_argument("--screenshots", required=True, type=Path, help="where screenshots go")
    arguments = parser.parse_args()
    failed = 0
    with service(arguments.flask, arguments.folder) as running, browser(arguments.folder) as driver:
        pages = Pages(driver, running, arguments.screenshots)
        checks = pages.checks()
        for name, check in checks:
            try:
                check()
            except (AssertionError, WebDriverException) as error:
                failed += 1
                pages.shot(f"failed-{failed}")
                print(f"FAILED {name}: {type(error).__name__} {str(error)[:2000]}")
            else:
                print(f"ok     {name}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
