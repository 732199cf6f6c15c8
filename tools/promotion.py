"""Decide which image an environment may run, and write the decision into a checkout of the deployment repository.

`overlays/ENVIRONMENT/kustomization.yaml` names the digest of the image `ctms` that the environment runs.
`history/ENVIRONMENT.jsonl` lists what it ran: one line per deployment, and one per smoke test.

Staging moves forward along the main branch. Production takes the digest that staging runs, if its last smoke test has
passed, and never an older version. `rollback` is the way back.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

IMAGE = "ctms"
STAGING = "staging"
PRODUCTION = "production"
NO_DIGEST = "sha256:" + "0" * 64
"""The digest in the template of the deployment repository: nothing is deployed yet."""

DEPLOYED = "deployed"
PASSED = "smoke test passed"
FAILED = "smoke test failed"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OUR_DIGEST = re.compile(rf"^(\s*- name: {IMAGE}\n(?:\s+newName: .*\n)?\s+digest: ).*$", re.MULTILINE)
_TAG = re.compile(r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")

IsAncestor = Callable[[str, str], bool]
"""Return whether the first commit is the second one or an ancestor of it."""


class RefusedError(Exception):
    """An image that must not be deployed; the message gives the reason."""


@dataclass(frozen=True)
class State:
    """The digest that an environment runs, and its history, oldest first."""

    environment: str
    digest: str
    history: Sequence[dict[str, Any]]

    def current(self) -> dict[str, Any] | None:
        """Return the deployment of the digest; None before the first one. Raises `RefusedError` for an unknown one."""
        if self.digest == NO_DIGEST:
            return None
        for entry in reversed(self.history):
            if entry["event"] == DEPLOYED and entry["digest"] == self.digest:
                return entry
        raise RefusedError(f"{self.environment} runs {self.digest}, which is not in its history")

    def test_result(self) -> str | None:
        """Return the result of the last smoke test since the digest was deployed; None if it was not tested."""
        for entry in reversed(self.history):
            if entry["digest"] != self.digest or entry["event"] == DEPLOYED:
                return None
            return str(entry["event"])
        return None


def check_staging(staging: State, digest: str, commit: str, is_ancestor: IsAncestor) -> None:
    """Check that staging may run the image of a commit. Raises `RefusedError`."""
    _check_format(digest, commit)
    current = staging.current()
    if current is not None and not is_ancestor(current["commit"], commit):
        raise RefusedError(f"staging runs {current['commit']}, and {commit} does not follow it")


def check_production(staging: State, production: State, tag: str, commit: str, is_ancestor: IsAncestor) -> str:
    """Return the digest that production may run for a tag of a commit. Raises `RefusedError`."""
    version = parse_tag(tag)
    _check_format(staging.digest, commit)
    if commit not in {entry["commit"] for entry in staging.history if entry["event"] == DEPLOYED}:
        raise RefusedError(f"staging has never run the commit of {tag}, {commit}")
    tested = staging.current()
    if tested is None or tested["commit"] != commit:
        raise RefusedError(f"staging no longer runs the commit of {tag}: tag the one that it runs")
    result = staging.test_result()
    if result != PASSED:
        raise RefusedError(f"the last smoke test of {staging.digest} in staging: {result or 'none'}")
    current = production.current()
    if current is not None and (current.get("tag"), production.digest) != (tag, staging.digest):
        if version <= parse_tag(str(current.get("tag"))):
            raise RefusedError(f"production runs {current['tag']}, and {tag} is not newer")
        if not is_ancestor(current["commit"], commit):
            raise RefusedError(f"production runs {current['commit']}, and {tag} does not follow it")
    return staging.digest


def parse_tag(tag: str) -> tuple[int, ...]:
    """Return the version of a tag. Raises `RefusedError` if it is not of the form v1.2.3."""
    found = _TAG.fullmatch(tag)
    if found is None:
        raise RefusedError(f"{tag} is not a tag of the form v1.2.3")
    return tuple(map(int, found.groups()))


def _check_format(digest: str, commit: str) -> None:
    if not _DIGEST.fullmatch(digest) or digest == NO_DIGEST:
        raise RefusedError(f"{digest} is not the digest of an image")
    if not _COMMIT.fullmatch(commit):
        raise RefusedError(f"{commit} is not the full id of a commit")


class DeploymentRepository:
    """A checkout of the deployment repository."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, environment: str) -> State:
        """Return the state of an environment. Raises `RefusedError` for files that cannot be used."""
        path = self._history(environment)
        lines = path.read_text().splitlines() if path.exists() else []
        try:
            history = [json.loads(line) for line in lines]
            known = {entry["event"] for entry in history} <= {DEPLOYED, PASSED, FAILED}
            for entry in history:
                _check_format(entry["digest"], entry["commit"])
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise RefusedError(f"{path} is not a history of deployments")
        return State(environment, _digest_in(self._overlay(environment)), history)

    def deploy(self, environment: str, digest: str, commit: str, tag: str | None = None) -> None:
        """Write the digest that an environment runs, and record the deployment."""
        state = self.read(environment)
        current = state.current()
        if state.digest == digest and current and (current["commit"], current.get("tag")) == (commit, tag):
            return
        path = self._overlay(environment)
        path.write_text(_OUR_DIGEST.sub(rf"\g<1>{digest}", path.read_text(), count=1))
        if _digest_in(path) != digest:
            raise RefusedError(
                f"{path} has an unusual form: write `name: {IMAGE}`, `newName` and `digest` in this order"
            )
        self._record(environment, DEPLOYED, digest, commit, tag)

    def roll_back(self, environment: str, commit: str) -> None:
        """Deploy again what an environment ran, and what passed its smoke test there. Raises `RefusedError`."""
        passed = [entry for entry in self.read(environment).history if entry["event"] == PASSED]
        found = next((entry for entry in reversed(passed) if entry["commit"] == commit), None)
        if found is None:
            raise RefusedError(f"{commit} has never passed a smoke test in {environment}")
        self.deploy(environment, found["digest"], commit, found.get("tag"))

    def record_test(self, environment: str, commit: str, passed: bool) -> None:
        """Record a smoke test. Raises `RefusedError` if the environment does not run the commit."""
        state = self.read(environment)
        current = state.current()
        if current is None or current["commit"] != commit:
            raise RefusedError(f"{environment} does not run {commit}: its smoke test says nothing")
        self._record(environment, PASSED if passed else FAILED, state.digest, commit, current.get("tag"))

    def _overlay(self, environment: str) -> Path:
        return self._folder / "overlays" / environment / "kustomization.yaml"

    def _history(self, environment: str) -> Path:
        return self._folder / "history" / f"{environment}.jsonl"

    def _record(self, environment: str, event: str, digest: str, commit: str, tag: str | None) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"at": at, "event": event, "digest": digest, "commit": commit} | ({"tag": tag} if tag else {})
        path = self._history(environment)
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _digest_in(overlay: Path) -> str:
    """Return the digest of our image in an overlay. Raises `RefusedError`."""
    try:
        images = yaml.safe_load(overlay.read_text())["images"]
        (digest,) = [image["digest"] for image in images if image["name"] == IMAGE]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        raise RefusedError(f"{overlay} names no digest of one image {IMAGE}") from None
    return str(digest)


