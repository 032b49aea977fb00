import importlib
import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import latency
from bench.environment import MeasurementError
from bench.harness import cold_start as cold
from bench.harness import layers, measure, opening, request
from bench.harness.cold_start import first_pair, measure_cold_start
from bench.harness.interleave import Interleaving, parts_interleaved
from bench.harness.planning import plan_runs
from bench.harness.roofline import Ceilings
from bench.harness.text import case_lines
from bench.runs import artefact as latency_runs
from bench.runs.artefact import ArtefactRun, artefact_runs
from bench.runs.authors import authors_forward, warp_linspace
from bench.runs.case import Case, case_of_dataset
from bench.runs.frames import noise_frames
from bench.runs.pytorch import pytorch_runs
from commands import run_main
from export.store import write_onnx
from export.trt.build import Profile
from paths import ROOT
from runtime.backends.base import OpenOptions
from runtime.model_info import ModelInfo

SMALL = Case(None, (50, 70), 2, None)
RUN_KEYS = {
    "kind", "artefact", "variant", "milliseconds", "milliseconds_per_frame", "fps", "samples",
    "seconds", "warm_up", "warnings", "work", "roofline", "cold", "parts_of_a_call_milliseconds",
    "stream", "pytorch", "agreement",
}  # fmt: skip


def test_the_file_can_be_run_as_a_command(models, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "latency.py"), "--model",
         str(models / "frames.onnx"), "--size", "50x70", "--samples", "1", "--seconds", "0",
         "--no-cold-start", "--backend", "onnxruntime"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "frames.onnx on onnxruntime cpu" in done.stdout


def test_the_command_writes_its_evidence(models, tmp_path):
    evidence = tmp_path / "latency.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.latency", "--model", str(models / "frames.onnx"),
         "--size", "50x70", "--weights", "demo", "--compare", "torch", "authors",
         "--samples", "4", "--seconds", "0",
         "--threads", "1", "--backend", "onnxruntime", "--json", str(evidence)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "x as fast as PyTorch eager (authors) (95% interval" in done.stdout
    record = json.loads(evidence.read_text())
    assert (record["kind"], record["format_version"], record["threads"]) == ("latency", 1, 1)
    assert record["ceilings"]["measured_with"].endswith("1 thread")
    assert record["layers_milliseconds"] == {}
    assert record["environment"]["versions"]["torch"]
    assert record["environment"]["processor"]
    (case,) = record["cases"]
    assert (case["dataset"], case["size"], case["factor"]) == (None, "50x70", 2)
    artefact, *baselines = case["runs"]
    assert artefact == "frames.onnx on onnxruntime cpu"
    assert baselines == ["PyTorch eager (torch)", "PyTorch eager (authors)"]
    assert [(r["slower"], r["faster"]) for r in case["ratios"]] == [
        (name, artefact) for name in baselines
    ]
    for name, run in case["runs"].items():
        check_run(run, ceilings=record["ceilings"])
        assert (run["kind"] == "artefact") == (name == artefact) == (run["artefact"] is not None)
    for ratio in case["ratios"]:
        slower, faster = (case["runs"][ratio[key]]["milliseconds"] for key in ("slower", "faster"))
        assert ratio["p50"] == pytest.approx(slower["p50"] / faster["p50"])
        assert ratio["low"] <= ratio["p50"] <= ratio["high"]
    said = case["runs"][artefact]["artefact"]
    assert len(said["sha256"]) == len(said["weights_sha256"]) == 64
    assert said["bytes"] == (models / "frames.onnx").stat().st_size
    assert said["file"] == "frames.onnx"
    assert said["variant"] == "small"
    assert (said["precision"], said["io"], said["tuned_for"]) == ("fp32", "frames", "any")
    assert (said["flow_scale"], said["frames_per_call"]) == (1.0, 1)


def check_run(run, *, ceilings):
    """Checks the record of a run on a CPU, measured with --samples 4 --seconds 0."""
    assert run.keys() == RUN_KEYS
    seconds = [s for samples in run["seconds"] for s in samples]
    assert [len(samples) for samples in run["seconds"]] == [1, 1, 1, 1]
    assert run["samples"] == 4
    median = np.median(seconds)
    assert run["milliseconds"]["p50"] == pytest.approx(1e3 * median)
    assert run["milliseconds_per_frame"] == pytest.approx(1e3 * median)
    assert run["fps"] == pytest.approx(1 / median)
    assert run["warm_up"].keys() == {"runs", "steady"}
    assert run["variant"] == "small"
    # The work at 64x80, to which frames are padded.
    assert run["work"]["operations"] == pytest.approx(25.19e9 * 64 * 80 / 256 / 448, rel=0.01)
    reached = run["work"]["operations"] / median
    assert run["roofline"]["flops_per_second"] == pytest.approx(reached)
    share = reached / ceilings["matmul_flops_per_second"]
    assert run["roofline"]["share_of_matmul"] == pytest.approx(share)
    assert all(run["cold"][key] > 0 for key in ("import_seconds", "load_seconds"))
    assert run["cold"]["first_pair_seconds"] > 0
    assert run["cold"]["device_bytes"] is None
    assert (run["parts_of_a_call_milliseconds"], run["stream"]) == ({}, None)


