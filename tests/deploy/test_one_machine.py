"""`compose.yaml`, the systemd units and the secrets fit each other, the settings and the files that they name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from sqlalchemy.engine import make_url

from ctms.database.pool import connect_arguments
from ctms.settings import Settings
from tests.deploy.manifests import DEPLOY, OVERLAYS, compose, unit, unit_environment, variables

SERVICES = compose()["services"]
DATABASE_SETTINGS = DEPLOY / "postgresql" / "role.sql"


def test_every_variable_is_a_setting() -> None:
    names = {setting.variable for _, setting, _ in Settings.declared()} | {"FLASK_APP"}
    found = list(variables())

    assert len(found) > 20
    assert [one for one in found if one[1].removesuffix("_FILE") not in names] == []


def test_urls_and_users_agree(created_secrets: dict[str, str]) -> None:
    direct, pooled = (make_url(created_secrets[name]) for name in ("db-url", "db-url-pgbouncer"))

    assert (direct.host, direct.port, pooled.host, pooled.port) == ("db.example.com", 5433, "pgbouncer", 6432)
    assert direct.password == pooled.password == created_secrets["database-password"]
    assert created_secrets["pgbouncer-users"] == f'"ctms" "{direct.password}"\n'
    assert created_secrets["pgbouncer-databases"] == "ctms = host=db.example.com port=5433 dbname=ctms\n"
    keys = [created_secrets[name].strip() for name in ("secret-key", "erasure-key")]
    assert all(len(key) >= 32 for key in keys)
    assert len(set(keys)) == 2


def test_compose_uses_the_created_secrets(created_secrets: dict[str, str]) -> None:
    declared = compose()["secrets"]
    used = {
        one if isinstance(one, str) else one["source"]
        for service in SERVICES.values()
        for one in service.get("secrets", [])
    }

    assert used == set(declared)
    assert {name: one["file"] for name, one in declared.items()} == {name: f"secrets/{name}" for name in declared}
    assert set(declared) == set(created_secrets)


def test_compose_mounts_files_that_exist() -> None:
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    files = [DEPLOY / source for source, *_ in mounts if source.startswith(".")]

    assert len(files) >= 8
    assert [file for file in files if not file.exists()] == []
    assert {source for source, *_ in mounts if not source.startswith(".")} == set(compose()["volumes"])


@pytest.mark.parametrize("name", ["api", "worker", "migrate"])
def test_containers_of_compose_have_no_privileges(name: str) -> None:
    service = SERVICES[name]

    assert (service["user"], service["read_only"], service["cap_drop"]) == ("10001:10001", True, ["ALL"])


def test_pods_start_after_the_migration() -> None:
    for name in ("api", "worker"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert "ctms-migrate.service" in unit(name)["After"][0].split()
        assert unit(name)["Wants"] == ["ctms-migrate.service"]


@pytest.mark.parametrize("name", ["api", "worker", "migrate"])
def test_a_unit_loads_the_credentials_that_it_uses(name: str, created_secrets: dict[str, str]) -> None:
    loaded = dict(value.split(":") for value in unit(name)["LoadCredential"])
    used = {value.removeprefix("%d/") for value in unit_environment(name).values() if value.startswith("%d/")}

    assert used == set(loaded) <= set(created_secrets)
    assert loaded == {credential: f"/etc/ctms/secrets/{credential}" for credential in loaded}
    assert unit(name)["DynamicUser"] == ["yes"]


def test_the_worker_has_metrics_everywhere() -> None:
    targets = yaml.safe_load((DEPLOY / "compose-targets" / "worker.yml").read_text())

    assert targets[0]["targets"] == [f"worker:{SERVICES['worker']['environment']['CTMS_WORKER_METRICS_PORT']}"]
    assert unit_environment("worker")["CTMS_WORKER_METRICS_PORT"] == "9464"


@pytest.mark.parametrize("kind", ["api", "worker"])
def test_targets_of_compose_name_their_environment(kind: str) -> None:
    targets = yaml.safe_load((DEPLOY / "compose-targets" / f"{kind}.yml").read_text())

    assert {group["labels"]["environment"] for group in targets} <= set(OVERLAYS)


def test_prometheus_in_a_cluster_differs_only_in_its_targets() -> None:
    folder = DEPLOY / "monitoring" / "prometheus"
    one, other = (
        yaml.safe_load((folder / name).read_text()) for name in ("prometheus.yml", "prometheus-kubernetes.yml")
    )
    jobs: list[dict[str, Any]] = other.pop("scrape_configs")

    assert one.pop("scrape_configs")[-1] == jobs[-1]
    assert one == other
    for job in jobs[:2]:
        (discovery,), (rule,) = job["dns_sd_configs"], job["relabel_configs"]
        found = [re.fullmatch(rule["regex"], name) for name in discovery["names"]]
        assert [match and match[1] for match in found] == list(OVERLAYS)
        assert rule["target_label"] == "environment"


def test_roles_have_the_settings_of_connections() -> None:
    wanted = dict(re.findall(r"-c (\w+)=(\S+)", connect_arguments(Settings(secret_key="-" * 32))["options"]))
    given = dict(re.findall(r"ALTER ROLE ctms SET (\w+) = '?(\w+)'?;", DATABASE_SETTINGS.read_text()))

    assert {name: re.sub(r"s$", "000", value) for name, value in given.items()} == wanted
