"""The workflows of GitHub: what they may do, what they run, and the scripts that they call."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_repository import ROOT, supported_pythons, tox
from tools.release_notes import notes

FOLDER = ROOT / ".github" / "workflows"
# `on` is a boolean in YAML 1.1.
WORKFLOWS: dict[str, Any] = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*"))}
PINNED = re.compile(r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield workflow, name and content of each job."""
    for workflow, content in WORKFLOWS.items():
        for name, job in content["jobs"].items():
            yield workflow, name, job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield workflow and content of each step."""
    for workflow, _, job in jobs():
        for step in job.get("steps", ()):
            yield workflow, step


def commands(workflow: str) -> str:
    """Return all that a workflow runs."""
    return "\n".join(step["run"] for name, step in steps() if name == workflow and "run" in step)


def supported_postgresqls() -> list[str]:
    """Return the versions of PostgreSQL that the docs name."""
    page = (ROOT / "docs" / "how-to" / "use-your-own-postgresql.md").read_text()
    found = re.search(r"PostgreSQL (\d+) to (\d+)", page)
    assert found is not None
    return [str(version) for version in range(int(found[1]), int(found[2]) + 1)]


def test_the_workflows_are_these() -> None:
    names = ["ci", "deploy-production", "deploy-staging", "image", "nightly", "release"]

    assert list(WORKFLOWS) == [f"{name}.yml" for name in names]


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_actions_are_pinned_by_commit(workflow: str) -> None:
    used = re.findall(r"\buses: *(.+)", (FOLDER / workflow).read_text())

    assert used
    assert [one for one in used if not one.startswith("./") and not PINNED.fullmatch(one)] == []


def test_an_action_has_one_version() -> None:
    versions = defaultdict(set)
    for path in FOLDER.iterdir():
        for action, version in re.findall(r"\buses: *([^./\s][^@\s]*)@(.+)", path.read_text()):
            versions[action].add(version)

    assert {action for action, found in versions.items() if len(found) > 1} == set()


def test_permissions_are_the_least() -> None:
    granted = {(workflow, name): job["permissions"] for workflow, name, job in jobs() if "permissions" in job}

    assert [content["permissions"] for content in WORKFLOWS.values()] == [{"contents": "read"}] * len(WORKFLOWS)
    assert granted == {
        ("deploy-staging.yml", "image"): {"contents": "read", "id-token": "write"},
        ("image.yml", "image"): {"contents": "read", "id-token": "write"},
        ("release.yml", "production"): {"contents": "read"},
        ("release.yml", "notes"): {"contents": "write"},
        ("release.yml", "publish"): {"id-token": "write"},
        ("release.yml", "publish-npm"): {"id-token": "write"},
    }


def test_only_the_deployment_repository_may_be_pushed_to() -> None:
    for _, step in steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            options = step.get("with", {})
            assert options.get("persist-credentials", True) is (options.get("path") == "deployment")


def test_no_value_becomes_part_of_a_script() -> None:
    found = [expression for _, step in steps() for expression in re.findall(r"\$\{\{ *(\w+)", step.get("run", ""))]

    assert set(found) == {"matrix"}


def test_code_of_a_stranger_gets_no_secret() -> None:
    for workflow, content in WORKFLOWS.items():
        triggers = content[True]
        assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers)
        if "pull_request" in triggers:
            with_secrets = [step for name, step in steps() if name == workflow and "secrets." in str(step)]
            assert all(step["if"] == "env.PUSH == 'true'" for step in with_secrets)
    assert WORKFLOWS["image.yml"]["jobs"]["image"]["env"]["PUSH"] == (
        "${{ github.event_name == 'push' && github.ref == 'refs/heads/main' }}"
    )


def test_a_job_ends() -> None:
    assert [name for _, name, job in jobs() if "timeout-minutes" not in job and "uses" not in job] == []


def test_no_registry_is_named() -> None:
    hosts = re.compile(r"\b(?:ghcr|quay|gcr|docker)\.io\b|\bpypi\.org\b|\bnpmjs\.")

    assert [path for path in (ROOT / ".github").rglob("*.yml") if hosts.search(path.read_text())] == []


def test_ci_runs_the_checks_with_each_python_and_each_postgresql() -> None:
    job = WORKFLOWS["ci.yml"]["jobs"]["run"]
    matrix = job["strategy"]["matrix"]["include"]

    assert [one["python"] for one in matrix] == supported_pythons()
    assert [one["postgresql"] for one in matrix] == supported_postgresqls()
    assert job["services"]["postgresql"]["image"] == "postgres:${{ matrix.postgresql }}"
    assert job["steps"][-1]["run"] == ".ci/run"
    assert "CTMS_TEST_*" in tox()["testenv"]["pass_env"].split()
    assert "CTMS_TEST_DB_URL" in job["env"]


def test_all_combinations_are_tested_at_night() -> None:
    matrix = WORKFLOWS["nightly.yml"]["jobs"]["combinations"]["strategy"]["matrix"]

    assert [one["version"] for one in matrix["python"]] == supported_pythons()
    assert [one["factor"] for one in matrix["python"]] == ["py" + one.replace(".", "") for one in supported_pythons()]
    assert matrix["postgresql"] == supported_postgresqls()


def test_the_environments_of_the_night_are_those_of_tox() -> None:
    job = WORKFLOWS["nightly.yml"]["jobs"]["tox"]
    environments = job["strategy"]["matrix"]["environment"]

    assert {"min", "coverage", "chaos", "fuzz", "generated-clients"} == set(environments)
    assert [one for one in environments if f"testenv:{one}" not in tox()] == []
    (python,) = [step["with"]["python-version"] for step in job["steps"] if "python-version" in step.get("with", {})]
    assert python == supported_pythons()[0]  # whose oldest dependencies are declared


@pytest.mark.parametrize(
    ("workflow", "event"),
    [("deploy-staging.yml", {"push": {"branches": ["main"]}}), ("deploy-production.yml", {"workflow_call": None})],
)
def test_a_deployment_is_decided_pushed_and_tested(workflow: str, event: dict[str, Any]) -> None:
    script = commands(workflow)
    parts = ("tools.promotion", "tools/push-deployment", "deploy/smoke_test.py", "tested --environment")

    assert WORKFLOWS[workflow][True] == event
    assert [part for part in parts if part not in script] == []
    assert sorted(parts, key=script.index) == list(parts)
    assert WORKFLOWS[workflow]["concurrency"]["cancel-in-progress"] is False


def jobs_before(workflow: str, name: str) -> set[str]:
    """Return the jobs that must have succeeded before a job starts."""
    job = WORKFLOWS[workflow]["jobs"][name]
    needed = job.get("needs", [])
    direct = {needed} if isinstance(needed, str) else set(needed)
    return direct.union(*(jobs_before(workflow, one) for one in direct))


def test_only_what_production_has_accepted_is_published() -> None:
    release = WORKFLOWS["release.yml"]
    called = "./.github/workflows/deploy-production.yml"
    writing = [name for name, job in release["jobs"].items() if "write" in job.get("permissions", {}).values()]

    assert release[True] == {"push": {"tags": ["v*"]}}
    assert [(workflow, name) for workflow, name, job in jobs() if job.get("uses") == called] == [
        ("release.yml", "production")
    ]
    assert set(writing) == {"publish", "publish-npm", "notes"}
    for name in writing:
        assert jobs_before("release.yml", name) >= {"build", "production"}
        # A condition such as `always()` would run the job although a job before it has failed.
        assert "if" not in release["jobs"][name]
    assert jobs_before("release.yml", "production") == {"build"}  # which fails for a tag that is not ready
    assert "continue-on-error" not in (FOLDER / "release.yml").read_text()
    assert "continue-on-error" not in (FOLDER / "deploy-production.yml").read_text()


def test_a_release_has_the_packages_of_the_clients() -> None:
    script = commands("release.yml")
    created = WORKFLOWS["release.yml"]["jobs"]["notes"]["steps"][-1]["run"]

    assert "python -m tools.clients build clients-dist" in script
    assert script.index("tools.clients build") < script.rindex("twine check --strict dist/*")
    assert "npm publish ./npm/*.tgz" in script
    assert created.endswith("dist/* npm/*")


def test_production_builds_nothing() -> None:
    used = [step.get("uses", "") for workflow, step in steps() if workflow == "deploy-production.yml"]

    assert not any("build-push-action" in one for one in used)
    assert "cosign verify" in commands("deploy-production.yml")
    assert commands("deploy-production.yml").index("cosign verify") < commands("deploy-production.yml").index("push-de")


def test_lint_checks_each_shell_script() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [name for name in listed if (ROOT / name).is_file()]
    scripts = [name for name in files if (ROOT / name).read_bytes().startswith(b"#!/usr/bin/env bash\n")]

    assert ".ci/run" in scripts
    assert [name for name in scripts if name not in tox()["testenv:lint"]["commands"]] == []


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def push(checkout: Path, message: str) -> int:
    """Run the script that pushes; returns its exit status."""
    return subprocess.run([ROOT / "tools" / "push-deployment", checkout, message], check=False).returncode


@pytest.fixture
def checkouts(tmp_path: Path) -> list[Path]:
    """Two checkouts of one deployment repository."""
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch", "main", "remote")
    first, second = tmp_path / "first", tmp_path / "second"
    git(tmp_path, "clone", "--quiet", "remote", "first")
    git(first, "checkout", "--quiet", "-B", "main")
    (first / "overlays").mkdir()
    (first / "overlays" / "staging").write_text("old")
    git(first, "add", ".")
    git(first, "commit", "--quiet", "--message", "Begin")
    git(first, "push", "--quiet", "origin", "main")
    git(tmp_path, "clone", "--quiet", "remote", "second")
    return [first, second]


def test_two_environments_are_pushed_at_once(checkouts: list[Path], tmp_path: Path) -> None:
    first, second = checkouts
    (first / "overlays" / "staging").write_text("new")
    (second / "history").mkdir()
    (second / "history" / "production.jsonl").write_text("{}\n")

    assert push(first, "Deploy to staging") == 0
    assert push(second, "Deploy to production") == 0
    assert push(second, "Nothing new") == 0

    log = git(tmp_path / "remote", "log", "--format=%s", "main").splitlines()
    assert log == ["Deploy to production", "Deploy to staging", "Begin"]
    assert git(tmp_path / "remote", "show", "main:overlays/staging") == "new"


def test_the_same_environment_is_not_overwritten(checkouts: list[Path], tmp_path: Path) -> None:
    for checkout, text in zip(checkouts, ("one", "other"), strict=True):
        (checkout / "overlays" / "staging").write_text(text)

    assert push(checkouts[0], "Deploy one") == 0
    assert push(checkouts[1], "Deploy the other") != 0
    assert git(tmp_path / "remote", "show", "main:overlays/staging") == "one"


CHANGELOG = """\
# Changelog

