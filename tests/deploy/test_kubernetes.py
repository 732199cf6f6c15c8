"""The overlays render, are valid, and keep what the docs promise of a deployment in Kubernetes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.manifests import BIN, DEPLOY, OVERLAYS, manifests, rendered, workloads

COMPONENTS = {"api", "worker", "migrate", "pgbouncer"}

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@every_overlay
@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_manifests_are_valid(overlay: str, version: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(rendered(overlay))
    command = [
        str(BIN / "kubernetes-validate"),
        "--kubernetes-version",
        version,
        "--strict",
        str(tmp_path / "all.yaml"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(" passed ") == len(manifests(overlay))


@every_overlay
def test_everything_carries_the_environment(overlay: str) -> None:
    assert {one["metadata"]["labels"]["environment"] for one in manifests(overlay)} == {overlay}
    assert {one["metadata"]["labels"]["environment"] for one in workloads(overlay).values()} == {overlay}
    assert {one["metadata"].get("namespace", f"ctms-{overlay}") for one in manifests(overlay)} == {f"ctms-{overlay}"}


@every_overlay
def test_containers_have_no_privileges(overlay: str) -> None:
    assert set(workloads(overlay)) == COMPONENTS
    for pod in workloads(overlay).values():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["runAsUser"] > 0
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert container["resources"]["limits"]["memory"]


@every_overlay
def test_images_are_named_by_digest(overlay: str) -> None:
    images = {one["image"] for pod in workloads(overlay).values() for one in pod["spec"]["containers"]}

    assert len(images) == 2
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in images)


@every_overlay
def test_secrets_are_references(overlay: str, created_secrets: dict[str, str]) -> None:
    assert {one["kind"] for one in manifests(overlay)}.isdisjoint({"Secret"})
    for pod in workloads(overlay).values():
        (volume,) = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        assert volume["secretName"] == "ctms"
        assert {item["key"] for item in volume.get("items", [])} <= set(created_secrets)
    paths = re.findall(r"/run/secrets/ctms/([\w-]+)", rendered(overlay))
    assert paths
    assert set(paths) <= set(created_secrets)


@every_overlay
def test_only_the_api_uses_pgbouncer(overlay: str) -> None:
    urls = {
        component: entry["value"].rsplit("/")[-1]
        for component, pod in workloads(overlay).items()
        for entry in pod["spec"]["containers"][0].get("env", [])
        if entry["name"] == "CTMS_DB_URL_FILE"
    }

    assert urls == {"api": "db-url-pgbouncer", "worker": "db-url", "migrate": "db-url"}


@every_overlay
def test_old_pods_serve_until_new_ones_are_ready(overlay: str) -> None:
    (api,) = [one for one in manifests(overlay, "Deployment") if one["metadata"]["name"] == "ctms-api"]
    (container,) = api["spec"]["template"]["spec"]["containers"]

    assert api["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "replicas" not in api["spec"]
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")} == {
        "/__lbheartbeat__"
    }


@every_overlay
def test_disruptions_are_limited_and_load_adds_pods(overlay: str) -> None:
    budgets = {one["metadata"]["name"] for one in manifests(overlay, "PodDisruptionBudget")}
    (scaler,) = manifests(overlay, "HorizontalPodAutoscaler")

    assert budgets == {"ctms-api", "ctms-worker", "ctms-pgbouncer"}
    assert scaler["spec"]["minReplicas"] >= 2
    assert [metric["resource"]["name"] for metric in scaler["spec"]["metrics"]] == ["cpu"]


@every_overlay
def test_each_component_has_a_network_policy_and_the_rest_is_denied(overlay: str) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests(overlay, "NetworkPolicy")}

    assert set(policies) == {"ctms-deny-all", "ctms-dns", *(f"ctms-{name}" for name in COMPONENTS)}
    assert policies["ctms-deny-all"].keys() == {"podSelector", "policyTypes"}
    assert policies["ctms-deny-all"]["policyTypes"] == ["Ingress", "Egress"]


@every_overlay
@pytest.mark.parametrize(("component", "port"), [("api", 8000), ("worker", 9464)])
def test_prometheus_finds_each_pod(overlay: str, component: str, port: int) -> None:
    services = {one["metadata"]["name"]: one for one in manifests(overlay, "Service")}
    service = services[f"ctms-{component}-pods"]
    (container,) = workloads(overlay)[component]["spec"]["containers"]

    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["ports"][0]["port"] == port
    assert port in [one["containerPort"] for one in container["ports"]]


KUBECTL = """#!/usr/bin/env bash
# Records what it is called with; renders for real; the migration ends as MIGRATION says, roll-outs as ROLL_OUT says.
case " $* " in
    *" kustomize "*) exec {kubectl} "$@" ;;
    *" get job "*) echo "$MIGRATION" ;;
    *" rollout "*) [ "$ROLL_OUT" = done ] || status=1 ;;
esac
echo "$*" >> "$CALLS"
exit ${{status:-0}}
"""


def roll_out(folder: Path, migration: str, result: str) -> tuple[int, list[str]]:
    """Run `roll-out staging` with a stub of kubectl; returns the exit status and the calls that change something."""
    stub, calls = folder / "kubectl", folder / "calls"
    stub.write_text(KUBECTL.format(kubectl=BIN / "kubectl"))
    stub.chmod(0o755)
    environment: dict[str, Any] = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "CALLS": str(calls),
        "MIGRATION": migration,
        "ROLL_OUT": result,
    }
    done = subprocess.run([DEPLOY / "roll-out", "staging"], env=environment, capture_output=True, check=False)
    change = re.compile(r"^apply .*--selector (.+)|^--namespace \S+ (delete job \S+|rollout status \S+)", re.MULTILINE)
    changes = change.findall(calls.read_text())
    return done.returncode, [selector or other for selector, other in changes]


COMPONENT = "app.kubernetes.io/component"
MIGRATES = [f"!{COMPONENT}", "delete job ctms-migrate", f"{COMPONENT}=migrate"]


def test_pods_are_replaced_after_the_migration(tmp_path: Path) -> None:
    status, changes = roll_out(tmp_path, "SuccessCriteriaMet Complete", "done")

    assert status == 0
    assert changes == [
        *MIGRATES,
        f"{COMPONENT},{COMPONENT}!=migrate",
        *(f"rollout status deployment/ctms-{name}" for name in ("pgbouncer", "api", "worker")),
    ]


def test_a_failed_migration_stops_the_roll_out(tmp_path: Path) -> None:
    assert roll_out(tmp_path, "FailureTarget Failed", "done") == (1, MIGRATES)


def test_a_version_that_does_not_become_ready_fails_the_roll_out(tmp_path: Path) -> None:
    status, _ = roll_out(tmp_path, "Complete", "failed")

    assert status == 1
