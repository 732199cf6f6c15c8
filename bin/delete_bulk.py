#!/usr/bin/env python3
"""Delete everything about many addresses over HTTP, from any machine with Python 3.11 or newer.

The script needs neither CTMS nor other packages: copy this one file. It sends the addresses of a list to
`POST /erasures` in batches. Set CTMS_API_URL (such as https://ctms.example.com), and CTMS_CLIENT_ID and
CTMS_CLIENT_SECRET of an API client with the permission delete_contacts.

A list has one address per line, or is CSV with a header and --column. It may be compressed with gzip. Blank lines are
skipped, and lines that begin with # (of CSV, only before the header); an address that comes again counts once. A line
without an address is bad: it is reported by its number and skipped.

Ctrl-C and SIGTERM stop the script after the current batch. After that, or after a crash, run it again with the same
--report and --resume: batches that are done are not sent again, and a batch whose response was lost is counted once.

Exit statuses: 0 all are deleted or unknown; 1 nothing was done; 2 wrong usage, nothing was done; 3 partly done: it was
stopped, the service failed, or lines were bad; 10 nothing was done, since the report already exists.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import hmac
import http.client
import io
import json
import os
import re
import signal
import sys
import time
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

NOTHING_DONE, USAGE, PARTLY_DONE, REPORT_EXISTS = 1, 2, 3, 10
MAX_BATCH, REQUEST_TIMEOUT_IN_SECONDS = 5_000, 120  # of one request
MAX_LENGTH = 512  # characters of an address with a display name; the service accepts no longer ones
RETRIED = {429, 502, 503, 504}
HEADERS = {"email", "emailaddress", "emailadresse", "mail", "mailaddress", "primaryemail", "address"}
OPEN_QUOTE = re.compile(r'(?:^|[,;\t|])[^\S\t]*"(?:[^"]|"")*$|^[^"]*"(?:[^"]*"[^"]*")*[^"]*$')
NOT_UTF_8 = re.compile(r"[\udc80-\udcff]+")  # bytes as `surrogateescape` decodes them; they are read as Windows-1252
Options = argparse.Namespace


class Failure(Exception):
    """A reason to end, for the user: never an address or a secret."""

    def __init__(self, message: str, status: int = NOTHING_DONE) -> None:
        super().__init__(message)
        self.status = status


class Entry(NamedTuple):
    """An address and the places of its lines: `FILE, line N`."""

    address: str
    places: list[str]


def read_list(name: str, column: str | None) -> Iterator[tuple[str, str]]:
    """Yield addresses and places of a file, or of standard input for `-`. Raises `Failure` for what is no list."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise Failure(f"{name} cannot be read: {error}", USAGE) from None
    if data.startswith(b"PK\x03\x04"):
        raise Failure(f"{name} is a ZIP archive or an Excel workbook: save it as CSV", USAGE)
    is_utf_16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = data.decode("utf-16", "replace") if is_utf_16 else data.decode("utf-8-sig", "surrogateescape")
    text = NOT_UTF_8.sub(lambda found: found[0].encode("utf-8", "surrogateescape").decode("cp1252", "replace"), text)
    if text.lstrip()[:1] in {"{", "["}:
        raise Failure(f"{name} is JSON: extract the addresses first, one per line", USAGE)
    lines = list(io.StringIO(text, newline=None))
    for address, line in read_column(lines, column, name) if column else read_lines(lines, name):
        yield address.strip(), f"{name}, line {line}"


def read_lines(lines: Sequence[str], name: str) -> Iterator[tuple[str, int]]:
    """Yield the lines of a list without columns and their numbers, without header and comments."""
    first = True
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if (first and "@" not in line and re.search(r"[,;\t|]", line)) or OPEN_QUOTE.search(line):
            raise Failure(f"{name}, line {number} has columns, or an open quote: choose one with --column", USAGE)
        if not first or plain(line) not in HEADERS:
            quoted = len(line) > 1 and line[0] == line[-1] == '"'
            yield line[1:-1].replace('""', '"') if quoted else line, number
        first = False


