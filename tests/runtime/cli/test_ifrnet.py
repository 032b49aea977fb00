"""The console command `ifrnet` and its subcommands."""

import subprocess
import sys

import pytest

import runtime
from commands import run_main, run_without
from runtime.cli import ifrnet

OPTIONAL = (
    "PIL", "av", "cuda", "filelock", "google", "jinja2", "matplotlib", "msgspec", "onnx",
    "onnxruntime", "onnxscript", "openvino", "polygraphy", "ray", "safetensors", "scipy",
    "skimage", "tensorrt", "torch", "tqdm", "tritonclient",
)  # fmt: skip
"""Import names of the packages of the extras."""


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        ifrnet.main(arguments)
    return left.value.code, *capsys.readouterr()


def test_help_lists_every_subcommand_with_a_description(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    lines = [line.split(maxsplit=1) for line in out.splitlines() if line]
    for name, command in ifrnet.COMMANDS.items():
        assert [name, command.summary] in lines
        assert len(name) + len(command.summary) < 75


def test_help_imports_no_subcommand():
    script = (
        "import sys\n"
        "from runtime.cli import ifrnet\n"
        "try: ifrnet.main(['--help'])\n"
        "except SystemExit: pass\n"
        "modules = {command.module for command in ifrnet.COMMANDS.values()}\n"
        "sys.exit(bool({*modules, 'export', 'bench', 'ifrnet_model'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("name", ifrnet.COMMANDS)
def test_a_subcommand_shows_its_help_under_its_name_without_the_extras(name):
    done = run_without(OPTIONAL, "runtime.cli.ifrnet", name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: ifrnet {name} [-h]")
    assert f"\n  ifrnet {name} " in done.stdout or f"| ifrnet {name} " in done.stdout
    assert "python -m" not in done.stdout


@pytest.mark.parametrize("name", ifrnet.COMMANDS)
def test_python_m_shows_the_name_that_it_was_called_by(name):
    module = ifrnet.COMMANDS[name].module.removesuffix(".__main__")
    done = run_without(OPTIONAL, module, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module} [-h]")
    assert f"\n  python -m {module}" in done.stdout
    assert "ifrnet " not in done.stdout.replace("of ifrnet ", "")


@pytest.mark.parametrize(
    "arguments", [(), *((name,) for name in ifrnet.COMMANDS), ("weights", "list")], ids=" ".join
)
def test_every_command_shows_the_version(capsys, arguments):
    assert run(capsys, *arguments, "--version") == (0, f"ifrnet-deploy {runtime.__version__}\n", "")


def test_an_error_names_the_subcommand(capsys, tmp_path):
    clip = tmp_path / "no.mp4"
    assert run(capsys, "bench-video", "--clip", str(clip)) == (
        1, "", f"ifrnet bench-video: error: {clip} does not exist: give a video file\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a command is missing: ifrnet --help lists the commands"),
        (("vidoe", "in.mp4"), "'vidoe' is not a command: use 'video'"),
        (("nothing",), "'nothing' is not a command: ifrnet --help lists the commands"),
    ],
)
def test_unknown_commands_are_refused(capsys, arguments, message):
    assert run(capsys, *arguments) == (2, "", f"ifrnet: error: {message}\n")


def test_later_arguments_are_passed_to_the_subcommand(capsys):
    code, out, _ = run(capsys, "weights", "list")
    assert code == 0
    assert out.endswith("ifrnet weights download NAME prints the link.\n")
    table = run_main("ifrnet_model.weights", "list").stdout
    assert out.splitlines()[:-1] == table.splitlines()[:-1]


def test_a_subcommand_of_a_package_that_is_not_there_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setitem(ifrnet.COMMANDS, "build", ifrnet.Command("no_such_package.build", ""))
    assert run(capsys, "build") == (
        1,
        "",
        "ifrnet: error: build needs the package no_such_package, which is not installed: install "
        "all of ifrnet-deploy\n",
    )


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [("video", ["bench-video"]), ("cluster,video", ["bench-cluster", "--model", "no.onnx"])],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, extra, arguments):
    (tmp_path / "in.mp4").touch()
    done = run_without(OPTIONAL, "runtime.cli.ifrnet", *arguments, "--clip", tmp_path / "in.mp4")
    assert done.returncode == 1
    assert f"is not installed: pip install 'ifrnet-deploy[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_program_that_has_only_runtime_names_the_missing_package():
    done = run_without(("export", "bench"), "runtime.cli.ifrnet", "build", "--help")
    assert (done.returncode, done.stderr) == (
        1,
        "ifrnet: error: build needs the package export, which is not installed: install all of "
        "ifrnet-deploy\n",
    )
