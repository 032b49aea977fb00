"""bench.report: tables, labels, reading of evidence, and the command."""

import json
import re
import subprocess
import sys

import pytest

import report_evidence as ev
from bench.report.__main__ import main, tables_as_markdown
from bench.report.evidence import EvidenceError, read_evidence
from bench.report.runs import compared_runs, measured_runs
from bench.report.tables import report_tables
from bench.report.text import Table, markdown_table, markdown_text, signed
from paths import ROOT
from report_evidence import ARTEFACT, BASELINE, evidence_of, latency, parity, write
from runtime.errors import rounded


def report(*arguments):
    """Runs the command; returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    return ended.value.code


# Text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (9.996, "10.0"), (12.34, "12.3"), (105.5, "106"), (1234.4, "1234"),
     (0.09996, "0.100"), (0, "0.00")],
)  # fmt: skip
def test_numbers_have_three_significant_digits_or_all_before_the_point(value, text):
    assert rounded(value) == text


def test_a_difference_has_a_sign_unless_it_rounds_to_zero():
    shown = [signed(value, 3) for value in (0.0123, -0.0123, -0.0001, 0.0)]
    assert shown == ["+0.012", "-0.012", "0.000", "0.000"]


def test_a_markdown_table_is_well_formed_with_any_names():
    nasty = "a|b `c` *d* <e> [f] \\ _g_\nh~i"
    table = Table("latency", "Latency", [{"run": nasty, f"x {nasty}": "1"}], {"\u00b9": nasty})
    lines = markdown_table(table).splitlines()
    rows = [re.split(r"(?<!\\)\|", line) for line in lines[:3]]
    assert {len(row) for row in rows} == {4}
    assert rows[1] == ["", " --- ", " ---: ", ""]
    assert all(sign not in re.sub(r"\\.", "", lines[2]) for sign in "`*<[_~")
    harmless = "small_fp32.onnx on cpu, 1.31x"
    assert markdown_text(harmless) == harmless


# Tables


def test_the_tables_of_one_file_of_each_kind(tmp_path):
    assert report(*ev.write_all(tmp_path, latency(), parity()), "--markdown", tmp_path / "md") == 0
    expected = ROOT / "tests" / "data" / "report_tables.md"
    assert (tmp_path / "md").read_text() == expected.read_text()


H200 = ev.environment({"name": "NVIDIA H200", "compute_capability": "9.0"}, commit="0000000")
BF16_CPU = ["avx", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "fma"]
DRIFTED = [[0.1] * 3] * 5 + [[0.106] * 3] * 5
DRIFT = (
    "drift: the median is 100 ms in the first quarter of the samples and 106 ms in the last; "
    "measure again on an idle, cool machine"
)
FEW = "9 rounds: the confidence interval is unreliable below 10"
SAID_BEFORE = "it was measured in 9 rounds, of fewer than 10 the interval of a ratio says little"
GPU_RUNS = {
    "small.engine on tensorrt": ev.a_run(0.001, file="small.engine", roofline=None),
    "plain.onnx on tensorrt": ev.a_run(0.002, file="plain.onnx", roofline=None, kind="plain"),
}
GPU_CEILINGS = {
    "gpu": "NVIDIA H100", "matmul_fp16_tflops": {"p50": 661.2, "best": 700.0},
    "measured_with": "torch 2.13.0, CUDA 13.0",
}  # fmt: skip
FAILED = {"PyTorch": {"kind": "pytorch", "compare": "torch", "failed": "no pair was interpolated"}}
VERSIONS = "python 3.11.7, torch 2.13.0+cpu"
WITH_WEIGHTS = ev.a_run(0.1, file="small.onnx")
WITH_WEIGHTS["artefact"] |= {"weights_sha256": "b" * 64}
PUBLISHED = {"source": "paper", "psnr": 35.29, "ssim": 0.9693, "ssim_kind": "ssim_3d", "ie": None}
TWO = ev.an_artefact("a.onnx"), ev.an_artefact("b.onnx")
TIME = "2 samples in 82 s (PyTorch, one artefact, metrics)"


@pytest.mark.parametrize(
    ("records", "shown", "missing"),
    [
        # Identical frames are counted; the mean is that of the others.
        ([parity(ev.a_result(identical=7))], ["| 89.0 (7 identical) |"], ["published", "Random"]),
        ([parity({**ev.IDENTICAL, "psnr": None, "reference_psnr": None, "drop": None})],
         ["| identical | identical | - | identical | identical |"], []),
        # Time steps are named if there are several.
        ([parity(ev.a_result(timestep=0.125))], ["| 85.0 (1311, t = 0.125) |"], []),
        ([parity(ev.a_result(ssim_3d=0.95, ie=2.5))],
         ["| SSIM (3D) | IE |", "| 0.9500 | 2.50 |"], ["SSIM (2D)"]),
        ([parity(ev.a_result(ssim_3d=0.5), weights={"random": True})],
         ["| small \\* |", "| - | - | - | 89.0 | 85.0 (1311) | - |", "\n\\* Random weights: "], []),
        ([parity(notes=["Forced."], summary={"damaged": ["0007"], "samples": 1})],
         ["| UCF101 \u00b9 \u00b2 | 1 of 2 |", "\u00b9 UCF101: Forced.",
          "\u00b2 UCF101: 1 damaged, left out: 0007\n"], []),
        ([parity(summary={"wall_seconds": 81.6})], [TIME], []),
        ([parity(summary={"wall_seconds": None})], [], [TIME]),  # A resumed run.
        ([parity(summary={"wall_seconds": 81.6}, official_samples=379)], [], [TIME]),
        ([parity(summary={"wall_seconds": 81.6}, official_samples=None)], [], [TIME]),
        ([parity(), parity(summary={"published": PUBLISHED})],
         ["| published |", "|  |\n", "| 35.29 dB, SSIM (3D) 0.9693 (paper) |"], ["PyTorch here"]),
        ([parity(summary={"published": {
            **PUBLISHED, "measured": {"psnr": 35.28, "ssim": 0.9692, "ie": None}}})],
         ["| published | PyTorch here, from floats |", "| 35.28 dB, SSIM (3D) 0.9692 |"], []),
        # Artefacts are named only if nothing else tells them apart.
        ([parity(ev.a_result(), ev.a_result(), artefacts=TWO)],
         ["| artefact |", "| a.onnx |", "| b.onnx |"], []),
        ([parity(ev.a_result(), ev.a_result(), artefacts=[TWO[0], {**TWO[1], "io": "float"}])],
         [], ["| artefact |", "| a.onnx |"]),
        # The summary has only the shipped weights, with io frames.
        ([parity(weights={"name": "other"})], [], ["Quality, in short"]),
        ([parity(artefacts=[ev.an_artefact(io="float")])], [], ["Quality, in short"]),
        ([parity(weights={"random": True})], [], ["Quality, in short"]),
        # For a data set it has the largest run, and the artefact of it with the lowest agreement.
        ([parity(ev.a_result(worst=80.0), samples=1, summary={"samples": 1}),
          parity(ev.a_result(worst=86.0), ev.a_result(worst=85.5), artefacts=TWO),
          parity(ev.a_result(worst=50.0), artefacts=[ev.an_artefact(precision="int8")]),
          parity(ev.a_result(worst=51.0), artefacts=[
              ev.an_artefact(precision="int8", backend="openvino cpu fp32")])],
         ["to PyTorch, dB |\n| --- | ---: | --- | ---: | ---: | ---: | ---: |\n"
          "| UCF101 | 2 | fp32 | 35.11 | 35.10 | -0.010 | 85.5 |\n"
          "| UCF101 | 2 | int8 | 35.11 | 35.10 | -0.010 | 51.0 |\n"], []),
        # What OpenVINO computes in bfloat16 is not called float32.
        ([parity(ev.a_result(worst=70.0), ev.a_result(worst=86.0),
                 artefacts=[ev.an_artefact("o.onnx", backend="openvino cpu bf16"), TWO[0]])],
         ["| UCF101 | 2 | small | bf16 |", "| UCF101 | 2 | fp32 | 35.11 | 35.10 | -0.010 | 86.0 |"],
         []),
        ([parity(ev.a_result(worst=50.0), artefacts=[
              ev.an_artefact(precision="int8", backend="openvino cpu bf16")])],
         ["| UCF101 | 2 | int8, bf16 | 35.11 | 35.10 | -0.010 | 50.0 |"], []),
        ([parity(ev.IDENTICAL, title="clip.mp4", protocol={"factor": 8}, official_samples=9)],
         ["| clip.mp4, 8x | 2 of 9 | fp32 | 35.11 | 35.10 | -0.010 | identical |"], []),
        # Data sets have the titles that parity knows.
        ([latency(ev.a_case(dataset="ucf101"), ev.a_case(dataset="vimeo90k")), parity()],
         ["| UCF101, 256x448 |", "| Vimeo90K, 256x448 |"], []),
        ([latency(ev.a_case({
            ARTEFACT: ev.a_run(0.1, file="small.onnx", seconds=DRIFTED[1:], warnings=[SAID_BEFORE]),
            BASELINE: ev.a_run(0.1, seconds=DRIFTED),
        }))], [f"| {ARTEFACT} \u00b9 \u00b2 |", f"| {BASELINE} \u00b2 |", f"\n\u00b9 {FEW}\n\n",
               f"\n\u00b2 {DRIFT}\n"], [SAID_BEFORE]),
        ([latency(ev.a_case(GPU_RUNS), ev.a_case({}, size="2160x3840", failed=FAILED),
                  ceilings=GPU_CEILINGS, threads=None)],
         [*(f"| {name} |" for name in GPU_RUNS),
          "Missing in 0.json at 2160x3840: PyTorch (no pair was interpolated).",
          "Ceilings in 0.json: matmul of float16 661 TFLOP/s on NVIDIA H100, measured with torch "
          "2.13.0, CUDA 13.0."], ["2 threads"]),
        ([latency(ev.a_case({ARTEFACT: ev.a_run(0.1, file="f", roofline=None)}),
                  ceilings={"problem": "no torch"})],
         ["| 25.2 | - | - | 1000 | - |", "Ceilings in 0.json: not measured (no torch)."], []),
        ([latency(ev.a_case({ARTEFACT: ev.a_run(0.1, file="f", work=None, cold=None)}))],
         ["## Latency"], ["## Share", "peak memory", "load, s"]),
        # Equal environments are named once; rows of two machines are told apart.
        ([latency(), latency(), latency(environment=H200)],
         [f"| AMD EPYC, 2 CPUs | 2 | {VERSIONS} | 7e5fad1ecb02 | 0.json, 1.json |",
          f"| AMD EPYC, 2 CPUs, NVIDIA H200 | 2 | {VERSIONS} | 0000000 | 2.json |",
          "| AMD EPYC, 2 CPUs |", "| AMD EPYC, 2 CPUs, NVIDIA H200 |"], []),
        # Weights are named where a parity file names them.
        ([latency(ev.a_case({ARTEFACT: WITH_WEIGHTS, BASELINE: ev.a_run(0.2)})),
          parity(weights={"random": True})],
         ["| demo (bbbbbbbb, random) | 1.jsonl, 0.json |"], []),
        # CPUs of the same name with different types are two machines.
        ([latency(), latency(environment=ev.environment(instruction_sets=BF16_CPU))],
         ["| AMD EPYC, 2 CPUs |",
          "| AMD EPYC (avx512_bf16 avx512_vnni avx512f), 2 CPUs |"], []),
    ],
)  # fmt: skip
def test_tables_show_the_expected_texts(tmp_path, records, shown, missing):
    text = tables_as_markdown(report_tables(evidence_of(tmp_path, *records)))
    assert [part for part in shown if part not in text] == []
    assert [part for part in missing if part in text] == []
    assert max(table.count(DRIFT) for table in text.split("\n## ")) <= 1


# Labels


@pytest.mark.parametrize(
    ("cases", "labels"),
    [
        # The name of a file for one size contains the size.
        ([ev.a_case({f"small_{size}.onnx on cpu": ev.a_run(0.1, file="f")}, size=size)
          for size in ("256x448", "720x1280")], ["small.onnx on cpu"] * 2),
        ([ev.a_case({name: ev.a_run(0.1, file="f") for name in ("a_8x8.onnx", "a.onnx")})],
         ["a_8x8.onnx", "a.onnx"]),
        ([ev.a_case({BASELINE: ev.a_run(0.1, variant=variant)}) for variant in ("small", "base")],
         [f"{BASELINE}, small", f"{BASELINE}, base"]),
    ],
)  # fmt: skip
def test_labels_of_runs(tmp_path, cases, labels):
    evidence = evidence_of(tmp_path, latency(*cases))
    assert [one.label for one in measured_runs(evidence)] == labels


def test_an_artefact_has_the_same_label_in_latency_and_parity(tmp_path):
    case = ev.a_case({"small_8x8.onnx on cpu": ev.a_run(0.1, file="f", sha256="1")})
    lines = parity(artefacts=[ev.an_artefact("renamed.onnx", sha256="1")])
    (compared,) = compared_runs(evidence_of(tmp_path, latency(case), lines))
    assert compared.label == "small.onnx on cpu"
    evidence = evidence_of(tmp_path, latency(case, environment=H200), lines)
    (run,), (compared,) = measured_runs(evidence), compared_runs(evidence)
    assert run.label == "small.onnx on cpu (AMD EPYC, 2 CPUs, NVIDIA H200)"
    assert compared.label == "small.onnx on cpu (AMD EPYC, 2 CPUs)"


# Reading


def without(*keys):
    """The evidence of a latency run without an entry of its first case's run."""
    record = latency()
    holder = record["cases"][0]["runs"][ARTEFACT]
    for key in keys[:-1]:
        holder = holder[key]
    del holder[keys[-1]]
    return record