@pytest.fixture
def fast(monkeypatch):
    """Makes measurements fast: no pauses, two calls of warm-up, short streams, known ceilings."""
    for name in ("ON_GPU", "ON_CPU"):
        monkeypatch.setattr(measure, name, Interleaving(1, 0.0))
    monkeypatch.setattr("bench.harness.interleave._WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr("bench.harness.request.STREAM_FRAMES", 3)
    monkeypatch.setattr(parts_interleaved, "__kwdefaults__", {"interleaving": Interleaving(1, 0.0)})
    monkeypatch.setattr(
        "bench.harness.roofline.measured_ceilings", lambda _: Ceilings(1e12, 1e11, "known")
    )


@pytest.fixture
def measured(fast, tmp_path, capsys):
    """Runs the command in this process; returns (record, printed text)."""

    def run(*arguments):
        evidence = tmp_path / "evidence.json"
        backend = [] if "--backend" in arguments else ["--backend", "onnxruntime"]
        with pytest.raises(SystemExit) as left:
            latency.main(
                [*map(str, arguments), "--no-cold-start", "--samples", "2", "--seconds", "0",
                 *backend, "--json", str(evidence)]
            )  # fmt: skip
        printed = capsys.readouterr()
        assert left.value.code == 0, printed.err
        return json.loads(evidence.read_text()), printed.out

    return run


@pytest.fixture
def refused(tmp_path, capsys):
    """Runs the command in this process; returns its error message."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            latency.main([*map(str, arguments), "--no-cold-start"])
        assert left.value.code == 1
        (sentence,) = capsys.readouterr().err.splitlines()
        return sentence.removeprefix("python -m bench.latency: error: ")

    return run


# Cases and runs


def test_a_dataset_gives_frame_size_factor_and_flow_scale():
    assert case_of_dataset("vimeo90k") == Case("vimeo90k", (256, 448), 2, 1.0)
    assert case_of_dataset("snufilm") == Case("snufilm", (720, 1280), 2, 0.8)
    assert case_of_dataset("xtest") == Case("xtest", (2160, 4096), 8, 1.0)


def artefact(size=None, *, io="frames", limits=None, flow_scale=1.0, **changes):
    model = ModelInfo(
        variant="small", weights_sha256="0" * 64, precision="fp32", io=io, divisor=16,
        flow_scale=flow_scale, time_steps="arbitrary", steps_per_call=1, pairs_per_call=1,
        height=size and size[0], width=size and size[1], warp="gridsample", tuned_for="any",
        tool_version="0",
    )  # fmt: skip
    model = ModelInfo(**{**vars(model), **changes})
    path = Path("m.onnx")
    return ArtefactRun("m on x", path, "m.onnx", OpenOptions(), model, False, limits, {})


def test_an_artefact_runs_at_the_sizes_that_it_supports():
    cases = [Case(None, size, 2, None) for size in ((50, 70), (64, 80), (96, 96))]
    for made, taken in (
        (artefact((50, 70)), [True, False, False]),
        (artefact((64, 80), io="float"), [True, True, False]),  # Pads to its size.
        (artefact(), [True, True, True]),
        (artefact(limits=((64, 64), (96, 96))), [False, True, True]),
        (artefact(limits=((64, 64), (90, 96))), [False, True, False]),
    ):
        assert [made.takes(case.size) for case in cases] == taken
        plan = plan_runs([c for c, t in zip(cases, taken, strict=True) if t], [made], [])
        assert all(runs == [made] for _, runs in plan)


@pytest.mark.parametrize(
    ("made", "sizes"),
    [
        (artefact((50, 70)), "50x70"),
        (artefact((64, 80), io="float"), "64x80 and sizes that pad to it"),
        (artefact(limits=((64, 64), (90, 96))), "64x64 to 90x96"),
    ],
)
def test_an_artefact_without_a_size_and_a_size_without_an_artefact_are_errors(made, sizes):
    cases = [Case(None, size, 2, None) for size in ((32, 32), (48, 32))]
    with pytest.raises(
        MeasurementError, match=f"m.onnx accepts {sizes}, but not 32x32, 48x32: .* "
    ):
        plan_runs(cases, [made], [])
    cases.append(Case(None, made.model.size or (64, 64), 2, None))
    with pytest.raises(MeasurementError, match=r"no artefact accepts 32x32: build one with python"):
        plan_runs(cases, [made], [])


def test_if_no_artefact_fits_pytorch_is_measured_alone_with_a_note(capsys):
    (baseline,) = pytorch_runs(["authors"], "demo", threads=1)
    small = artefact((50, 70))
    plan = plan_runs([SMALL, Case(None, (32, 32), 2, None)], [small], [baseline])
    assert [runs for _, runs in plan] == [[small, baseline], [baseline]]
    assert "no artefact accepts 32x32: only the baselines" in capsys.readouterr().out


def test_several_sizes_are_several_cases(models, measured):
    files = [models / "frames.onnx", models / "dynamic.onnx"]
    record, printed = measured("--model", *files, "--size", "50x70", "64x80", "50x70")
    found = [(case["size"], [*case["runs"]]) for case in record["cases"]]
    fixed, free = (f"{path.name} on onnxruntime cpu" for path in files)
    assert found == [("50x70", [fixed, free]), ("64x80", [free])]
    assert "64x80, factor 2" in printed


def test_files_of_the_same_name_are_separate_runs(models, tmp_path, measured):
    shutil.copy(models / "frames.onnx", tmp_path / "frames.onnx")
    files = [models / "frames.onnx", tmp_path / "frames.onnx", tmp_path / "frames.onnx"]
    record, _ = measured("--model", *files, "--size", "50x70")
    assert [*record["cases"][0]["runs"]] == [f"{path} on onnxruntime cpu" for path in files[:2]]


def test_midpoint_weights_reach_other_factors_by_recursion(
    midpoint_model, midpoint_checkpoint, measured
):
    record, _ = measured(
        "--model", midpoint_model, "--size", "50x70", "--factor", "4",
        "--weights", midpoint_checkpoint, "--compare", "torch",
    )  # fmt: skip
    (case,) = record["cases"]
    assert len(case["runs"]) == 2
    for run in case["runs"].values():
        assert run["fps"] == pytest.approx(3e3 / run["milliseconds"]["p50"])
        assert run["milliseconds_per_frame"] == pytest.approx(run["milliseconds"]["p50"] / 3)
        one = 25.19e9 * 64 * 80 / 256 / 448
        assert run["work"]["operations"] == pytest.approx(3 * one, rel=0.01)


def test_pytorch_alone_shares_work_of_time_steps_if_its_formulation_can(measured):
    record, printed = measured(
        "--weights", "demo", "--compare", "torch", "authors", "--size", "50x70", "--factor", "4"
    )
    (case,) = record["cases"]
    ours, authors = case["runs"].values()
    assert ours["work"]["operations"] < authors["work"]["operations"]
    assert case["ratios"] == []
    assert "no ratio" not in printed
    assert record["ceilings"]["measured_with"] == "known"


def test_compiled_pytorch_is_a_separate_run(measured, monkeypatch):
    compiled = []

    def compile_(function, **options):
        compiled.append(options)
        return function

    monkeypatch.setattr("torch.compile", compile_)
    record, _ = measured("--weights", "demo", "--compare", "compile", "--size", "50x70")
    assert [*record["cases"][0]["runs"]] == ["PyTorch compiled (torch)"]
    assert compiled == [{"dynamic": False}]


def test_a_failing_compiler_is_an_error(fast, refused, monkeypatch):
    def fails(*_):
        raise RuntimeError("no C++ compiler\nand a long tale")

    monkeypatch.setattr("torch.compile", lambda *_, **__: fails)
    said = refused("--weights", "demo", "--compare", "compile", "--size", "50x70")
    assert said == ("torch.compile does not work (no C++ compiler): leave compile out of --compare")


def test_runs_with_different_work_have_no_ratio(models, tmp_path, measured):
    from bench.runs.authors import random_network

    torch = importlib.import_module("torch")
    torch.save(random_network("base").state_dict(), tmp_path / "base.pth")
    record, printed = measured(
        "--model", models / "frames.onnx", "--size", "50x70",
        "--weights", tmp_path / "base.pth", "--compare", "torch",
    )  # fmt: skip
    (case,) = record["cases"]
    assert case["ratios"] == []
    assert [run["variant"] for run in case["runs"].values()] == ["small", "base"]
    assert "their variant or flow scale differs" in printed


def test_another_flow_scale_than_that_of_the_protocol_is_noted(models, measured, monkeypatch):
    monkeypatch.setattr(request, "case_of_dataset", lambda name, _: Case(name, (50, 70), 2, 0.8))
    record, printed = measured(
        "--model", models / "frames.onnx", "--dataset", "snufilm", "vimeo90k",
        "--weights", "demo", "--compare", "torch",
    )  # fmt: skip
    assert [case["dataset"] for case in record["cases"]] == ["snufilm", "vimeo90k"]
    sentence = "its flow scale is 1, that of the protocol of snufilm is 0.8"
    # PyTorch uses the flow scale of the artefact.
    for run in record["cases"][0]["runs"].values():
        assert any(warning.startswith(sentence) for warning in run["warnings"])
    assert printed.count(sentence) == 3  # Of both runs, and in the table at the end.


def test_pytorch_alone_uses_the_flow_scale_of_the_protocol():
    (run,) = pytorch_runs(["torch"], "demo", threads=1)
    case = Case("snufilm", (60, 80), 2, 0.8)
    assert run.info(case).flow_scale == 0.8
    assert run.info(SMALL).flow_scale == 1.0
    (beside,) = pytorch_runs(["torch"], "demo", threads=1, artefacts=[artefact(flow_scale=0.5)])
    assert beside.info(case).flow_scale == 0.5


# Errors

MODEL = ("--model", "m.onnx")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "neither --model nor --compare was given"),
        ((*MODEL, "--compare", "torch"), "--compare was given without --weights"),
        ((*MODEL, "--root", "."), "--root has 1 folder and --dataset 0 names: give one folder"),
        (
            (*MODEL, "--dataset", "ucf101", "--root", ".", ".."),
            "--root has 2 folders and --dataset 1 name: give one folder",
        ),
        ((*MODEL, "--dataset", "ucf101", "--root", "no/such"), "no/such does not exist"),
        ((*MODEL, "--report", "no/such/folder/f.html"), "no/such/folder does not exist"),
        ((*MODEL, "--report", "f.json"), "--report f.json is also the name of its evidence"),
        ((*MODEL, "--dataset", "gopro", "--factor", "4"), "--factor was given with --dataset"),
        ((*MODEL, "--no-cuda-graph"), "--no-cuda-graph was given without an engine"),
        ((*MODEL, "--no-io-binding"), "--no-io-binding was given without an ONNX file"),
        (
            ("--model", "small.engine", "--device", "cuda", "--no-io-binding"),
            "--no-io-binding was given without an ONNX file",
        ),
        ((*MODEL, "--factor", "1"), "--factor is 1: use 2 or more"),
        ((*MODEL, "--samples", "0"), "--samples is 0: use 1 or more"),
        ((*MODEL, "--seconds", "-1"), "--seconds is -1.0: use 0 or more"),
        ((*MODEL, "--seconds", "nan"), "--seconds is nan: use 0 or more"),
        ((*MODEL, "--threads", "0"), "--threads is 0: use 1 or more"),
        ((*MODEL, "--stream-frames", "1"), "--stream-frames is 1: use 2 or more"),
        ((*MODEL, "--compare-limit", "0"), "--compare-limit is 0.0: use 1 or more"),
        ((*MODEL, "--size", "15x70"), "--size is 15x70: use 16x16 or more"),
        ((*MODEL, "--json", "no/such/folder/f.json"), "no/such/folder does not exist"),
        ((*MODEL, "--json", "."), "--json . cannot be written"),
        (MODEL, "m.onnx does not exist"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(refused, arguments, sentence):
    assert sentence in refused(*arguments)


def test_a_factor_that_weights_do_not_support_is_refused(midpoint_model, refused):
    said = refused("--model", midpoint_model, "--size", "50x70", "--factor", "3")
    assert "factors are powers of two" in said


def test_an_artefact_of_another_size_is_refused(models):
    done = run_main("bench.latency", "--model", models / "frames.onnx", "--size", "64x80")
    assert done.returncode == 1
    assert "frames.onnx accepts 50x70, but not 64x80: build a model with" in done.stderr


def test_the_baseline_does_not_use_the_module_of_this_project():
    """The reference must not share code with the module that it checks."""
    for function in (authors_forward, warp_linspace):
        names = function.__code__.co_names
        assert not {"warp", "IFRNet", "ResBlock", "Decoder"} & set(names)


# A process for the first pair


def test_the_first_pair_of_a_fresh_process(models):
    ballast = np.ones(40_000_000)  # 320 MB of this process, which the new one must not count.
    (run,) = artefact_runs([models / "frames.onnx"], device=None, threads=1)
    found = measure_cold_start(run.name, run.request(SMALL))
    times = ("import_seconds", "load_seconds", "first_pair_seconds")
    assert all(found[name] > 0 for name in times)
    assert 20e6 < found["peak_host_bytes"] < ballast.nbytes
    assert found["device_bytes"] is None


def test_the_error_of_a_failed_process_is_in_the_message(models, tmp_path):
    gone = tmp_path / "gone.onnx"
    shutil.copy(models / "frames.onnx", gone)
    (run,) = artefact_runs([gone], device=None, threads=1)
    gone.unlink()
    with pytest.raises(MeasurementError, match=r"gone.onnx on .*gone.onnx does not exist.*--no-c"):
        measure_cold_start(run.name, run.request(SMALL))


def test_a_process_loads_the_given_weights(midpoint_checkpoint):
    runs = pytorch_runs(["torch", "authors"], str(midpoint_checkpoint), threads=1)
    assert len(runs) == 2
    for run in runs:
        request = json.loads(json.dumps(run.request(Case(None, (50, 70), 4, None))))
        found = first_pair(request)  # Factor 4, for which midpoint weights need recursion.
        assert found["first_pair_seconds"] > 0
        assert found["device_bytes"] is None


def test_the_gpu_memory_of_an_engine_is_recorded(trt10, engine):
    (run,) = artefact_runs([engine()], device=None, threads=1)
    found = first_pair(json.loads(json.dumps(run.request(SMALL))))
    assert found["device_bytes"] > 3 * 50 * 70 * 3


def test_the_cold_start_includes_all_imports():
    code = (
        "import sys, bench.harness.cold_start; "
        "print({'numpy', 'runtime', 'torch', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_figures_of_the_cold_start_are_in_the_record(models, fast, monkeypatch, capsys):
    asked = []
    figures = {
        "import_seconds": 1.0, "load_seconds": 2.0, "first_pair_seconds": 3.0,
        "peak_host_bytes": 4 * 2**20, "device_bytes": 5 * 2**20,
    }  # fmt: skip
    monkeypatch.setattr(
        opening, "measure_cold_start", lambda name, _: asked.append(name) or figures
    )
    (run,) = artefact_runs([models / "frames.onnx"], device=None, threads=1)
    for wanted in (True, False):
        options = measure.MeasureOptions(2, 0.0, wanted, None, False, 1)
        record, _ = measure.measure_case(SMALL, [run], options, None)
        assert record["runs"][run.name]["cold"] == (figures if wanted else None)
        text = "\n".join(case_lines(record, {}, threads=1))
        line = "first pair 3.00 s, 4 MiB of host memory, 5 MiB of GPU memory"
        assert (line in text) == wanted
    assert asked == [run.name]


def test_the_folder_of_the_packages_is_found_from_anywhere():
    assert cold._ROOT == ROOT


# Precisions


@pytest.fixture
def any_precision(monkeypatch):
    """Makes OpenVINO compute in float32 under the name of the requested precision.

    Real bfloat16 needs a CPU that has it.
    """
    real = latency_runs.open_backend

    def in_float32(path, options, **kept):
        precision = None if options.precision is None else "fp32"
        opened = real(path, replace(options, precision=precision), **kept)
        if options.precision is not None:
            opened.precision = options.precision
            opened.name = f"openvino cpu {options.precision}"
        return opened

    monkeypatch.setattr(latency_runs, "open_backend", in_float32)


@pytest.mark.parametrize("order", [("fp32", "bf16", "fp16"), ("bf16", "fp32", "bf16")])
def test_an_artefact_is_a_run_in_every_precision_and_compared_with_the_first(
    any_precision, models, tmp_path, measured, order
):
    record, printed = measured(
        "--model", models / "frames.onnx", models / "dynamic.onnx", "--size", "50x70",
        "--backend", "openvino", "--streams", "1", "2", "--threads", "2", "--precision", *order,
        "--stream-frames", "2",
    )  # fmt: skip
    (case,) = record["cases"]
    precisions = list(dict.fromkeys(order))
    made = {
        (file, precision, more): f"{file} on openvino cpu {precision}{more}"
        for file in ("frames.onnx", "dynamic.onnx")
        for precision in precisions
        for more in ("", ", 2 streams")
    }
    assert [*case["runs"]] == [*made.values()]
    for (_, precision, _), name in made.items():
        assert case["runs"][name]["artefact"]["inference_precision"] == precision
    compared = {(ratio["slower"], ratio["faster"]): ratio for ratio in case["ratios"]}
    assert compared.keys() == {
        (made[file, order[0], more], name)
        for (file, precision, more), name in made.items()
        if precision != order[0]
    }
    for (slow, fast), ratio in compared.items():
        before, after = (case["runs"][name]["milliseconds"]["p50"] for name in (slow, fast))
        assert ratio["p50"] == pytest.approx(before / after)
        assert f"{fast} is {ratio['p50']:.2f}x as fast as {slow} (95% interval" in printed
    report = run_main("bench.report", tmp_path / "evidence.json")
    assert report.returncode == 0, report.stderr
    assert f"against frames.onnx on openvino cpu {order[0]}" in report.stdout


def test_one_precision_is_part_of_the_backends_name(any_precision, models, measured):
    for precision in ("fp32", "bf16"):
        record, printed = measured(
            "--model", models / "frames.onnx", "--size", "50x70", "--backend", "openvino",
            "--precision", precision,
        )  # fmt: skip
        assert [*record["cases"][0]["runs"]] == [f"frames.onnx on openvino cpu {precision}"]
        assert record["cases"][0]["ratios"] == []
        assert "as fast as" not in printed


def test_a_backend_without_precisions_refuses_several(models, refused):
    said = refused(
        "--model", models / "frames.onnx", "--backend", "onnxruntime",
        "--precision", "fp32", "bf16",
    )  # fmt: skip
    assert said.startswith("precision=fp32 is not for ONNX Runtime: leave it out")


# Without PyTorch


def test_without_pytorch_work_is_not_counted_and_a_note_is_printed(models, measured, monkeypatch):
    monkeypatch.delitem(sys.modules, "bench.harness.roofline", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    record, printed = measured("--model", models / "frames.onnx", "--size", "50x70")
    (run,) = record["cases"][0]["runs"].values()
    assert (run["work"], run["roofline"]) == (None, None)
    assert record["ceilings"] == {"problem": "the package torch is not installed"}
    assert "the package torch is not installed: operations are not counted" in printed


# Engines


def test_an_engine_is_a_run_for_every_number_of_streams_with_and_without_graph(
    trt10, engine, measured, monkeypatch
):
    record, printed = measured(
        "--model", engine(), "--size", "50x70", "--streams", "1", "2", "--no-cuda-graph",
        "--stream-frames", "4",
    )  # fmt: skip
    on = "frames.engine on tensorrt 10.3.0 cuda:0"
    (case,) = record["cases"]
    wanted = {
        f"{on}, {streams} {'stream' if streams == 1 else 'streams'}, {graph}": (streams, recorded)
        for streams in (1, 2)
        for graph, recorded in (("CUDA graph", True), ("no CUDA graph", False))
    }
    assert case["runs"].keys() == wanted.keys()
    for name, run in case["runs"].items():
        assert run.keys() == RUN_KEYS
        assert (run["artefact"]["streams"], run["artefact"]["cuda_graph"]) == wanted[name]
        assert len(run["artefact"]["sha256"]) == 64
        parts = run["parts_of_a_call_milliseconds"]
        assert parts.keys() == {"h2d", "compute", "d2h"}
        assert all(len(part["samples"]) == 2 for part in parts.values())
        assert run["stream"]["pairs"] == 3
        assert len(run["stream"]["seconds"]) == 3
        assert run["work"]["operations"] > 0
        assert run["roofline"] is None
    assert record["threads"] is None
    assert "sees no GPU" in record["ceilings"]["problem"]
    assert "pairs per second" in printed
    # The GPU check reads such evidence.
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    found = importlib.import_module("gpu_check_summary")
    steps = {"latency_frames": {"result": record}}
    one = case["runs"][f"{on}, 1 stream, CUDA graph"]
    parts = one["parts_of_a_call_milliseconds"]
    assert found.compute_ms(steps, "latency_frames", "frames.engine") == parts["compute"]["p50"]


def test_an_onnx_file_on_cuda_is_a_run_with_and_without_io_binding(models, measured, monkeypatch):
    real = latency_runs.open_backend

    def on_cpu(path, options, **kept):
        """Opens a backend as on a GPU: with I/O binding unless it is switched off."""
        assert options.device == "cuda"
        binding = options.io_binding is not False
        return real(path, replace(options, device="cpu", io_binding=binding), **kept)

    monkeypatch.setattr(latency_runs, "open_backend", on_cpu)
    record, _ = measured(
        "--model", models / "frames.onnx", "--size", "50x70", "--device", "cuda",
        "--no-io-binding",
    )  # fmt: skip
    runs = record["cases"][0]["runs"]
    made = {name.partition(", ")[2]: run["artefact"]["io_binding"] for name, run in runs.items()}
    assert made == {"I/O binding": True, "no I/O binding": False}
    assert all(run["milliseconds"]["p50"] > 0 for run in runs.values())


def test_pytorch_beside_an_engine_runs_on_the_cpu_with_a_note(trt10, engine, measured):
    record, printed = measured(
        "--model", engine(), "--size", "50x70", "--weights", "demo", "--compare", "torch"
    )
    on_gpu, pytorch = record["cases"][0]["runs"].values()
    assert "it ran on the CPU, other runs on a GPU" in pytorch["warnings"][-1]
    assert not any("on the CPU" in warning for warning in on_gpu["warnings"])
    assert "it ran on the CPU" in printed
    assert pytorch["roofline"] is not None
    assert on_gpu["roofline"] is None
    assert record["threads"] >= 1


def test_an_engine_whose_size_is_free_has_no_graph(trt10, engine, measured, refused):
    path = engine("dynamic", profile=Profile((32, 32), (64, 80), (96, 96)))
    record, _ = measured("--model", path, "--size", "50x70", "--no-cuda-graph")
    (name,) = record["cases"][0]["runs"]
    assert name.endswith("no CUDA graph")
    said = refused("--model", path, "--size", "97x96")
    assert "dynamic.engine accepts 32x32 to 96x96, but not 97x96" in said


def test_several_time_steps_need_one_call_or_several(trt10, engine, measured):
    models = [engine("three"), engine("frames")]
    record, _ = measured("--model", *models, "--size", "50x70", "--factor", "4")
    runs = record["cases"][0]["runs"].values()
    together, apart = sorted(runs, key=lambda run: -run["artefact"]["frames_per_call"])
    assert (together["artefact"]["frames_per_call"], apart["artefact"]["frames_per_call"]) == (3, 1)
    assert together["work"]["operations"] < apart["work"]["operations"]
    for run in runs:
        assert run["fps"] == pytest.approx(3e3 / run["milliseconds"]["p50"])


# Layers


@pytest.mark.parametrize("graph", ["frames", "float", "batch"])
def test_the_profile_has_every_layer_of_an_engine(trt10, engine, measured, graph):
    size = "48x64" if graph == "float" else "50x70"
    path = engine(graph)
    record, printed = measured("--model", path, "--size", size, "--profile")
    found = record["layers_milliseconds"][path.name]
    assert len(found) > 100
    assert all(ms == 1.0 for _, ms in found)  # The time of every layer of the fake.
    assert f"{len(found)} layers, {len(found)}.000 ms in total" in printed


@pytest.mark.parametrize("graph", ["frames", "float", "batch", "three"])
def test_the_profile_has_every_node_of_an_onnx_file(
    sources, tmp_path, measured, graph, monkeypatch
):
    monkeypatch.setitem(measure._PROFILED_CALLS, "onnx", 1)
    monkeypatch.chdir(tmp_path)
    write_onnx(sources[graph].model, tmp_path / "m.onnx")
    size = "48x64" if graph == "float" else "50x70"
    record, printed = measured("--model", tmp_path / "m.onnx", "--size", size, "--profile")
    found = record["layers_milliseconds"]["m.onnx"]
    assert any(name.startswith(("Conv ", "FusedConv ")) for name, _ in found)
    assert all(ms >= 0 for _, ms in found)
    assert sum(ms for _, ms in found) > 0
    assert f"{len(found)} layers" in printed
    assert {path.name for path in tmp_path.iterdir()} <= {"m.onnx", "evidence.json"}  # No trace.


@pytest.mark.parametrize("graph", ["frames", "float", "batch", "three", "dynamic"])
def test_the_profile_has_type_and_precision_of_every_layer_in_openvino(
    sources, tmp_path, measured, graph, monkeypatch
):
    monkeypatch.setitem(measure._PROFILED_CALLS, "onnx", 1)
    write_onnx(sources[graph].model, tmp_path / "m.onnx")
    size = "48x64" if graph == "float" else "50x70"
    record, printed = measured(
        "--model", tmp_path / "m.onnx", "--size", size, "--backend", "openvino", "--streams", "1",
        "2", "--threads", "2", "--stream-frames", "2", "--profile",
    )  # fmt: skip
    assert record["layers_milliseconds"].keys() == {"m.onnx"}  # Once for both numbers of streams.
    found = record["layers_milliseconds"]["m.onnx"]
    named = [name for name, _ in found if name.startswith("Convolution ")]
    assert len(named) > 30
    for name in named:
        _, kernel, layer = name.split(" ")
        assert kernel.lower().endswith(("_f32", "_fp32"))
        assert layer.endswith("/Conv")
    assert any(name.startswith("GridSample ") for name, _ in found)
    assert not any(name.startswith("Parameter ") for name, _ in found)
    assert all(ms >= 0 for _, ms in found)
    assert sum(ms for _, ms in found) > 0
    assert f"{len(found)} layers" in printed


def test_layers_of_several_backends_and_precisions_are_told_apart(
    any_precision, models, measured, monkeypatch
):
    asked = []

    def profiled(_, inputs, *, precision, threads, runs):
        asked.append((precision, sorted(inputs)))
        return [(f"Conv {precision}", 1.0)]

    monkeypatch.setattr(measure.ov_profiling, "profile_layers", profiled)
    monkeypatch.setattr(measure, "profile_onnx", lambda *_, **__: [("Conv a", 1.0)])
    file, options = models / "frames.onnx", ("--size", "50x70", "--profile")
    record, _ = measured(
        "--model", file, "--backend", "openvino", "--precision", "fp32", "bf16", *options
    )
    assert record["layers_milliseconds"] == {
        f"frames.onnx on openvino cpu {precision}": [[f"Conv {precision}", 1.0]]
        for precision in ("fp32", "bf16")
    }
    assert asked == [(precision, ["img0", "img1", "timestep"]) for precision in ("fp32", "bf16")]
    record, _ = measured("--model", file, "--backend", "openvino", "onnxruntime", *options)
    assert record["layers_milliseconds"] == {
        "frames.onnx on openvino cpu fp32": [["Conv fp32", 1.0]],
        "frames.onnx on onnxruntime cpu": [["Conv a", 1.0]],
    }


def test_layers_of_several_sizes_are_told_apart(models, measured, monkeypatch):
    monkeypatch.setattr(measure, "profile_onnx", lambda *_, **__: [("Conv a", 1.0)])
    record, _ = measured(
        "--model", models / "dynamic.onnx", "--size", "50x70", "64x80", "--profile"
    )
    assert record["layers_milliseconds"].keys() == {
        "dynamic.onnx at 50x70", "dynamic.onnx at 64x80",
    }  # fmt: skip


def test_the_first_call_of_a_trace_is_omitted():
    def event(name, index, us, category="Node", ending="_kernel_time"):
        said = {"op_name": "Conv", "node_index": index}
        return {"cat": category, "name": name + ending, "dur": us, "args": said}

    trace = [
        {"cat": "Session", "name": "model_run", "dur": 5},
        event("b", "1", 900), event("", "2", 100), event("", "3", 100),
        event("b", "1", 30), event("", "2", 1), event("", "3", 8),
        event("b", "1", 50, ending="_fence_before"),
        event("b", "1", 50), event("", "2", 3), event("", "3", 8),
    ]  # fmt: skip
    found = layers.mean_of_nodes(trace)
    assert found == [("Conv b", 0.04), ("Conv ", 0.002), ("Conv ", 0.008)]


# Output


def test_every_figure_has_a_column():
    figures = {"p50": 2.0, "p90": 3.0, "p99": 4.0, "mean": 2.5, "iqr": 0.5}
    run = {
        "kind": "artefact", "milliseconds": figures, "milliseconds_per_frame": 2.0, "fps": 500.0,
        "samples": 30, "seconds": [[0.002] * 3] * 10, "warnings": ["it was hot"],
        "work": {"operations": 25.2e9, "bytes_moved": 1e9, "bytes_least": 1.2e7},
        "roofline": {"flops_per_second": 1e11, "share_of_matmul": 0.5, "bytes_per_second": 1e10,
                     "share_of_copy": 0.25},
        "cold": None, "stream": None, "pytorch": None, "agreement": None,
        "parts_of_a_call_milliseconds": {"h2d": figures, "compute": figures},
    }  # fmt: skip
    slow = {**run, "kind": "pytorch", "warnings": [], "work": None, "roofline": None}
    ratio = {"slower": "slow", "faster": "fast", "p50": 1.5, "low": 1.25, "high": 1.75}
    case = {
        "dataset": "gopro", "size": "720x1280", "factor": 8, "runs": {"fast": run, "slow": slow},
        "ratios": [{**ratio, "confidence": 0.95}], "failed": {"slower": {"failed": "it broke"}},
        "compute_ratios": [{**ratio, "p50": 2.5, "confidence": 0.95}],
    }  # fmt: skip
    lines = list(case_lines(case, {"fast": [("Conv a", 1.0)]}, threads=2))
    text = "\n".join(lines)
    assert "gopro, 720x1280, factor 8, 2 threads, 10 interleaved rounds" in text
    table = [line for line in lines if line.endswith((" samples", " 30"))]
    assert len({len(line) for line in table}) == 1  # Columns are aligned.
    assert [line.split()[:2] for line in table[1:]] == [["fast", "2.000"], ["slow", "2.000"]]
    assert "call      h2d 2.000 ms, compute 2.000 ms" in text
    assert "100.0 GFLOP/s, 50% of the matmul peak; 10.0 GB/s, 25% of the copy peak" in text
    assert "25.2 GFLOP; 1.00 GB moved without fusion, 12.0 MB at least" in text
    assert "warning   it was hot" in text
    assert "fast is 1.50x as fast as slow (95% interval 1.25 to 1.75)" in text
    assert "fast computes 2.50x as fast as slow (95% interval 1.25 to 1.75), without" in text
    assert "  slower failed: it broke" in text
    assert "Conv a" in text


def test_noise_frames_are_a_pair_with_motion():
    frame0, frame1 = noise_frames((20, 30))
    assert frame0.shape == frame1.shape == (20, 30, 3)
    assert frame0.dtype == np.uint8
    assert all(np.array_equal(frame0[:, c], frame1[:, (c + 4) % 30]) for c in range(30))
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(frame0[:5], 2))
