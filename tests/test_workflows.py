"""Versions, paths, targets and actions in the workflows of GitHub Actions are right."""

import re
import shutil
import subprocess

import pytest
import yaml

import runtime
from distributions import project
from paths import ROOT

WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}
STEPS = [
    step
    for workflow in WORKFLOWS.values()
    for job in workflow["jobs"].values()
    for step in job.get("steps", [])
]
COMMANDS = "\n".join(step["run"] for step in STEPS if "run" in step)


def test_the_workflows_are_ci_and_release():
    assert list(WORKFLOWS) == ["ci", "release"]


@pytest.mark.parametrize("job", ["test", "other-systems"])
def test_the_tested_versions_are_those_of_the_classifiers(job):
    pattern = r"Programming Language :: Python :: (3\.\d+)"
    stated = re.findall(pattern, "\n".join(project()["classifiers"]))
    assert WORKFLOWS["ci"]["jobs"][job]["strategy"]["matrix"]["python"] == stated
    assert project()["requires-python"] == f">={stated[0]}"


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)
def test_a_workflow_has_only_read_permission_by_default(workflow):
    assert workflow["permissions"] == {"contents": "read"}
    writing = [name for name, job in workflow["jobs"].items() if "permissions" in job]
    assert writing in ([], ["release"])


def test_actions_are_pinned_to_commits():
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", name)] == []


def test_paths_and_make_targets_exist():
    paths = re.findall(r"(?<![\w/])tests/[\w/.-]+", COMMANDS + str(WORKFLOWS["ci"]["jobs"]))
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"docs", "lint", "test"} == set(re.findall(r"make (\w+) PYTHON", COMMANDS)) & targets
    (extras,) = re.findall(r"-e '\.\[([\w,]+)\]'", COMMANDS)
    assert set(extras.split(",")) <= project()["optional-dependencies"].keys()


def run_tag_comparison(tag, folder):
    """Runs the first step of a release in a folder: it compares the tag with the version."""
    (script,) = (step["run"] for step in STEPS if step.get("name", "").startswith("Compare"))
    return subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=folder, env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_release_needs_a_tag_equal_to_the_version_and_a_changelog_heading(tmp_path):
    (tmp_path / "runtime").mkdir()
    shutil.copy(ROOT / "runtime" / "__init__.py", tmp_path / "runtime")
    version = runtime.__version__
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n")
    wrong = run_tag_comparison("v99.0", tmp_path)
    assert wrong.returncode == 1
    assert f"the tag is v99.0 and runtime.__version__ is {version}" in wrong.stdout
    without = run_tag_comparison(f"v{version}", tmp_path)
    assert without.returncode == 1
    assert f"CHANGELOG.md has no heading [{version}]" in without.stdout
    (tmp_path / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n## [{version}] - 2026-01-01\n")
    assert run_tag_comparison(f"v{version}", tmp_path).returncode == 0


def test_release_notes_are_the_section_of_the_changelog(tmp_path):
    (tmp_path / "CHANGELOG.md").write_text(
        "## [Unreleased]\n- later\n\n## [1.2.0] - 2026-01-01\n### Added\n- this\n\n"
        "## [1.1.0] - 2025-01-01\n- old\n"
    )
    (script,) = (step["run"] for step in STEPS if step.get("name", "").startswith("Take the"))
    subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path, env={"GITHUB_REF_NAME": "v1.2.0", "PATH": "/usr/bin:/bin"}, check=True,
    )  # fmt: skip
    assert (tmp_path / "notes.md").read_text() == "### Added\n- this\n\n"