## Unreleased

## 1.2.0 - 2026-01-31

### Upgrading

- Nothing to do.

### Added

- This.

## 1.1.0 - 2026-01-01

- That.
"""


UPGRADING = "### Upgrading\n\n- Nothing to do.\n\n"


def release(folder: Path, tag: str, changelog: str = CHANGELOG) -> str:
    """Return the notes of a tag of version 1.2.0."""
    (folder / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (folder / "CHANGELOG.md").write_text(changelog)
    return notes(tag, folder)


def test_the_notes_of_a_release(tmp_path: Path) -> None:
    assert release(tmp_path, "v1.2.0") == "### Upgrading\n\n- Nothing to do.\n\n### Added\n\n- This.\n"


def test_the_newest_section_is_ready_for_its_tag(tmp_path: Path) -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    without_unreleased = re.sub(r"(?s)^## Unreleased\n.*?(?=^## )", "## Unreleased\n\n", changelog, flags=re.MULTILINE)
    (tmp_path / "CHANGELOG.md").write_text(without_unreleased)
    (tmp_path / "pyproject.toml").write_text(project)
    version = tomllib.loads(project)["project"]["version"]

    assert notes(f"v{version}", tmp_path).strip() in changelog


@pytest.mark.parametrize(
    ("tag", "changelog", "problem"),
    [
        ("v1.2.1", CHANGELOG, "the tag is v1.2.1, and the version in pyproject.toml 1.2.0"),
        ("v1.2.0", CHANGELOG.replace("Unreleased\n", "Unreleased\n\n- More.\n"), "has unreleased changes"),
        ("v1.2.0", CHANGELOG.replace(" - 2026-01-31", ""), "not that of 1.2.0 with its date"),
        ("v1.2.0", CHANGELOG.replace("1.2.0", "1.3.0"), "not that of 1.2.0 with its date"),
        ("v1.2.0", CHANGELOG.replace(UPGRADING, "").replace("### Added\n\n- This.\n", ""), "is empty"),
        ("v1.2.0", CHANGELOG.replace(UPGRADING, ""), "no text under a heading `### Upgrading`"),
        ("v1.2.0", CHANGELOG.replace("- Nothing to do.\n", ""), "no text under a heading `### Upgrading`"),
        ("v1.2.0", "## Unreleased\n", "not that of 1.2.0"),
    ],
)
def test_a_release_that_is_not_ready(tmp_path: Path, tag: str, changelog: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        release(tmp_path, tag, changelog)