WHOLE = "\n".join(map(json.dumps, parity()))
UNUSABLE = {
    "cut.json": (json.dumps(latency())[:400], "Input data was truncated"),
    "latin.json": (b'{"kind": "\xe9"}', "is not UTF-8 text"),
    "video.json": ({"kind": "video"}, "Invalid enum value 'video' - at `$.kind`"),
    "future.json": (latency(format_version=2), "Invalid enum value 2 - at `$.format_version`"),
    "lacks.json": (without("milliseconds", "p90"),
                   "field `p90` - at `$.cases[0].runs[...].milliseconds`"),
    "warm.json": (without("warm_up", "runs"), "field `runs` - at `$.cases[0].runs[...].warm_up`"),
    "deep.json": ('{"other": ' + "[" * 100_000, "recursion"),
    "deep.jsonl": ('{"other": ' + "[" * 100_000, "recursion"),
    "factor.jsonl": (re.sub('"factor": [0-9]+', '"other": 1', WHOLE), "its protocol has no factor"),
    "empty.json": (latency(ev.a_case({"x": {**ev.a_run(0.1), "seconds": [[]]}})),
                   "its run 'x' at 256x448 has no samples"),
    "size.json": (latency(ev.a_case(size="large")), "the size 'large', not HEIGHTxWIDTH"),
    "ceilings.json": (latency(ceilings={"gpu": "H100"}), "ceilings have only the keys ['gpu']"),
    "rounds.json": (ev.alternatives(ev.a_method("x", 1.0, 2.0)), "different numbers of rounds"),
    "pixels.json": (ev.alternatives(size=[480]), "it has the size [480], not [height, width]"),
    "middle.jsonl": (re.sub(r"\n.*", "\n{", WHOLE, count=1), "(line 2: Input data was truncated)"),
    "broken.jsonl": (parity()[:-1], "its run did not finish"),
    "stopped.jsonl": (WHOLE[:-30], "its run did not finish"),
    "type.jsonl": (parity(summary={"samples": "two"}),
                   "(line 4: Expected `int`, got `str` - at `$.summary.samples`)"),
    "forgot.jsonl": (parity(summary={"artefacts": {}}), "its summary lacks small.onnx"),
}  # fmt: skip
"""Name of an invalid file -> (its content, text that the error must contain)."""


