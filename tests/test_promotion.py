"""Which image staging and production may run, in a deployment repository and a clone with real commits and tags."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest

from tools import promotion
from tools.promotion import DeploymentRepository

OVERLAY = """\
# The workflow that deploys writes the digest of the image.
images:
  - name: other
    newName: registry.example.com/other
    digest: sha256:{zeros}
  - name: ctms
    newName: registry.example.com/ctms
    digest: sha256:{zeros}  # ours
  - name: ctms-pgbouncer
    newName: registry.example.com/ctms-pgbouncer
    digest: sha256:{zeros}
"""
A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "tag.gpgSign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Delivery:
    """The two repositories, and the command as the workflows run it."""

    def __init__(self, folder: Path) -> None:
        self.deployment = folder / "deployment"
        for environment in ("staging", "production"):
            overlay = self.deployment / "overlays" / environment
            overlay.mkdir(parents=True)
            (overlay / "kustomization.yaml").write_text(OVERLAY.format(zeros="0" * 64))
        self.clone = folder / "clone"
        self.clone.mkdir()
        git(self.clone, "init", "--quiet", "--initial-branch", "main")

    def commit(self, *tags: str) -> str:
        """Commit to the current branch, with tags; returns the commit's id."""
        git(self.clone, "commit", "--quiet", "--allow-empty", "--message", uuid.uuid4().hex)
        for tag in tags:
            git(self.clone, "tag", "--annotate", "--message", tag, tag)
        return git(self.clone, "rev-parse", "HEAD")

    def run(self, *arguments: str) -> None:
        """Run the command. Raises `SystemExit` for what is refused."""
        promotion.main(["--deployment", str(self.deployment), "--repository", str(self.clone), *arguments])

    def stage(self, digest: str, commit: str, result: str | None = "success") -> None:
        """Let staging run an image, and test it unless `result` is None."""
        self.run("stage", "--digest", digest, "--commit", commit)
        if result:
            self.run("tested", "--environment", "staging", "--commit", commit, "--result", result)

    def promote(self, tag: str) -> None:
        """Let production run a tag."""
        self.run("promote", "--tag", tag)

    def digest(self, environment: str) -> str:
        """Return the digest that an environment runs."""
        return DeploymentRepository(self.deployment).read(environment).digest

    def overlay(self, environment: str) -> Path:
        """Return the file that names it."""
        return self.deployment / "overlays" / environment / "kustomization.yaml"


@pytest.fixture
def delivery(tmp_path: Path) -> Delivery:
    """A deployment repository where nothing was deployed."""
    return Delivery(tmp_path)


