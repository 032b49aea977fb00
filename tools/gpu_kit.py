"""Makes a bare Python 3.10 with the wheels for a GPU machine without a network.

python tools/gpu_kit.py TARGET [PIP OPTION ...]

TARGET/bin/python is a Python 3.10 without packages; TARGET/site has the wheels, for PYTHONPATH.
The wheels are those of WHEELS in ../shared/gpu/stage.py, beside the checkout. If TARGET has them
already, nothing is done. If they are not available, it exits with 3 and one line on stderr.
"""

from __future__ import annotations

import ast
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

STAGE = Path(__file__).resolve().parents[2] / "shared" / "gpu" / "stage.py"
VERSION = "3.10"
PLATFORMS = ("2_28", "2_27", "2_24", "2_17")
UNAVAILABLE = 3


class KitError(Exception):
    """The environment cannot be made here; the message is the reason."""


def wheels(stage: Path = STAGE) -> list[str]:
    """The requirements of the kit, for example "numpy==2.2.6".

    Raises:
        KitError: If the file is missing, or assigns no WHEELS.
    """
    if not stage.is_file():
        raise KitError("../shared/gpu/stage.py, which names the wheels, is not beside the checkout")
    for statement in ast.parse(stage.read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "WHEELS":
            return list(ast.literal_eval(statement.value))
    raise KitError(f"{stage.name} assigns no WHEELS")


def find_python() -> str:
    """Finds a Python of VERSION on PATH or in pyenv.

    Raises:
        KitError: If there is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = (*map(Path, os.get_exec_path()), *sorted(pyenv.glob(f"versions/{VERSION}.*/bin")))
    for folder in folders:
        python = folder / f"python{VERSION}"
        # A version manager puts commands on PATH that start no Python.
        if python.is_file() and has_venv(python):
            return str(python)
    raise KitError(f"no Python {VERSION} is on PATH or in pyenv")


def has_venv(python: Path) -> bool:
    """Whether a command is a Python with the module venv."""
    command = [str(python), "-c", "import venv"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def make(target: Path, pip_options: list[str]) -> None:
    """Makes the environment, unless `target` is one with the same wheels.

    Raises:
        KitError: If that is not possible here.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise KitError(f"the wheels are for Linux on x86-64, not {platform.platform()}")
    names = wheels()
    state = "\n".join([str(target.resolve()), *names])
    done = target / "state"
    if done.is_file() and done.read_text() == state:
        print(f"{target}: Python {VERSION} with {len(names)} wheels, made earlier")
        return
    python = find_python()
    shutil.rmtree(target, ignore_errors=True)
    run("venv", [python, "-m", "venv", "--without-pip", str(target)])
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    pip += ["--no-deps", "--only-binary=:all:", "--python-version", VERSION]
    pip += [f"--platform=manylinux_{glibc}_x86_64" for glibc in PLATFORMS]
    run("pip", [*pip, "--target", str(target / "site"), *pip_options, *names])
    done.write_text(state)
    print(f"{target}: Python {VERSION} with {len(names)} wheels")


def run(name: str, command: list[str]) -> None:
    """Runs a command; `name` is for the message.

    Raises:
        KitError: If it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it gave no reason"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise KitError(f"{name} cannot make the environment ({reason})")


def main() -> None:
    """The command line."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: gpu_kit.py TARGET [PIP OPTION ...]")
    try:
        make(Path(sys.argv[1]), sys.argv[2:])
    except KitError as error:
        print(error, file=sys.stderr)
        sys.exit(UNAVAILABLE)


if __name__ == "__main__":
    main()
