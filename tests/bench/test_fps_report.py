"""The short table of bench.latency, its page, and the frames of data sets on disk."""

import json
import math

import numpy as np
import pytest
from PIL import Image

import report_evidence as ev
from bench import latency
from bench.data.protocols import PROTOCOLS
from bench.environment import MeasurementError
from bench.harness import measure
from bench.harness.interleave import Interleaving
from bench.report.answers import agreement_in_words, answers
from bench.report.fps import fps_table
from bench.report.text import text_table
from bench.runs.agreement import agreement_of_frames
from bench.runs.case import case_of_dataset
from commands import need_torch
from report_evidence import ARTEFACT, BASELINE, a_case, a_run, evidence_of, parity


def write_triplet(folder, size=(50, 70), seed=0):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in ("frame_00.png", "frame_01_gt.png", "frame_02.png"):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs bench.latency in this process; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "ON_CPU", Interleaving(1, 0.0))
    monkeypatch.setattr("bench.harness.interleave._WARM_UP_SECONDS", 0.0)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            latency.main(
                [*map(str, arguments), "--no-cold-start", "--samples", "2", "--seconds", "0"]
            )
        printed = capsys.readouterr()
        return left.value.code, printed.out, printed.err

    return run


# Command


def test_a_report_has_the_table_the_page_and_the_evidence(models, run, tmp_path):
    need_torch()
    code, printed, error = run(
        "--model", models / "frames.onnx", "--size", "50x70", "--backend", "onnxruntime",
        "--report", "report.html",
    )  # fmt: skip
    assert code == 0, error
    record = json.loads((tmp_path / "report.json").read_text())
    (case,) = record["cases"]
    # The artefact has the shipped weights, so that PyTorch is measured without being asked for.
    assert list(case["runs"]) == ["frames.onnx on onnxruntime cpu", BASELINE]
    assert case["frames"] == {"made": True, "root_name": None, "samples": []}
    agreed = case["runs"]["frames.onnx on onnxruntime cpu"]["agreement"]
    assert (agreed["frames"], agreed["reference"]) == (1, BASELINE)
    assert agreed["psnr_db"] is None or agreed["psnr_db"] > 60
    page = (tmp_path / "report.html").read_text()
    for text in ("How many new frames a second?", "indistinguishable from PyTorch", "In short"):
        assert text in page
    table = printed[printed.index("\nsize ") :]
    assert "equal to PyTorch, dB" in table
    assert "Frames are made" in table


def test_frames_of_a_data_set_are_measured_and_compared(models, run, tmp_path):
    need_torch()
    for number in range(5):
        write_triplet(tmp_path / "ucf101_interp_ours" / str(number), seed=number)
    code, printed, error = run(
        "--model", models / "frames.onnx", "--dataset", "ucf101", "--root", tmp_path,
        "--weights", "demo", "--backend", "onnxruntime", "--json", "new.json",
    )  # fmt: skip
    assert code == 0, error
    (case,) = json.loads((tmp_path / "new.json").read_text())["cases"]
    assert (case["dataset"], case["size"]) == ("ucf101", "50x70")
    assert case["frames"]["samples"] == ["0", "1", "2", "3"]
    assert case["runs"]["frames.onnx on onnxruntime cpu"]["agreement"]["frames"] == 4
    assert "UCF101: frames of the samples 0, 1, 2, 3." in printed


def test_without_weights_the_table_says_that_pytorch_was_not_measured(models, run):
    code, printed, error = run(
        "--model", models / "frames.onnx", "--size", "50x70", "--backend", "onnxruntime"
    )
    assert code == 0, error
    assert printed.splitlines()[-1] == (
        "PyTorch was not measured: give its checkpoint with --weights."
    )
    assert "against PyTorch" not in printed


def test_other_weights_are_not_called_equal(midpoint_model, run, tmp_path):
    need_torch()
    code, _, error = run(
        "--model", midpoint_model, "--size", "50x70", "--backend", "onnxruntime",
        "--weights", "demo", "--json", "new.json",
    )  # fmt: skip
    assert code == 0, error
    (case,) = json.loads((tmp_path / "new.json").read_text())["cases"]
    (artefact,) = (run for run in case["runs"].values() if run["kind"] == "artefact")
    assert artefact["agreement"] is None


# Frames