class Repository:
    """A clone of this project, with its whole history and tags."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def commit_of(self, tag: str) -> str:
        """Return the commit of a tag. Raises `RefusedError` if there is no such tag."""
        found = self._git("rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}")
        if found.returncode:
            raise RefusedError(f"there is no tag {tag}")
        return found.stdout.strip()

    def is_ancestor(self, earlier: str, later: str) -> bool:
        """Return whether a commit is another one or its ancestor. Raises `RefusedError` for an unknown commit."""
        found = self._git("merge-base", "--is-ancestor", earlier, later)
        if found.returncode > 1:
            raise RefusedError(f"{earlier} or {later} is not in this clone: it needs the whole history")
        return found.returncode == 0

    def _git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(self._folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; exit with 1 and the reason if an image is refused."""
    parser = argparse.ArgumentParser(prog="python -m tools.promotion", description=__doc__)
    parser.add_argument("--deployment", type=Path, required=True, help="checkout of the deployment repository")
    parser.add_argument("--repository", type=Path, default=Path(), help="clone of this project (here)")
    commands = parser.add_subparsers(dest="command", required=True)
    stage = commands.add_parser("stage", help="let staging run the image of a commit")
    stage.add_argument("--digest", required=True)
    stage.add_argument("--commit", required=True)
    promote = commands.add_parser("promote", help="let production run what staging runs; prints the digest")
    promote.add_argument("--tag", required=True)
    rollback = commands.add_parser("rollback", help="let an environment run again what passed its smoke test there")
    tested = commands.add_parser("tested", help="record a smoke test")
    for command in (rollback, tested):
        command.add_argument("--environment", choices=[STAGING, PRODUCTION], required=True)
        command.add_argument("--commit", required=True)
    tested.add_argument("--result", choices=["success", "failure"], required=True)
    options = parser.parse_args(arguments)
    deployment, repository = DeploymentRepository(options.deployment), Repository(options.repository)
    try:
        if options.command == "stage":
            check_staging(deployment.read(STAGING), options.digest, options.commit, repository.is_ancestor)
            deployment.deploy(STAGING, options.digest, options.commit)
        elif options.command == "promote":
            commit = repository.commit_of(options.tag)
            states = deployment.read(STAGING), deployment.read(PRODUCTION)
            digest = check_production(*states, options.tag, commit, repository.is_ancestor)
            deployment.deploy(PRODUCTION, digest, commit, options.tag)
            sys.stdout.write(f"{digest}\n")
        elif options.command == "rollback":
            deployment.roll_back(options.environment, options.commit)
        else:
            deployment.record_test(options.environment, options.commit, options.result == "success")
    except RefusedError as error:
        sys.exit(f"Refused: {error}")


if __name__ == "__main__":
    main()
