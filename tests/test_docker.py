"""Checks of the Dockerfiles that need no Docker: their files, extras and command exist."""

import json
import re
import shlex

import pytest

from distributions import FOR_A_BUILD, PACKAGES, project
from paths import ROOT

FILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def instructions(request):
    """(instruction, arguments) of a Dockerfile, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", request.param.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def arguments_of(name, instructions):
    return [arguments for instruction, arguments in instructions if instruction == name]


def copied(instructions):
    """Paths of the checkout that COPY instructions copy."""
    calls = [shlex.split(arguments) for arguments in arguments_of("COPY", instructions)]
    return [source for call in calls if "--from" not in call[0] for source in call[:-1]]


def test_there_is_a_dockerfile_for_cpus_and_one_for_tensorrt():
    assert [path.name for path in FILES] == ["Dockerfile.cpu", "Dockerfile.tensorrt"]


def test_the_copied_files_are_those_that_a_wheel_is_built_from(instructions):
    assert sorted(copied(instructions)) == sorted((*PACKAGES, *FOR_A_BUILD))
    for source in copied(instructions):
        assert (ROOT / source).exists(), source


def test_the_build_context_has_only_the_copied_files(instructions):
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    admitted = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    assert sorted(admitted) == sorted(copied(instructions))


def test_the_extras_exist(instructions):
    (extras,) = re.findall(r"'\.\[([\w,-]+)\]'", "\n".join(arguments_of("RUN", instructions)))
    assert set(extras.split(",")) <= project()["optional-dependencies"].keys()


def test_the_entry_point_is_the_console_command_and_the_user_is_not_root(instructions):
    (entry,) = arguments_of("ENTRYPOINT", instructions)
    assert json.loads(entry) == list(project()["scripts"])
    assert arguments_of("USER", instructions) == ["10001"]
    assert arguments_of("VOLUME", instructions) == ["/cache"]
    assert any("XDG_CACHE_HOME=/cache" in line for line in arguments_of("ENV", instructions))


def test_base_images_name_a_version(instructions):
    """A base image may also be an earlier stage of the same file."""
    stages = set()
    for arguments in arguments_of("FROM", instructions):
        image, *stage = arguments.split(" AS ")
        assert image in stages or re.search(r":(\$\{CUDA\}|\d+\.)", image), image
        stages.update(stage)