def test_production_runs_the_digest_that_passed_in_staging(
    delivery: Delivery, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery.stage(A, delivery.commit("v0.9.0"))
    delivery.promote("v0.9.0")
    delivery.stage(B, delivery.commit("v0.10.0"))

    delivery.promote("v0.10.0")

    assert capsys.readouterr().out.split() == [A, B]
    assert delivery.digest("production") == B
    zeros = "0" * 64
    assert delivery.overlay("production").read_text() == OVERLAY.format(zeros=zeros).replace(
        f"{zeros}  # ours", "b" * 64
    )
    entries = DeploymentRepository(delivery.deployment).read("production").history
    assert [(entry["event"], entry["tag"], entry["digest"]) for entry in entries] == [
        ("deployed", "v0.9.0", A),
        ("deployed", "v0.10.0", B),
    ]


def test_a_repeated_promotion_changes_nothing(delivery: Delivery) -> None:
    delivery.stage(A, delivery.commit("v1.0.0"))
    delivery.promote("v1.0.0")
    history = (delivery.deployment / "history" / "production.jsonl").read_text()

    delivery.promote("v1.0.0")

    assert (delivery.deployment / "history" / "production.jsonl").read_text() == history


def test_what_staging_never_ran_is_refused(delivery: Delivery) -> None:
    delivery.stage(A, delivery.commit())
    delivery.commit("v1.0.0")

    with pytest.raises(SystemExit, match=r"staging has never run the commit of v1.0.0"):
        delivery.promote("v1.0.0")
    assert delivery.digest("production") == promotion.NO_DIGEST


def test_what_staging_no_longer_runs_is_refused(delivery: Delivery) -> None:
    delivery.stage(A, delivery.commit("v1.0.0"))
    delivery.stage(B, delivery.commit())

    with pytest.raises(SystemExit, match=r"staging no longer runs the commit of v1.0.0"):
        delivery.promote("v1.0.0")


@pytest.mark.parametrize(("result", "reason"), [(None, "none"), ("failure", "smoke test failed")])
def test_what_has_not_passed_its_smoke_test_is_refused(delivery: Delivery, result: str | None, reason: str) -> None:
    delivery.stage(A, delivery.commit("v1.0.0"), result)

    with pytest.raises(SystemExit, match=f"last smoke test of {A} in staging: {reason}"):
        delivery.promote("v1.0.0")


def test_the_last_smoke_test_counts(delivery: Delivery) -> None:
    commit = delivery.commit("v1.0.0")
    delivery.stage(A, commit, "success")
    delivery.stage(A, commit, "failure")
    with pytest.raises(SystemExit, match="smoke test failed"):
        delivery.promote("v1.0.0")

    delivery.stage(A, commit, "success")
    delivery.promote("v1.0.0")


def test_a_smoke_test_of_an_earlier_image_of_the_commit_does_not_count(delivery: Delivery) -> None:
    commit = delivery.commit("v1.0.0")
    delivery.stage(A, commit, "success")
    delivery.stage(B, commit, None)

    with pytest.raises(SystemExit, match=f"last smoke test of {B} in staging: none"):
        delivery.promote("v1.0.0")


def test_a_smoke_test_of_another_image_does_not_count(delivery: Delivery) -> None:
    delivery.stage(A, delivery.commit("v1.0.0"))
    delivery.stage(B, delivery.commit())
    overlay = delivery.overlay("staging")
    overlay.write_text(overlay.read_text().replace("b" * 64, "a" * 64))  # by hand, without a record

    with pytest.raises(SystemExit, match=f"last smoke test of {A} in staging: none"):
        delivery.promote("v1.0.0")


def test_an_older_version_is_refused(delivery: Delivery) -> None:
    delivery.stage(A, delivery.commit("v0.10.0"))
    delivery.promote("v0.10.0")
    delivery.stage(B, delivery.commit("v0.9.1"))

    with pytest.raises(SystemExit, match=r"production runs v0.10.0, and v0.9.1 is not newer"):
        delivery.promote("v0.9.1")
    assert delivery.digest("production") == A


def test_a_newer_version_of_a_commit_without_what_production_runs_is_refused(delivery: Delivery) -> None:
    first = delivery.commit()
    delivery.stage(A, delivery.commit("v1.0.0"))
    delivery.promote("v1.0.0")
    staging = delivery.deployment / "history" / "staging.jsonl"
    git(delivery.clone, "checkout", "--quiet", "-b", "side", first)
    other = delivery.commit("v2.0.0")
    # Staging refuses such a commit, too; this is a history that someone has edited.
    staging.write_text(staging.read_text().replace(git(delivery.clone, "rev-parse", "main"), other))

    with pytest.raises(SystemExit, match=r"and v2.0.0 does not follow it"):
        delivery.promote("v2.0.0")


def test_a_moved_tag_is_refused(delivery: Delivery) -> None:
    delivery.stage(A, delivery.commit("v1.0.0"))
    delivery.promote("v1.0.0")
    commit = delivery.commit()
    git(delivery.clone, "tag", "--force", "v1.0.0", commit)
    delivery.stage(B, commit)

    with pytest.raises(SystemExit, match=r"v1.0.0 is not newer"):
        delivery.promote("v1.0.0")


def test_staging_moves_forward_only(delivery: Delivery) -> None:
    first, second = delivery.commit(), delivery.commit()
    delivery.stage(B, second)
    git(delivery.clone, "checkout", "--quiet", "-b", "side", first)
    side = delivery.commit()

    for commit in (first, side):
        with pytest.raises(SystemExit, match="does not follow it"):
            delivery.stage(A, commit)
    assert delivery.digest("staging") == B


def test_a_rollback_goes_to_what_passed(delivery: Delivery) -> None:
    first, second = delivery.commit("v1.0.0"), delivery.commit("v2.0.0")
    for tag, digest, commit in (("v1.0.0", A, first), ("v2.0.0", B, second)):
        delivery.stage(digest, commit)
        delivery.promote(tag)
        result = "success" if commit == first else "failure"
        delivery.run("tested", "--environment", "production", "--commit", commit, "--result", result)

    delivery.run("rollback", "--environment", "production", "--commit", first)

    assert delivery.digest("production") == A
    with pytest.raises(SystemExit, match="never passed a smoke test in production"):
        delivery.run("rollback", "--environment", "production", "--commit", second)
    delivery.promote("v2.0.0")
    assert delivery.digest("production") == B


def test_a_smoke_test_of_another_commit_is_refused(delivery: Delivery) -> None:
    delivery.stage(A, delivery.commit())

    with pytest.raises(SystemExit, match="its smoke test says nothing"):
        delivery.run("tested", "--environment", "staging", "--commit", delivery.commit(), "--result", "success")


@pytest.mark.parametrize("tag", ["1.0.0", "v1.0", "v1.0.0rc1", "v01.0.0", "latest"])
def test_another_tag_is_refused(delivery: Delivery, tag: str) -> None:
    delivery.stage(A, delivery.commit(tag))

    with pytest.raises(SystemExit, match="not a tag of the form"):
        delivery.promote(tag)


@pytest.mark.parametrize(
    ("digest", "commit"), [("sha256:abc", "HEAD"), ("latest", "full"), (promotion.NO_DIGEST, "full"), (A, "main")]
)
def test_only_full_digests_and_commits_are_accepted(delivery: Delivery, digest: str, commit: str) -> None:
    full = delivery.commit()

    with pytest.raises(SystemExit, match="is not the"):
        delivery.stage(digest, full if commit == "full" else commit)


def test_a_clone_without_the_history_is_refused(delivery: Delivery) -> None:
    delivery.stage(A, delivery.commit())

    with pytest.raises(SystemExit, match="needs the whole history"):
        delivery.stage(B, "f" * 40)


def test_a_missing_tag_is_refused(delivery: Delivery) -> None:
    with pytest.raises(SystemExit, match=r"there is no tag v1.0.0"):
        delivery.promote("v1.0.0")


def test_a_digest_that_nobody_recorded_is_refused(delivery: Delivery) -> None:
    delivery.stage(A, delivery.commit("v1.0.0"))
    overlay = delivery.overlay("production")
    overlay.write_text(overlay.read_text().replace("0" * 64, "c" * 64))

    with pytest.raises(SystemExit, match=f"production runs {C}, which is not in its history"):
        delivery.promote("v1.0.0")


@pytest.mark.parametrize("text", ["images: []", "images: [{name: ctms}]", "{", "images:\n- name: ctms\n- name: ctms\n"])
def test_an_overlay_without_our_image_is_refused(delivery: Delivery, text: str) -> None:
    delivery.overlay("staging").write_text(text)

    with pytest.raises(SystemExit, match="names no digest"):
        delivery.stage(A, delivery.commit())


def test_an_overlay_of_an_unusual_form_is_refused_and_nothing_recorded(delivery: Delivery) -> None:
    delivery.overlay("staging").write_text(f"images: [{{name: ctms, digest: '{promotion.NO_DIGEST}'}}]\n")

    with pytest.raises(SystemExit, match="unusual form"):
        delivery.stage(A, delivery.commit())
    assert not (delivery.deployment / "history").exists()


@pytest.mark.parametrize("line", ["{}", "text", '{"event": "deployed"}', "[]"])
def test_a_damaged_history_is_refused(delivery: Delivery, line: str) -> None:
    commit = delivery.commit()
    delivery.stage(A, commit)
    with (delivery.deployment / "history" / "staging.jsonl").open("a") as file:
        file.write(f"{line}\n")

    with pytest.raises(SystemExit, match="not a history of deployments"):
        delivery.stage(B, commit)