def test_samples_are_spread_over_the_set_and_each_is_timed_in_turn(tmp_path):
    for number in range(9):
        write_triplet(tmp_path / str(number), seed=number)
    case = case_of_dataset("ucf101", tmp_path)
    assert case.samples.names == ("0", "2", "4", "6")
    first = np.asarray(Image.open(tmp_path / "2" / "frame_02.png"))
    np.testing.assert_array_equal(case.timed[1][1], first)
    assert case.timed is case.compared

    seen = []

    class Recorder:
        def interpolate(self, *pair, timesteps):
            seen.append((pair[0], timesteps))

        def steps_for_factor(self, factor):
            return [k / factor for k in range(1, factor)]

    call = measure._pairs_in_turn(measure.OpenedRun(None, None, Recorder()), case)
    for _ in range(5):
        call()
    order = [next(k for k, pair in enumerate(case.timed) if pair[0] is img0) for img0, _ in seen]
    assert order == [0, 1, 2, 3, 0]
    assert seen[0][1] == [0.5]


def test_frames_are_taken_whole_without_the_crop_of_the_protocol(tmp_path):
    assert PROTOCOLS["gopro"].crop == (512, 512)
    folder = tmp_path / "GOPR0384_11_00"
    folder.mkdir()
    for number in range(9):
        Image.new("RGB", (1280, 720), (number, 0, 0)).save(folder / f"{number:06}.png")
    case = case_of_dataset("gopro", tmp_path)
    assert (case.size, case.factor) == ((720, 1280), 8)
    assert case.timed[0][1][0, 0, 0] == 8


def test_samples_of_two_sizes_are_refused(tmp_path):
    write_triplet(tmp_path / "1")
    write_triplet(tmp_path / "2", size=(64, 64))
    with pytest.raises(MeasurementError, match=r"sample 1 of .* has frames of 50x70 and sample 2"):
        case_of_dataset("ucf101", tmp_path)


def test_the_agreement_of_frames_equals_figures_computed_by_hand():
    grey = np.full((4, 4, 3), 100, np.uint8)
    brighter = grey + np.uint8(1)
    found = agreement_of_frames([grey, grey], [grey, brighter], "r")
    one_level = 20 * math.log10(255)
    assert found["worst_psnr_db"] == pytest.approx(one_level, abs=1e-4)
    assert found["psnr_db"] == pytest.approx(one_level + 10 * math.log10(2), abs=1e-4)
    assert found["max_difference"] == pytest.approx(1 / 255)
    same = agreement_of_frames([grey], [grey], "r")
    assert (same["psnr_db"], same["worst_psnr_db"], same["frames"]) == (None, None, 1)


# Table


AGREED = {
    "psnr_db": 94.2, "worst_psnr_db": 87.31, "frames": 4, "finite": True, "max_difference": 0.1,
    "reference": BASELINE,
}  # fmt: skip


def bf16(*seconds, **changes):
    run = a_run(*seconds, file="small.onnx", agreement=AGREED, **changes)
    run["artefact"] |= {"precision": "fp32", "inference_precision": "bf16"}
    return run


def table_of(*cases, **options):
    return fps_table([(case, "") for case in cases], **options)


def test_a_row_has_three_significant_digits_the_ratio_and_the_agreement():
    runs = {ARTEFACT: bf16(5.78), BASELINE: a_run(7.6)}
    table = table_of(a_case(runs, dataset="ucf101", failed={}))
    (row,) = table.rows
    assert row["data set"] == "UCF101"
    assert row["new frames/s"] == "0.173"
    assert row["equal to PyTorch, dB"] == "94.2 (worst 87.3)"
    assert row["against PyTorch"].startswith("1.31x (1.28 to 1.35)")
    assert f"the artefact computes in bf16, {BASELINE} in fp32" in table.notes.values()
    assert any(f"as fast as {BASELINE};" in sentence for sentence in table.sources)


def test_a_ratio_of_an_int8_artefact_names_both_of_its_types():
    run = bf16(0.1)
    run["artefact"]["precision"] = "int8"
    table = table_of(a_case({ARTEFACT: run, BASELINE: a_run(0.3)}))
    assert f"the artefact computes in int8, bf16, {BASELINE} in fp32" in table.notes.values()


def test_a_ratio_of_equal_types_has_no_caveat():
    half = a_run(0.2, pytorch={"name": "authors:half"})
    engine = a_run(0.1, file="small.engine", agreement=None)
    engine["artefact"] |= {"precision": "fp16"}
    table = table_of(a_case({"small.engine": engine, "PyTorch half": half}))
    assert not [note for note in table.notes.values() if "computes in" in note]


def test_the_ratio_is_that_to_the_fastest_pytorch_run():
    case = a_case({ARTEFACT: bf16(0.1), BASELINE: a_run(0.3), "PyTorch compiled": a_run(0.2)})
    for ratio in case["ratios"]:
        ratio["p50"] = 3.0 if ratio["slower"] == BASELINE else 2.0
    table = table_of(case)
    assert table.rows[0]["against PyTorch"].startswith("2.00x")
    assert any("as fast as PyTorch compiled;" in text for text in table.sources)


