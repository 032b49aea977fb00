"""Runs the tests of a mutant in a copy of the checkout."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from mutation.mutants import AREAS, Mutant
from mutation.selection import Recorded, read_record

Outcome = Literal["killed", "timeout", "survived"]

_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
_BROKEN = re.compile(r"^ERROR: found no collectors for (\S+?)::", re.MULTILINE)
"""What pytest says of tests that are named one by one, if their file cannot be imported."""

_ALL_PASSED, _SOME_FAILED, _BROKEN_FILE, _NOT_FOUND, _NOTHING_SELECTED = 0, 1, 2, 4, 5
"""Exit codes of pytest. A file is broken if it cannot be imported; nothing is selected of a file
whose tests all need a GPU or an environment of their own."""

_ALONE_S = 3600.0
"""The longest time of the tests that noticed a mutant, on the unchanged product."""
_TOOLS = Path(__file__).resolve().parents[1]

_TRACED_BY = ("ifrnet_model/", "export/from_checkpoint.py", "export/wrapper.py")
"""Modules that decide what PyTorch traces; tests/conftest.py stores the result in trace-*."""
_CHECKED_BY = (
    "export/candidate.py", "export/gate/", "export/graph/", "export/progress.py",
    "export/request.py", "export/source.py",
)  # fmt: skip
"""Modules that decide what an export makes of the traced graph."""


class MutationError(Exception):
    """The tests cannot judge a mutant."""


@dataclass(frozen=True)
class Verdict:
    """What the tests found.

    Attributes:
        outcome: "killed" if a test failed, "timeout" if they did not end in time, or "survived".
        test: The test that failed; "" where none did.
    """

    outcome: Outcome
    test: str


def mirror(root: Path, module: str) -> list[str]:
    """The test files of a module, the most specific first.

    They are the files named after the module, those that import it by its name, and the others of
    the mirrored folder, or of the nearest folder above that has tests.

    Args:
        root: Folder of the checkout.
        module: Relative path of the module, for example "runtime/frames.py".
    """
    path = Path(module)
    stem = path.parent.name if path.stem == "__init__" else path.stem
    packages = dict.fromkeys((path.parts[0], *(area.partition("/")[0] for area in AREAS)))
    files = [
        file for name in packages for file in sorted((root / "tests" / name).rglob("test_*.py"))
    ]
    name = ".".join(path.with_suffix("").parts)
    by_import = [file for file in files if name in _names(file)]
    folder = root / "tests" / path.parent
    while not (beside := sorted(folder.glob("test_*.py"))) and folder != root / "tests":
        folder = folder.parent
    own = [file for file in beside if file.stem.startswith(f"test_{stem}")]
    own += sorted(file for file in files if file.parent.name == stem and folder in file.parents)
    ordered = dict.fromkeys([*own, *by_import, *beside])
    return [file.relative_to(root).as_posix() for file in ordered]


@cache
def _names(file: Path) -> frozenset[str]:
    """The dotted names in a test file, those of "from package import module" included."""
    text = file.read_text("utf-8")
    named = set(re.findall(r"\b\w+(?:\.\w+)+", text))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            named.update(f"{node.module}.{one.name}" for one in node.names)
    return frozenset(named)


@contextmanager
def copies(root: Path, count: int) -> Iterator[list[Path]]:
    """Clones of a checkout in temporary folders, with its changes that are not committed."""
    changed = _listed(root, "--modified", "--others", "--exclude-standard")
    deleted = _listed(root, "--deleted")
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        made = [Path(folder) / str(number) for number in range(count)]
        for copy in made:
            subprocess.run(["git", "clone", "--quiet", "--shared", root, copy], check=True)
            for name in changed - deleted:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
            for name in deleted:
                (copy / name).unlink()
        yield made


def _listed(root: Path, *options: str) -> set[str]:
    """The files that git lists with these options, relative to the checkout."""
    command = ["git", "-C", str(root), "ls-files", "-z", *options]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name}


def run_tests(copy: Path, tests: Sequence[str], exports: Path, seconds: float) -> Verdict:
    """Runs tests of a copy until one fails.

    Args:
        copy: Folder of the copy.
        tests: Test files or tests, in the order in which they run.
        exports: Folder of the graphs that the tests export and share.
        seconds: Time after which the tests are stopped.

    Raises:
        MutationError: If pytest did not run the tests, with the end of its output.
    """
    try:
        output, code = _output(copy, ["-x", *tests], exports, seconds)
    except subprocess.TimeoutExpired:
        return Verdict("timeout", "")
    if code in (_ALL_PASSED, _NOTHING_SELECTED):
        return Verdict("survived", "")
    if code in (_SOME_FAILED, _BROKEN_FILE) and (found := _FAILED.search(output)):
        return Verdict("killed", found[1])
    if code == _NOT_FOUND and (found := _BROKEN.search(output)):
        return Verdict("killed", Path(found[1]).relative_to(copy).as_posix())
    if code < 0:
        return Verdict("killed", f"the process of the tests, by signal {-code}")
    raise MutationError(f"pytest ended with {code} and named no test: {output[-300:]}")


def _output(copy: Path, arguments: Sequence[str], exports: Path, seconds: float) -> tuple[str, int]:
    """What pytest prints, and its exit code. All processes that the tests started are ended.

    Raises:
        subprocess.TimeoutExpired: If it takes longer than `seconds`.
    """
    process = _pytest(copy, arguments, exports)
    try:
        output, _ = process.communicate(timeout=seconds)
    finally:
        # Processes that the tests started belong to the same session.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    return output, process.returncode


def _pytest(
    copy: Path, arguments: Iterable[str], exports: Path, **variables: str
) -> subprocess.Popen[str]:
    """Starts pytest in a copy, in a session of its own, with more environment variables."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{copy}{os.pathsep}{_TOOLS}", "PYTHONDONTWRITEBYTECODE": "1", "CI": "1",
        "OMP_NUM_THREADS": "1", "IFRNET_TEST_EXPORTS": str(exports), **variables,
    }  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider"]
    return subprocess.Popen(
        [*command, *arguments], cwd=copy, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def record(copy: Path, tests: Sequence[str], exports: Path, workers: int) -> Recorded:
    """Runs tests on the unchanged product, and returns what each of them does.

    Args:
        copy: Folder of the copy.
        tests: Relative paths of the test files.
        exports: Folder in which the tests store the graphs that they export and share.
        workers: Number of processes that run the tests.

    Raises:
        MutationError: If a test fails, which would kill every mutant.
    """
    with tempfile.TemporaryDirectory(prefix="record-") as folder:
        several = [f"-n{workers}", "--dist=loadfile"] if workers > 1 else []
        options = ["-pmutation.recorder", *several]
        process = _pytest(copy, [*options, *tests], exports, MUTATION_RECORD=folder)
        output, _ = process.communicate()
        if process.returncode not in (_ALL_PASSED, _NOTHING_SELECTED):
            found = _FAILED.search(output)
            raise MutationError(
                f"{found[1] if found else output[-300:]} does not pass on the unchanged product: "
                "mend it first"
            )
        return read_record(Path(folder), copy)


def failing(copy: Path, tests: Sequence[str], exports: Path) -> set[str]:
    """Runs tests on the unchanged product, without those that ran before them in `record`.

    Returns:
        Those that fail: they do not show that a mutant was noticed.

    Raises:
        MutationError: If pytest did not run the tests, with the end of its output.
    """
    output, code = _output(copy, tests, exports, _ALONE_S)
    found = set(_FAILED.findall(output))
    if code == _ALL_PASSED or (code == _SOME_FAILED and found):
        return found
    raise MutationError(f"pytest ended with {code}: {output[-300:]}")


@contextmanager
def exports_of(module: str, exports: Path) -> Iterator[Path]:
    """The folder of those graphs that a change of a module leaves as they are.

    The tests make the others, and keep them in a folder of their own.

    Args:
        module: Relative path of the module.
        exports: Folder of the graphs of the unchanged product.
    """
    traced = module.startswith(_TRACED_BY)
    if not traced and not module.startswith(_CHECKED_BY):
        yield exports
        return
    with tempfile.TemporaryDirectory(prefix="exports-") as own:
        if not traced:
            for trace in exports.glob("trace-*"):
                shutil.copy2(trace, own)
        yield Path(own)


def judge(
    mutant: Mutant, copy: Path, tests: Sequence[str], exports: Path, seconds: float
) -> Verdict:
    """Applies a mutant in a copy, runs the tests, and restores the module.

    Args:
        mutant: The mutant.
        copy: Folder of the copy.
        tests: From `select_tests`.
        exports: Folder of the graphs of the unchanged product.
        seconds: Time after which a mutant counts as a timeout.
    """
    if not tests:  # pytest would run all of them.
        return Verdict("survived", "")
    path = copy / mutant.path
    source = path.read_text("utf-8")
    path.write_text(mutant.apply(source), "utf-8")
    try:
        with exports_of(mutant.path, exports) as usable:
            return run_tests(copy, tests, usable, seconds)
    finally:
        path.write_text(source, "utf-8")
