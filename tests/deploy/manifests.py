"""The files of `deploy/` as the programs that use them see them: manifests as rendered, units as parsed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
OVERLAYS = ("production", "staging")

Manifest = dict[str, Any]


@cache
def rendered(overlay: str) -> str:
    """Return an overlay as `kubectl kustomize` renders it. kubectl is in the dependency group `deploy`."""
    command = [str(BIN / "kubectl"), "kustomize", str(DEPLOY / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def manifests(overlay: str, *kinds: str) -> list[Manifest]:
    """Return the manifests of an overlay, or those of some kinds."""
    found = [one for one in yaml.safe_load_all(rendered(overlay)) if not kinds or one["kind"] in kinds]
    assert found
    return found


def workloads(overlay: str) -> dict[str, Manifest]:
    """Return the pod templates of an overlay, by component."""
    found = [one["spec"]["template"] for one in manifests(overlay, "Deployment", "Job")]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in found}


def unit(name: str) -> dict[str, list[str]]:
    """Return the values of each option of a systemd unit, in order."""
    values: dict[str, list[str]] = {}
    for line in (DEPLOY / "systemd" / f"ctms-{name}.service").read_text().splitlines():
        option, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values.setdefault(option, []).append(value)
    return values


def unit_environment(name: str) -> dict[str, str]:
    """Return the variables that a systemd unit sets."""
    pairs = [pair for value in unit(name)["Environment"] for pair in value.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def compose() -> Manifest:
    """Return the services, volumes and secrets of `compose.yaml`."""
    found: Manifest = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def variables() -> Iterator[tuple[str, str]]:
    """Give each variable that a file of `deploy/` sets for CTMS: where, and its name."""
    for overlay in OVERLAYS:
        for one in manifests(overlay, "ConfigMap"):
            if one["metadata"]["name"].startswith("ctms-settings"):
                yield from ((overlay, name) for name in one["data"])
        for component, pod in workloads(overlay).items():
            for container in pod["spec"]["containers"]:
                yield from ((f"{overlay} {component}", entry["name"]) for entry in container.get("env", []))
    for name in ("api", "worker", "migrate"):
        yield from ((f"ctms-{name}.service", variable) for variable in unit_environment(name))
        yield from ((f"compose {name}", variable) for variable in compose()["services"][name]["environment"])
    for line in (DEPLOY / "systemd" / "ctms.env").read_text().splitlines():
        if not line.startswith("#"):
            yield "ctms.env", line.partition("=")[0]
