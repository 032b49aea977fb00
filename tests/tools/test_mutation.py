"""The mutants of tools/mutation, their tests, and the command on a small checkout."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.environment import MeasurementError
from mutation import __main__ as command
from mutation.mutants import AREAS, Mutant, area_of, draw, modules, mutants_of
from mutation.runs import (
    MutationError,
    Verdict,
    copies,
    exports_of,
    failing,
    judge,
    mirror,
    record,
)  # fmt: skip
from mutation.selection import Recorded, select_tests, statement_lines

SUMS = '''from __future__ import annotations


def total(values: list[int] | None) -> int | None:
    """The sum."""
    assert values is not None
    number = 0
    while values:
        number = number + values.pop()
    return number
'''
TEST = """from runtime.sums import total


def test_the_sum_of_three_and_five():
    assert total([3, 5]) == 8
"""
TEST_OF_NOTHING = """def test_that_there_is_a_module():
    import runtime.other
"""
OTHER = "def unused(a, b):\n    return a + b\n"


@pytest.fixture
def checkout(tmp_path):
    """A repository with two modules, one of which is tested."""
    root = tmp_path / "checkout"
    for name, content in {
        "runtime/__init__.py": "",
        "runtime/sums.py": SUMS,
        "runtime/other.py": OTHER,
        "tests/runtime/test_sums.py": TEST,
        "tests/runtime/test_other.py": TEST_OF_NOTHING,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"],
    ):
        subprocess.run(["git", "-C", root, *arguments], check=True)
    return root


def lines_of(source):
    return {(mutant.line, *mutant.diff(source)) for place in mutants_of("m.py", source)
            for mutant in place}  # fmt: skip


def test_places_are_changed_except_those_without_effect():
    assert sorted({line for line, *_ in lines_of(SUMS)}) == [7, 8, 9]
    assert (7, "-    number = 0", "+    number = 1") in lines_of(SUMS)
    assert (8, "-    while values:", "+    while not values:") in lines_of(SUMS)


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n    a = 1 + 2\n",
        "@dataclass(frozen=True)\nclass A:\n    b: int | None\n",
        "class A:\n    def f(self, a: int | None = None, *rest: int | str) -> str | None: ...\n",
        "assert a == 1\n",
    ],
)
def test_code_without_effect_has_no_mutants(source):
    kept = [mutant for place in mutants_of("m.py", source) for mutant in place]
    assert all(mutant.operator == "core/RemoveDecorator" for mutant in kept)
    assert len(kept) == ("dataclass" in source)


def test_a_change_that_is_no_python_is_known():
    source = "def f(*, a):\n    return a * 2\n"
    found = [mutant for place in mutants_of("m.py", source) for mutant in place]
    ands = {mutant.line: mutant.compiles(source) for mutant in found if "BitAnd" in mutant.operator}
    assert ands == {1: False, 2: True}


def test_a_place_has_its_alternatives():
    (place,) = mutants_of("m.py", "a = b < c\n")
    assert len(place) > 3
    assert {tuple(mutant.diff("a = b < c\n")) for mutant in place} >= {
        ("-a = b < c", "+a = b <= c"), ("-a = b < c", "+a = b == c"),
    }  # fmt: skip


def test_a_sample_is_the_same_for_a_seed_and_has_each_area():
    places = {
        area: [[Mutant(f"{area}/m.py", line, "o", n) for n in range(3)] for line in range(20)]
        for area in AREAS
    }
    sample = draw(places, 13, 1, bool)
    assert {area: len(found) for area, found in sample.items()} == dict(
        zip(AREAS, (3, 3, 3, 2, 2), strict=True)
    )
    assert all(len({mutant.line for mutant in found}) == len(found) for found in sample.values())
    assert sample == draw(places, 13, 1, bool)
    assert sample != draw(places, 13, 2, bool)
    assert len(draw({"bench": places["bench"]}, 50, 1, bool)["bench"]) == 20
    odd = draw(places, 13, 1, lambda mutant: mutant.line % 2)
    assert {area: len(found) for area, found in odd.items()} == {
        area: len(found) for area, found in sample.items()
    }
    assert all(mutant.line % 2 for found in odd.values() for mutant in found)


def test_a_module_belongs_to_one_area():
    assert area_of("runtime/backends/ort/backend.py") == "runtime/backends"
    assert area_of("runtime/video/scenes.py") == "runtime"


def test_the_modules_of_the_product(checkout):
    assert modules(checkout, []) == ["runtime/__init__.py", "runtime/other.py", "runtime/sums.py"]
    assert modules(checkout, ["runtime/s"]) == ["runtime/sums.py"]


def test_the_tests_of_a_module_are_those_named_after_it_first(tmp_path):
    for name, content in {
        "bench/quality/test_metrics.py": "", "bench/quality/test_cluster.py": "",
        "bench/test_latency.py": "from bench.quality.metrics import psnr",
        "bench/test_video.py": "from bench.quality import (\n    metrics,\n)",
        "bench/metrics/test_ssim.py": "", "runtime/test_other.py": "import bench.quality.metrics",
        "docs/test_pages.py": "import bench.quality.metrics",
    }.items():  # fmt: skip
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).write_text(content)
    assert mirror(tmp_path, "bench/quality/metrics.py") == [
        "tests/bench/quality/test_metrics.py",
        "tests/bench/test_latency.py",
        "tests/bench/test_video.py",
        "tests/runtime/test_other.py",
        "tests/bench/quality/test_cluster.py",
    ]
    assert mirror(tmp_path, "bench/quality/deep/other.py") == [
        "tests/bench/quality/test_cluster.py",
        "tests/bench/quality/test_metrics.py",
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_lines_of_each_test_and_its_processes_are_recorded(checkout, tmp_path, workers):
    (checkout / "tests" / "runtime" / "test_other.py").write_text(
        "import subprocess\nfrom runtime import other, sums\n\n"
        "def test_a_process():\n    subprocess.run(['true'])\n    assert other.unused(1, 2) == 3\n"
    )
    files = mirror(checkout, "runtime/sums.py")
    recorded = record(checkout, files, tmp_path, workers)
    total = "tests/runtime/test_sums.py::test_the_sum_of_three_and_five"
    started = "tests/runtime/test_other.py::test_a_process"
    assert recorded.seconds.keys() == {total, started}
    assert recorded.processes == {started}
    assert set(recorded.lines["runtime/sums.py"][9]) == {total}
    assert set(recorded.lines["runtime/sums.py"][4]) == {""}
    assert set(recorded.lines["runtime/other.py"][2]) == {started}


TESTS = {"a.py::fast": 1.0, "a.py::slow": 90.0, "b.py::far": 2.0, "b.py::process": 40.0,
         "c.py::process": 3.0, "a.py::slowest": 200.0}  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # Those that execute the statement, then those whose processes may.
        ({9: ["b.py::far", "a.py::fast"]}, ["a.py::fast", "b.py::far", "b.py::process"]),
        ({10: ["a.py::slow"]}, ["b.py::process"]),
        ({}, ["b.py::process"]),
        # At import: all of the files, without those that take too long.
        ({9: [""]}, ["a.py::fast", "b.py::far", "b.py::process"]),
        ({9: ["a.py::slowest"]}, ["b.py::process"]),
    ],
)
def test_the_tests_of_a_mutant_are_those_that_execute_its_statement(lines, expected):
    recorded = Recorded(TESTS, frozenset(["b.py::process", "c.py::process"]), {"m.py": lines})
    mutant = Mutant("m.py", 9, "o", 0)
    found = select_tests(mutant, SUMS, recorded, ["a.py", "b.py"])
    assert found == expected


STATEMENTS = """@cache
def f(a=1):
    b = (
        a + 1
    )
    with (
        open(b),
    ):
        match b:
            case 1 | 2:
                pass
    try:
        pass
    except (
        OSError
    ):
        pass