@pytest.fixture
def unusable(tmp_path):
    """A folder with the files of `UNUSABLE`."""
    for name, (content, _) in UNUSABLE.items():
        if isinstance(content, (dict, list)):
            write(tmp_path / name, content)
        else:
            (tmp_path / name).write_bytes(
                content if isinstance(content, bytes) else content.encode()
            )
    return tmp_path


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_given_file_must_be_valid(unusable, name):
    with pytest.raises(EvidenceError) as error:
        read_evidence([unusable / name])
    assert str(unusable / name) in str(error.value)
    assert UNUSABLE[name][1] in str(error.value)
    assert "\n" not in str(error.value)


def test_other_files_of_a_folder_are_ignored_and_named(unusable, capsys):
    write(unusable / "good.json", latency())
    assert report(unusable) == 0
    written = capsys.readouterr()
    assert "| good.json |\n" in written.out
    assert all(f"left out: {unusable / name}" in written.err for name in UNUSABLE)


def test_files_of_a_folder_are_sorted_and_none_is_read_twice(tmp_path):
    for name in "gbfadec":
        write(tmp_path / f"{name}.json", latency())
    evidence = read_evidence([tmp_path, tmp_path / "a.json"])
    assert [file.path.stem for file in evidence.latencies] == list("abcdefg")