def test_a_ratio_to_a_run_that_is_not_in_the_file_is_left_out():
    case = a_case()
    case["ratios"][0]["slower"] = "another"
    assert table_of(case).rows[0]["against PyTorch"] == ""


def test_the_short_table_of_a_page_has_the_fastest_artefact_of_each_case():
    case = a_case({"slow": bf16(0.2), "fast": bf16(0.1), BASELINE: a_run(0.3)})
    assert [row["run"].split()[0] for row in table_of(case).rows] == ["slow", "fast"]
    assert [row["run"].split()[0] for row in table_of(case, fastest_only=True).rows] == ["fast"]


def test_without_artefacts_the_runs_of_pytorch_are_shown_and_a_failure_is_named():
    case = a_case({BASELINE: a_run(0.3)}, failed={"PyTorch compiled": {"failed": "no compiler"}})
    table = table_of(case)
    assert [row["run"].split(" \N{SUPERSCRIPT ONE}")[0] for row in table.rows] == [BASELINE]
    assert "PyTorch compiled is missing: no compiler." in table.sources


def test_the_table_of_a_terminal_is_aligned():
    lines = text_table(table_of(a_case(), a_case(size="720x1280")))
    heading, *rows = lines[:3]
    for title in ("run", "size"):
        assert heading.index(title) == 0 or all(
            row[heading.index(title) - 1] == " " for row in rows
        )
    assert heading.endswith("  against PyTorch")


# Answers


@pytest.mark.parametrize(
    ("worst", "words"),
    [
        (math.inf, "indistinguishable from PyTorch"),
        (60.0, "indistinguishable from PyTorch"),
        (59.9, "equal to PyTorch within one 8-bit level"),
        (48.0, "close to PyTorch"),
        (39.9, "different from PyTorch"),
    ],
)
def test_the_lowest_psnr_decides_the_words(worst, words):
    assert agreement_in_words(worst) == words


def answered(folder, *records):
    return {
        question: (answer, detail)
        for question, answer, detail in answers(evidence_of(folder, *records))
    }


def test_latency_alone_answers_all_questions(tmp_path):
    runs = {ARTEFACT: bf16(0.1), BASELINE: a_run(0.131)}
    found = answered(tmp_path, ev.latency(a_case(runs, factor=8)))
    assert found["How many new frames a second?"][0] == "10.0 at 256x448, 8x"
    answer, detail = found["How much faster than PyTorch?"]
    assert answer == "1.31x as fast (1.28 to 1.35)"
    assert detail.endswith(f" The artefact computes in bf16, {BASELINE} in fp32.")
    answer, detail = found["Is it equal to PyTorch?"]
    assert answer == ("indistinguishable from PyTorch: 94.2 dB in the mean, worst frame 87.3 dB")
    assert found["Can I trust it?"][0] == "2 timed runs of 30 samples or more, none with a warning"


def test_parity_answers_by_type_and_names_the_worst_frame(tmp_path):
    int8 = ev.an_artefact("int8.onnx", precision="int8", sha256="f" * 64)
    results = ev.a_result(worst=87.4), ev.a_result(mean=54.0, worst=50.5, sample="68")
    found = answered(tmp_path, parity(*results, artefacts=[ev.an_artefact(), int8]))
    assert list(found) == ["Is it equal to PyTorch?", "Can I trust it?"]
    answer, detail = found["Is it equal to PyTorch?"]
    assert answer == (
        "fp32: indistinguishable from PyTorch: 89.0 dB in the mean, worst frame 87.4 dB; "
        "int8: equal to PyTorch within one 8-bit level: 54.0 dB in the mean, worst frame 50.5 dB"
    )
    assert "int8: int8.onnx on UCF101, sample 68." in detail
    assert "falls by 0.010 dB at most" in detail
    assert found["Can I trust it?"][0] == "the whole of UCF101"


def test_identical_frames_are_called_identical(tmp_path):
    found = answered(tmp_path, parity(ev.IDENTICAL))
    assert found["Is it equal to PyTorch?"][0] == (
        "indistinguishable from PyTorch: every frame is identical"
    )


def test_changes_that_are_not_committed_and_warnings_are_said(tmp_path):
    run = {ARTEFACT: bf16(0.1, warm_up={"runs": 2, "steady": False})}
    record = ev.latency(a_case(run), environment=ev.environment(commit="0123+"))
    answer, detail = answered(tmp_path, record)["Can I trust it?"]
    assert answer.endswith("1 with a warning")
    assert "Commit 0123+. + stands for changes that are not committed." in detail