def read_column(lines: Sequence[str], column: str, name: str) -> Iterator[tuple[str, int]]:
    """Yield the values of a column of CSV and their line numbers. Raises `Failure` for other columns, or bad quotes."""
    start = next((number for number, line in enumerate(lines) if line.strip() and line[0] != "#"), len(lines))
    delimiter = max(",;\t|", key="".join(lines[start : start + 1]).count)
    reader = csv.reader(lines[start:], delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        titles, end = [title.strip() for title in next(reader, [])], reader.line_num
        if (wanted := column.strip()) not in titles:  # an exact match wins over similar names
            titles, wanted = [plain(title) for title in titles], plain(column)
        if titles.count(wanted) != 1:
            raise Failure(f"{name} has no column {column}, or several of that name", USAGE)
        at = titles.index(wanted)
        for row in reader:
            starts = [value.partition('"')[0].strip(" ") for value in row if value.count('"') % 2]
            if any(one and not re.search(r"[^\W\u115f\u1160\u3164\uffa0]|[!-~\r\n]", one) for one in starts):
                raise Failure(f"{name}, line {start + end + 1} is not CSV: invisible characters precede a quote", USAGE)
            if any(map(str.strip, row)):  # no address in a longer row, whose values may be shifted
                yield "" if any(map(str.strip, row[len(titles) :])) else "".join(row[at : at + 1]), start + end + 1
            end = reader.line_num
    except csv.Error as error:
        raise Failure(f"{name}, line {start + reader.line_num} is not CSV: {error}", USAGE) from None


def plain(title: str) -> str:
    """Return a column's title without case, spaces and punctuation, or unchanged if it has no letter and no digit."""
    lower = unicodedata.normalize("NFC", title).lower()
    kept = "".join(one for one in lower if one.isalnum() or unicodedata.category(one).startswith("M"))
    return kept if any(map(str.isalnum, kept)) else title.strip()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Refuse redirects: they would turn a POST into a GET, and may send the token elsewhere."""


class Service:
    """The service at `url`, called with tokens of one API client; `wait` is how long to retry a failing request."""

    def __init__(self, url: str, client_id: str, secret: str, wait: float) -> None:
        self._url = url.rstrip("/")
        self._form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
        self._wait = wait
        self._open = urllib.request.build_opener(_NoRedirect).open
        self._token = ""
        self._status = NOTHING_DONE
        self.stopping = False

    def authenticate(self) -> None:
        """Get a token. Raises `Failure` when the service issues none."""
        status, body = self._send("/token", urllib.parse.urlencode(self._form).encode(), {})
        if status != 200:
            raise Failure(f"the service issues no token ({status}: {detail(body)})")
        self._token = body["access_token"]

    def erase(self, request: Mapping[str, Any], key: str) -> tuple[int, Any]:
        """Send `POST /erasures`, with a new token if the last one has expired; returns status and body."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        self._status = PARTLY_DONE  # without a response, nobody knows whether a request was carried out
        for _ in range(2):
            headers["Authorization"] = f"Bearer {self._token}"
            status, body = self._send("/erasures", json.dumps(request, ensure_ascii=False).encode(), headers)
            if status != 401:
                break
            self.authenticate()
        return status, body

    def pause(self, seconds: float) -> None:
        """Wait. Raises `Failure` as soon as the user asks to stop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.stopping:
            time.sleep(min(left, 0.2))
        if self.stopping:
            raise Failure("stopped", self._status)

    def _send(self, path: str, data: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        """Send a request until the service accepts or refuses it. Raises `Failure` after the longest wait."""
        give_up, delay = time.monotonic() + self._wait, 0.5
        while True:
            after = None
            try:
                request = urllib.request.Request(self._url + path, data, headers)  # noqa: S310
                with self._open(request, timeout=REQUEST_TIMEOUT_IN_SECONDS) as response:
                    return response.status, json.load(response)
            except urllib.error.HTTPError as error:
                if error.code not in RETRIED:
                    with suppress(OSError, ValueError, http.client.HTTPException):
                        return error.code, json.load(error)
                    return error.code, None
                problem, after = f"it answers {error.code}", error.headers.get("Retry-After", "")
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = str(error.reason) if isinstance(error, urllib.error.URLError) else type(error).__name__
            seconds = float(after) if after and after.isdigit() else delay
            delay = min(delay * 2, 60.0)
            if time.monotonic() + seconds > give_up:
                raise Failure(f"the service cannot be used ({problem})", self._status)
            say(f"waiting {seconds:g} s: {problem}")
            self.pause(seconds)


def detail(body: Any) -> str:
    """Return what an error of CTMS says, which never repeats values; nothing of what others answer."""
    match body:
        case {"detail": str(message) | [{"msg": str(message)}, *_]}:
            return message
    return "a response that is not of CTMS"


class Report:
    """Progress of a run as JSON Lines, with numbers and places instead of addresses; kept in memory without a path."""

    def __init__(self, path: Path | None, resume: bool, run: dict[str, Any]) -> None:
        self.done: dict[int, dict[str, Any]] = {}
        self.bad: dict[str, str] = {}
        self.run = {"run": os.urandom(16).hex(), **run}
        self._file = None
        if path is None:
            return
        try:
            if resume:
                self._load(path)
            else:
                path.touch(0o600, exist_ok=False)
                path.write_text(json.dumps(self.run) + "\n")
            self._file = path.open("a", encoding="utf-8")
        except FileExistsError:
            raise Failure(f"{path} already exists: name another report, or --resume that run", REPORT_EXISTS) from None
        except OSError as error:
            raise Failure(f"{path} cannot be used: {error.strerror}") from None

    def add_bad(self, found: Iterable[tuple[Entry, str]]) -> None:
        """Record each line of bad entries, before the rest of their batch is sent."""
        lines = {place: problem for entry, problem in found for place in entry.places if place not in self.bad}
        self.bad |= lines
        self._write(*({"bad": place, "problem": problem} for place, problem in lines.items()))

    def add_done(self, number: int, result: Mapping[str, Any]) -> None:
        """Record a batch that the service has confirmed."""
        self.done[number] = {"batch": number, **result}
        self._write(self.done[number])

    def _load(self, path: Path) -> None:
        """Read what a run did, without a last line that a crash has cut off. Raises `Failure` for another run."""
        whole = path.read_bytes().rpartition(b"\n")[0] + b"\n"
        try:
            first, *rest = [json.loads(line) for line in whole.splitlines()]
            self.bad = {one["bad"]: one["problem"] for one in rest if "bad" in one}
            self.done = {one["batch"]: one for one in rest if "batch" in one}
            self.run["run"] = first["run"]
        except (ValueError, KeyError, TypeError):
            raise Failure(f"{path} is no report of this script", USAGE) from None
        if self.run != first:
            raise Failure(f"{path} is of another list, other options, or another client", USAGE)
        os.truncate(path, len(whole))

    def _write(self, *records: Mapping[str, Any]) -> None:
        try:
            if self._file is not None and records:
                self._file.writelines(json.dumps(record) + "\n" for record in records)
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError as error:
            raise Failure(f"the report cannot be written: {error.strerror}", PARTLY_DONE) from None


def erase_all(service: Service, entries: Sequence[Entry], report: Report, options: Options) -> None:
    """Send all batches that are not done. Raises `Failure`."""
    size = options.batch_size
    for number, start in enumerate(range(0, len(entries), size)):
        if number not in report.done:
            erase_batch(service, number, entries[start : start + size], report, options)
            say(f"{min(start + size, len(entries)):,} of {len(entries):,} addresses")
            if start + size < len(entries):
                service.pause(options.pause)


def erase_batch(service: Service, number: int, batch: Sequence[Entry], report: Report, options: Options) -> None:
    """Send a batch until the service accepts it, without lines that are too long or that it names as bad."""
    result: dict[str, Any] = {"id": None, "contacts": 0, "unknown": 0, "also_known_in": 0}
    report.add_bad((one, f"too long: over {MAX_LENGTH} characters") for one in batch if len(one.address) > MAX_LENGTH)
    while rest := [one for one in batch if any(place not in report.bad for place in one.places)]:
        wanted = {"emails": [one.address for one in rest], "forget": options.forget, "include_fxa": options.include_fxa}
        # A batch without its bad lines is another request; the same request after a crash has the same key.
        key = hashlib.sha256(json.dumps([report.run["run"], number, wanted]).encode()).hexdigest()
        match service.erase(wanted, key):
            case 202, body:
                result = {name: body[name] or 0 for name in result}
                break
            case 422, {"detail": [{"loc": ["body", "emails", int(), *_]}, *_] as problems}:
                report.add_bad((rest[one["loc"][2]], one["msg"]) for one in problems)
            case 413, _:
                raise Failure("a request is too large (413): use a smaller --batch-size, and another --report")
            case status, body:
                raise Failure(f"the service refuses the request ({status}: {detail(body)})")
    report.add_done(number, result)


def summary(report: Report, entries: Sequence[Entry], size: int) -> str:
    """Return the numbers of all batches that are done."""
    names = {"erased": "contacts", "unknown": "unknown", "also known in": "also_known_in"}
    numbers = {title: sum(one[name] for one in report.done.values()) for title, name in names.items()}
    sent = sum(len(entries[number * size : (number + 1) * size]) for number in report.done)
    numbers |= {"bad lines": len(report.bad), "not sent": len(entries) - sent}
    return "\n".join(f"{f'{title}:':<15}{number}" for title, number in numbers.items())


def say(message: str) -> None:
    """Write progress or a problem to standard error."""
    print(message, file=sys.stderr, flush=True)


def parse_arguments(arguments: Sequence[str] | None) -> Options:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("lists", nargs="+", metavar="FILE", help="list of addresses; - is standard input")
    add("--column", metavar="NAME", help="column of CSV that has the addresses")
    add("--forget", action="store_true", help="suppress the addresses, too: they cannot come back")
    add("--include-fxa", action="store_true", help="delete also other contacts with the address as their account's")
    add("--report", type=Path, metavar="FILE", help="write the progress to this file, without addresses")
    add("--resume", action="store_true", help="continue the run of an existing report")
    add("--batch-size", type=int, default=1000, metavar="N", help="addresses per request (1000; at most 5000)")
    add("--pause", type=float, default=0.0, metavar="SECONDS", help="pause between batches (0)")
    add("--wait", type=float, default=600.0, metavar="SECONDS", help="how long to retry a failing request (600)")
    add("--yes", action="store_true", help="ask no confirmation")
    options = parser.parse_args(arguments)
    if not 1 <= options.batch_size <= MAX_BATCH:
        parser.error(f"--batch-size must be from 1 to {MAX_BATCH}")
    if options.column is not None and not options.column.strip():
        parser.error("--column must name a column")
    if options.resume and not options.report:
        parser.error("--resume needs --report")
    if "-" in options.lists and not options.yes:
        parser.error("a list from standard input needs --yes")
    names = ("CTMS_API_URL", "CTMS_CLIENT_ID", "CTMS_CLIENT_SECRET")
    if missing := ", ".join(name for name in names if not os.environ.get(name)):
        parser.error(f"set {missing}")
    if not os.environ["CTMS_API_URL"].startswith(("http://", "https://")):
        parser.error("CTMS_API_URL must start with https:// or http://")
    return options


def confirm(options: Options, count: int, url: str) -> None:
    """Ask on the terminal, unless --yes is given. Raises `Failure` if the answer is not yes."""
    if not options.yes and not sys.stdin.isatty():
        raise Failure("there is no terminal to ask for confirmation: pass --yes")
    what = "Delete and forget" if options.forget else "Delete"
    question = f"{what} everything about {count} addresses at {url} permanently? [y/N] "
    if not options.yes and input(question).strip().lower() != "y":
        raise Failure("nothing was done")


def run(options: Options) -> int:
    """Delete what the lists name; returns the exit status. Raises `Failure` if nothing is done."""
    url, secret = os.environ["CTMS_API_URL"], os.environ["CTMS_CLIENT_SECRET"]
    found: dict[str, Entry] = {}
    for address, place in chain.from_iterable(read_list(name, options.column) for name in options.lists):
        key = "".join(one.lower()[0] for one in address) or place  # as the service: no final sigma, no dot of an İ
        found.setdefault(key, Entry(address, [])).places.append(place)
    if not (entries := list(found.values())):
        say("the list is empty")
        return 0
    confirm(options, len(entries), url)
    service = Service(url, os.environ["CTMS_CLIENT_ID"], secret, options.wait)
    for number in (signal.SIGINT, signal.SIGTERM):  # from here on there is something to finish
        signal.signal(number, lambda *_: setattr(service, "stopping", True))
    service.authenticate()
    # A keyed digest: without the secret, nobody can find out from the report what a short list contains.
    text = json.dumps([url, options.forget, options.include_fxa, entries]).encode()
    digest = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
    report, status = Report(options.report, options.resume, {"list": digest, "batch_size": options.batch_size}), 0
    try:
        erase_all(service, entries, report, options)
    except Failure as failure:
        if not report.done and failure.status == NOTHING_DONE:
            raise
        say(f"Error: {failure}; run it again for the rest")
        status = PARTLY_DONE
    for place, problem in report.bad.items():
        say(f"bad line: {place}: {problem}")
    print(summary(report, entries, options.batch_size))
    return PARTLY_DONE if report.bad else status


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the script and exit."""
    try:
        sys.exit(run(parse_arguments(arguments)))
    except KeyboardInterrupt:  # while it reads or asks
        sys.exit(NOTHING_DONE)
    except Failure as failure:
        say(f"Error: {failure}")
        sys.exit(failure.status)


if __name__ == "__main__":
    main()