@pytest.mark.parametrize(
    ("name", "problem"),
    [("", "no evidence was found"), ("no.json", "No such")],
)
def test_no_evidence_is_an_error_of_one_sentence(tmp_path, capsys, name, problem):
    assert report(tmp_path / name) == 1
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "x.json", latency())
    tables = report_tables(read_evidence([tmp_path / "a", tmp_path / "b"]))
    assert [row["files"] for row in tables["origins"].rows] == ["a/x.json, b/x.json"]


# README and the command


@pytest.fixture
def measured(tmp_path):
    """A folder with one file of bench.latency and one of bench.parity."""
    (tmp_path / "results").mkdir()
    ev.write_all(tmp_path / "results", latency(), parity())
    return tmp_path / "results"


def test_tables_are_written_to_a_page_and_check_names_those_that_differ(measured, tmp_path, capsys):
    path = tmp_path / "README.md"
    # Text outside the markers is not changed.
    page = (
        "# \u00e9\r\n<!-- report:parity -->{}<!-- /report -->\r\n"
        "b\n<!--report:latency-->{}<!--/report-->\r\n"
    )
    path.write_bytes(page.format("old", "\n").encode())
    assert report(measured, "--readme", path) == 0
    tables = report_tables(read_evidence([measured]))
    made = [f"\n\n{markdown_table(tables[name])}\n" for name in ("parity", "latency")]
    assert path.read_bytes() == page.format(*made).encode()
    assert report(measured, "--readme", path, "--check") == 0
    assert "README.md: up to date" in capsys.readouterr().out
    stale = path.read_bytes().replace(b"89.0", b"99.0")
    path.write_bytes(stale)
    assert report(measured, "--readme", path, "--check") == 1
    assert f"tables are out of date in {path} (parity): run this" in capsys.readouterr().err
    assert path.read_bytes() == stale