"""


@pytest.mark.parametrize(
    ("line", "lines"), [(1, (1, 2)), (2, (1, 2)), (4, (3, 5)), (7, (6, 8)), (9, (9, 9)),
                        (10, (10, 10)), (11, (11, 11)), (15, (14, 16))]
)  # fmt: skip
def test_the_lines_of_a_statement(line, lines):
    found = statement_lines(STATEMENTS, line)
    assert (found[0], found[-1]) == lines


def test_tests_that_fail_without_a_change_are_found(checkout, tmp_path):
    tests = mirror(checkout, "runtime/sums.py")
    assert failing(checkout, tests, tmp_path) == set()
    path = checkout / "tests" / "runtime" / "test_sums.py"
    path.write_text(TEST.replace("8", "9"))
    assert failing(checkout, tests, tmp_path) == {f"{tests[0]}::test_the_sum_of_three_and_five"}
    with pytest.raises(MutationError, match="pytest ended with 4: "):
        failing(checkout, ["tests/missing.py"], tmp_path)


def mutant_with(added, source=SUMS):
    (found,) = (
        mutant
        for place in mutants_of("runtime/sums.py", source)
        for mutant in place
        if added in mutant.diff(source)
    )
    return found


@pytest.mark.parametrize(
    ("module", "usable"),
    [
        ("runtime/frames.py", {"once-1", "trace-1"}),
        ("bench/latency.py", {"once-1", "trace-1"}),
        ("export/trt/build.py", {"once-1", "trace-1"}),
        ("export/graph/passes.py", {"trace-1"}),
        ("export/candidate.py", {"trace-1"}),
        ("export/wrapper.py", set()),
        ("ifrnet_model/layers.py", set()),
    ],
)
def test_graphs_are_made_again_if_they_depend_on_the_module(tmp_path, module, usable):
    for name in ("once-1", "trace-1"):
        (tmp_path / name).write_text("a graph")
    with exports_of(module, tmp_path) as folder:
        assert {path.name for path in folder.iterdir()} == usable
        (folder / "once-2").write_text("made by a test")
    assert (tmp_path / "once-2").exists() == ("once-1" in usable)


def test_a_failing_test_kills_a_mutant_and_the_module_is_restored(checkout, tmp_path):
    tests = mirror(checkout, "runtime/sums.py")
    verdict = judge(mutant_with("+    number = 1"), checkout, tests, tmp_path, 600)
    assert verdict == Verdict(
        "killed", "tests/runtime/test_sums.py::test_the_sum_of_three_and_five"
    )
    assert (checkout / "runtime" / "sums.py").read_text() == SUMS


def test_a_mutant_without_tests_survives(checkout, tmp_path):
    assert judge(mutant_with("+    number = 1"), checkout, [], tmp_path, 600).outcome == "survived"


def test_tests_that_do_not_end_are_a_timeout(checkout, tmp_path):
    endless = "import time\n\n\ndef test_endless():\n    time.sleep(3600)\n"
    (checkout / "tests" / "runtime" / "test_sums.py").write_text(endless)
    tests = mirror(checkout, "runtime/sums.py")
    verdict = judge(mutant_with("+    number = 1"), checkout, tests, tmp_path, 5)
    assert verdict == Verdict("timeout", "")


def test_a_module_that_cannot_be_imported_is_killed(checkout, tmp_path):
    broken = "tests/runtime/test_sums.py"
    (checkout / broken).write_text("import nothing_of_this_name\n")
    for tests in ([broken], [f"{broken}::test_the_sum_of_three_and_five"]):
        verdict = judge(mutant_with("+    number = 1"), checkout, tests, tmp_path, 600)
        assert verdict == Verdict("killed", broken)


def test_copies_have_what_is_not_committed(checkout):
    (checkout / "runtime" / "sums.py").write_text("changed = True\n")
    (checkout / "runtime" / "added.py").write_text("")
    (checkout / "runtime" / "other.py").unlink()
    with copies(checkout, 2) as made:
        assert len(made) == 2
        for copy in made:
            assert (copy / "runtime" / "sums.py").read_text() == "changed = True\n"
            assert {path.name for path in (copy / "runtime").iterdir()} == {
                "__init__.py", "added.py", "sums.py"
            }  # fmt: skip
    assert not made[0].exists()


def run(monkeypatch, checkout, *arguments):
    monkeypatch.setattr(command, "ROOT", checkout)
    command._mutate(command.make_parser().parse_args(["--workers", "1", *arguments]))


def test_the_command_counts_mutants_and_shows_those_that_survive(
    checkout, tmp_path, monkeypatch, capsys
):
    file = tmp_path / "mutation.json"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "mutation"])
    run(monkeypatch, checkout, "--sample", "9", "--seed", "3", "--json", str(file))
    output = capsys.readouterr().out
    record = json.loads(file.read_text())
    outcomes = {
        module: {one["outcome"] for one in record["mutants"] if one["module"] == module}
        for module in ("runtime/sums.py", "runtime/other.py")
    }
    assert outcomes == {"runtime/sums.py": {"killed"}, "runtime/other.py": {"survived"}}
    survivors = sum(one["outcome"] == "survived" for one in record["mutants"])
    total = len(record["mutants"])
    assert record["areas"] == {"runtime": {"killed": total - survivors, "survived": survivors}}
    assert f"runtime          {total - survivors:4} of {total:4} noticed" in output
    assert "runtime/other.py:2: survived\n  -    return a + b\n  +    return a " in output
    assert output.startswith("2 test files on the unchanged product")


def test_a_stopped_run_is_continued(checkout, tmp_path, monkeypatch, capsys):
    verdicts, arguments = tmp_path / "verdicts", ("--within", "runtime/sums.py", "--sample", "3")
    run(monkeypatch, checkout, *arguments, "--resume", str(verdicts))
    lines = verdicts.read_text().splitlines()
    assert len(lines) == 3
    # One verdict is there, one is of another change, and one is missing.
    kept, other = json.loads(lines[0]), {**json.loads(lines[1]), "diff": ["+another change"]}
    kept["outcome"], kept["test"] = "survived", ""
    verdicts.write_text(f"{json.dumps(kept)}\n{json.dumps(other)}\n")
    capsys.readouterr()
    run(monkeypatch, checkout, *arguments, "--resume", str(verdicts))
    output = capsys.readouterr().out
    assert "3 of 3: runtime/sums.py:" in output
    assert "1 of 3: " not in output
    assert "runtime             2 of    3 noticed" in output
    assert sorted(verdicts.read_text().splitlines()[2:]) == sorted(lines[1:])


def test_a_test_that_fails_alone_without_a_change_shows_nothing(
    checkout, tmp_path, monkeypatch, capsys
):
    needs_another = TEST.replace("import total", "import sums").replace("total(", "sums.total(")
    needs_another = needs_another.replace(
        "def test_the", "def test_first():\n    sums.known = 8\n\n\ndef test_the"
    ).replace("== 8", "== sums.known")
    (checkout / "tests" / "runtime" / "test_sums.py").write_text(
        needs_another.replace("from runtime.sums", "from runtime")
    )
    run(monkeypatch, checkout, "--within", "runtime/sums.py", "--sample", "2")
    output = capsys.readouterr().out
    assert "five fails without a change: runtime/sums.py:" in output
    assert "runtime             0 of    2 noticed" in output


def test_a_test_that_fails_without_a_change_ends_the_command(checkout, monkeypatch):
    (checkout / "tests" / "runtime" / "test_sums.py").write_text(TEST.replace("8", "9"))
    with pytest.raises(MutationError, match=r"test_the_sum_of_three_and_five does not pass on the"):
        run(monkeypatch, checkout, "--within", "runtime/sums.py")


def test_an_error_ends_the_command_before_the_others_are_judged(checkout, monkeypatch):
    judged, cancelled = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            super().shutdown(wait, cancel_futures=cancel_futures)
            if cancel_futures:
                cancelled.set()

    def judge(mutant, *_):
        judged.append(mutant)
        if len(judged) > 1:
            assert cancelled.wait(60)
        raise MutationError("pytest is broken")

    monkeypatch.setattr(command, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(command, "judge", judge)
    with pytest.raises(MutationError, match="pytest is broken"):
        run(monkeypatch, checkout, "--sample", "5")
    assert len(judged) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--within", "nowhere"], "--within names no module that can be changed: nowhere; give"),
        (["--within", "runtime/__init__.py"], "--within names no module that can be changed: runt"),
        (["--sample", "0"], "--sample is 0: use 1 or more"),
        (["--workers", "0"], "--workers is 0: use 1 or more"),
    ],
)
def test_wrong_arguments_are_refused_before_a_test_runs(checkout, monkeypatch, arguments, message):
    with pytest.raises(MeasurementError, match=f"^{message}"):
        run(monkeypatch, checkout, *arguments)