def test_several_pages_are_written_and_checked_together(measured, tmp_path, capsys):
    text = "<!-- report:{} -->{}<!-- /report -->"
    first, second, third = (tmp_path / f"{name}.md" for name in "abc")
    for path, name in ((first, "parity"), (second, "latency"), (third, "roofline")):
        path.write_text(text.format(name, ""))
    assert report(measured, "--readme", first) == 0
    capsys.readouterr()
    assert report(measured, "--readme", first, second, third, "--check") == 1
    assert f"out of date in {second} (latency); {third} (roofline): " in capsys.readouterr().err
    assert second.read_text() == text.format("latency", "")
    assert report(measured, "--readme", first, second, third) == 0
    assert "a.md: up to date\n" in (said := capsys.readouterr().out)
    assert "b.md: latency renewed\n" in said
    assert report(measured, "--readme", first, second, third, "--check") == 0
    # Every file must have markers; if one cannot be written, none is.
    first.write_text(stale := first.read_text().replace("UCF101", "UCF"))
    second.write_text("no markers")
    assert report(measured, "--readme", first, second) == 1
    assert f"{second} has no markers" in capsys.readouterr().err
    assert first.read_text() == stale


UNPAIRED = "has no markers, or a marker without its counterpart"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("# Title", UNPAIRED),
        ("<!-- report:speed --><!-- /report -->", "the table 'speed', but the evidence gives"),
        ("<!-- report:roofline --><!-- /report -->", "the table 'roofline', but the evidence"),
        ("<!-- report:parity -->", UNPAIRED),
        ("<!-- report:parity --><!-- report:latency --><!-- /report -->", UNPAIRED),
        ("<!-- /report --><!-- report:parity -->", UNPAIRED),
    ],
)
def test_invalid_markers_are_an_error(tmp_path, capsys, text, problem):
    write(tmp_path / "parity.jsonl", parity())
    (tmp_path / "README.md").write_text(text)
    assert report(tmp_path, "--readme", tmp_path / "README.md") == 1
    assert problem in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == text


def test_check_without_a_page_is_an_error(measured, capsys):
    assert report(measured, "--check") == 1
    assert "--check was given without --readme" in capsys.readouterr().err


EXTRA = ["jinja2", "matplotlib", "msgspec", "PIL"]


@pytest.mark.parametrize(
    ("argument", "missing", "shown"),
    [
        ("FOLDER", ["jinja2", "matplotlib", "PIL"], "## Latency"),
        ("FOLDER", EXTRA, "msgspec is not installed: pip install 'ifrnet-deploy[bench]'"),
        ("--help", EXTRA, "usage: "),
    ],
)
def test_the_help_and_tables_need_few_packages(measured, argument, missing, shown):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
        "from bench.report.__main__ import main; main(sys.argv[1:])"
    )
    argument = argument.replace("FOLDER", str(measured))
    done = subprocess.run(
        [sys.executable, "-c", code, argument], capture_output=True, text=True, check=False
    )
    assert shown in done.stdout + done.stderr
    assert done.returncode == ("not installed" in shown)
