"""PyTorch in bench.latency: the code for a GPU, run on the CPU with a fake clock.

Float16 convolutions take seconds on a CPU, so that tests that need them compute one small image.
"""

import contextlib
import itertools
import json
import math
import time

import numpy as np
import pytest
import torch

from bench import latency
from bench.environment import MeasurementError
from bench.harness import gpu_peak, measure, opening
from bench.harness.gpu_peak import matmul_peak
from bench.harness.interleave import Interleaving, parts_interleaved
from bench.harness.opening import open_runs
from bench.report.evidence import read_evidence
from bench.report.tables import latency_table, roofline_table
from bench.runs import authors as reference
from bench.runs import torch_backend, torch_gpu
from bench.runs.agreement import agreement
from bench.runs.artefact import call_inputs
from bench.runs.authors import authors_forward, load_reference
from bench.runs.case import Case
from bench.runs.frames import moving_frames, noise_frames
from bench.runs.pytorch import pytorch_runs
from bench.runs.torch_forms import CPU_FORMS, GPU_FORMS, check_names
from bench.runs.torch_gpu import TorchGpu, open_on_gpu
from runtime.frames import to_planes

SMALL = Case(None, (32, 32), 2, None)
EAGER = [name for name, form in GPU_FORMS.items() if form.compiled is None]


class Gpu(TorchGpu):
    """A fake GPU: the CPU, with two milliseconds for every call."""

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.calls = 0

    def milliseconds(self, call):
        call()
        self.calls += 1
        return 2.0

    def allocated_bytes(self):
        return 1000

    def peak_bytes(self):
        return 5000

    def release(self):
        pass

    def record(self):
        return {"gpu": "a GPU", "torch": "2.13", "cuda": "13.0", "cudnn": 91000}


@pytest.fixture
def gpu(monkeypatch):
    """Makes PyTorch see a GPU, and measurements short."""
    made = Gpu()
    monkeypatch.setattr(torch_gpu, "torch_gpu", lambda _: made)
    monkeypatch.setitem(matmul_peak.__kwdefaults__, "matrix", 16)
    monkeypatch.setitem(matmul_peak.__kwdefaults__, "samples", 3)
    monkeypatch.setattr(measure, "ON_GPU", Interleaving(0, 0.0))
    monkeypatch.setattr("bench.harness.interleave._WARM_UP_SECONDS", 0.0)
    monkeypatch.setitem(parts_interleaved.__kwdefaults__, "interleaving", Interleaving(0, 0.0))
    return made


@pytest.fixture
def command(tmp_path, capsys):
    """Runs the command in this process; returns (exit code, record, printed text)."""

    def run(*arguments):
        evidence = tmp_path / "evidence.json"
        evidence.unlink(missing_ok=True)
        with pytest.raises(SystemExit) as left:
            latency.main(
                ["--weights", "demo", "--size", "32x32", "--samples", "2", "--seconds", "0",
                 "--json", str(evidence), *map(str, arguments)]
            )  # fmt: skip
        printed = capsys.readouterr()
        record = json.loads(evidence.read_text()) if evidence.exists() else None
        return left.value.code, record, printed.out + printed.err

    return run


# Names


def test_the_help_lists_every_name(capsys):
    with pytest.raises(SystemExit):
        latency.main(["--help"])
    said = " ".join(capsys.readouterr().out.split()).replace(" ", "")
    assert f"CPU:{','.join(CPU_FORMS)};" in said
    assert f"cuda:{','.join(GPU_FORMS)}--" in said


def test_a_name_determines_module_compiler_format_and_precision():
    for name, form in GPU_FORMS.items():
        base, *options = name.split(":")
        compilers = {"compile": "default", "compile-max": "max-autotune"}
        assert form.name == name
        assert form.module == ("authors" if base == "authors" else "torch")
        assert form.channels_last == ("channels_last" in options)
        found = [compilers[part] for part in (base, *options) if part in compilers]
        assert [form.compiled] == (found or [None])
        precisions = {*options} - {"channels_last", *compilers}
        assert {form.precision} == (precisions or {"fp32"})
    titles = [form.title for form in GPU_FORMS.values()]
    assert len({*titles}) == len(titles)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--compare", "authors:tf32"], "--compare authors:tf32 needs a GPU: give --device cuda, "
         "or on a CPU use torch, authors, compile"),
        (["--compare", "torch", "int4"], "--compare int4 is unknown: on a CPU use torch, "
         "authors, compile; with --device cuda there are more"),
        (["--device", "cuda", "--compare", "torch:half"], "--compare torch:half is unknown: on a "
         f"GPU use {', '.join(GPU_FORMS)}"),
        (["--device", "cuda", "--compare", "authors", "--weights", "no.pth"], "sees no GPU: run "
         "--compare with --device cuda in a Python whose PyTorch was built for CUDA"),
        (["--compare", "authors", "--plain", "p.onnx"], "--plain was given without an engine"),
        (["--compare", "authors", "--compare-limit", "0"], "--compare-limit is 0.0: use 1 or more"),
    ],
)  # fmt: skip
def test_impossible_arguments_are_refused_before_weights_are_loaded(
    command, monkeypatch, arguments, sentence
):
    def loaded(*_):
        raise AssertionError("the checkpoint was loaded")

    monkeypatch.setattr(reference, "load_reference", loaded)
    code, record, printed = command(*arguments)
    assert (code, record, len(printed.splitlines())) == (1, None, 1)
    assert sentence in printed


def test_a_gpu_that_pytorch_does_not_see_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert torch_gpu.torch_gpu("cuda").device == "cuda:0"
    assert torch_gpu.torch_gpu("cuda:1").device == "cuda:1"
    with pytest.raises(MeasurementError, match="PyTorch sees 2 GPUs: use cuda:0 to cuda:1"):
        torch_gpu.torch_gpu("cuda:2")


def test_names_are_also_checked_when_runs_are_created():
    with pytest.raises(MeasurementError, match="needs a GPU"):
        pytorch_runs(["authors:half"], "demo", threads=1)
    check_names([*GPU_FORMS], on_gpu=True)


# Computed frames


def expected_image(frames, step=0.5):
    network = load_reference("demo").network
    planes = [torch.from_numpy(to_planes(frame, 16)) for frame in frames]
    with torch.inference_mode():
        made = authors_forward(
            network.state_dict(), network.config, *planes, torch.full((1, 1, 1, 1), step)
        )
    return made.numpy()


def psnr(expected, made):
    error = float(np.square(expected.astype(np.float64) - made).mean())
    return math.inf if error == 0 else -10 * math.log10(error)


LIMITS_DB = {"fp32": (120, math.inf), "tf32": (120, math.inf), "half": (40, 90),
             "autocast": (60, 110), "fp16": (60, 110)}  # fmt: skip
"""Precision -> lowest and highest PSNR to float32: too high a PSNR means another precision."""


@pytest.mark.parametrize("name", EAGER)
def test_the_difference_to_float32_fits_the_precision(name):
    (run,) = pytorch_runs([name], "demo", threads=1, gpu=Gpu())
    backend = run.open(SMALL)
    frames = moving_frames(SMALL.size)
    made = backend.float_image(*call_inputs(backend.info, frames))
    found = psnr(expected_image(frames), made)
    low, high = LIMITS_DB[run.form.precision]
    assert low < found <= high
    said = run.evidence(SMALL, backend)
    assert said["artefact"] is None
    assert said["pytorch"]["name"] == name
    assert said["pytorch"]["gpu"] == "a GPU"
    assert len(said["pytorch"]["weights"]["sha256"]) == 64
    assert said["agreement"]["finite"]
    db = said["agreement"]["psnr_db"]
    assert (math.inf if db is None else db) == pytest.approx(found, abs=0.5)


def test_each_of_several_time_steps_is_compared():
    (run,) = pytorch_runs(["torch"], "demo", threads=1, gpu=Gpu())
    case = Case(None, (32, 32), 4, None)
    backend = run.open(case)
    frames = moving_frames(case.size)
    made = backend.float_image(*call_inputs(backend.info, frames))
    assert made.shape == (3, 3, 32, 32)
    for row, step in enumerate((0.25, 0.5, 0.75)):
        assert psnr(expected_image(frames, step), made[row : row + 1]) > 100
    assert run.evidence(case, backend)["agreement"]["psnr_db"] > 100


@pytest.mark.parametrize(
    ("name", "grids"),
    [("authors:half", torch.float16), ("authors:autocast", torch.float32)],
)
def test_sampling_grids_have_the_type_of_the_name(name, grids, monkeypatch):
    seen = set()
    sample = torch.nn.functional.grid_sample

    def spy(image, grid, **options):
        seen.add(grid.dtype)
        return sample(image, grid, **options)

    monkeypatch.setattr(reference.F, "grid_sample", spy)
    (run,) = pytorch_runs([name], "demo", threads=1, gpu=Gpu())
    backend = run.open(SMALL)
    backend.float_image(*call_inputs(backend.info, noise_frames(SMALL.size)))
    assert seen == {grids}


@pytest.mark.parametrize(("name", "tf32"), [("authors", False), ("authors:tf32", True)])
def test_settings_of_cudnn_are_set_for_each_run_and_restored(name, tf32, monkeypatch):
    seen = []

    def spy(*inputs, **options):
        cudnn = torch.backends.cudnn
        seen.append((cudnn.enabled, cudnn.benchmark, cudnn.allow_tf32))
        return authors_forward(*inputs, **options)

    monkeypatch.setattr(torch_backend, "authors_forward", spy)
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    (run,) = pytorch_runs([name], "demo", threads=1, gpu=Gpu())
    backend = run.open(SMALL)
    backend.float_image(*call_inputs(backend.info, noise_frames(SMALL.size)))
    assert seen == [(True, True, tf32)]
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32) == before


def test_channels_last_applies_to_weights_and_frames():
    network = load_reference("demo").network
    computation = torch_backend.computation_of(network, GPU_FORMS["authors:half:channels_last"],
                                               "cpu")  # fmt: skip
    image = torch.zeros(1, 3, 32, 32)
    img0, _, step = computation.prepare((image, image, torch.zeros(1, 1, 1, 1)))
    assert img0.is_contiguous(memory_format=torch.channels_last)
    assert (img0.dtype, step.dtype) == (torch.float16, torch.float16)
    assert next(network.parameters()).dtype == torch.float32  # Not changed.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("compile", {"dynamic": False}),
        ("compile:fp16", {"dynamic": False}),
        ("compile-max:fp16:channels_last", {"dynamic": False, "mode": "max-autotune"}),
        ("authors:autocast:compile", {"dynamic": False}),
        ("authors:autocast:compile-max", {"dynamic": False, "mode": "max-autotune"}),
    ],
)
def test_the_mode_of_the_compiler_is_that_of_the_name(name, options, monkeypatch):
    asked = []
    monkeypatch.setattr("torch.compile", lambda f, **given: asked.append(given) or f)
    pytorch_runs([name], "demo", threads=1, gpu=Gpu())[0].open(SMALL)
    assert asked == [options]


def test_the_authors_formulation_gives_the_same_result_as_a_module():
    network = load_reference("demo").network
    inputs = (torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), torch.rand(2, 1, 1, 1), 1.0)
    with torch.inference_mode():
        eager = torch_backend.authors_loop(network)(*inputs)
        module = torch_backend.authors_loop(network, compiled=True)(*inputs)
    assert torch.equal(eager, module)


# The whole command


def test_the_command_measures_pytorch_on_a_gpu_without_an_artefact(gpu, command):
    code, record, printed = command("--device", "cuda", "--compare", "authors", "torch")
    assert code == 0, printed
    assert record["threads"] is None
    peak = record["ceilings"]
    assert peak["matmul_fp16_tflops"]["p50"] == pytest.approx(2 * 16**3 / 2e-3 / 1e12)
    assert (peak["gpu"], peak["matrix"]) == ("a GPU", 16)
    assert peak["measured_with"] == "torch 2.13, CUDA 13.0"
    (case,) = record["cases"]
    assert [*case["runs"]] == [
        "PyTorch eager (authors) on cpu", "PyTorch eager (torch) on cpu",
    ]  # fmt: skip
    assert case["failed"] == {}
    for run in case["runs"].values():
        assert run["kind"] == "pytorch"
        assert run["parts_of_a_call_milliseconds"]["compute"]["p50"] == 2.0
        assert run["parts_of_a_call_milliseconds"]["compute"]["samples"] == [2.0, 2.0]
        assert run["pytorch"]["gpu_memory_bytes"] == 4000
        assert 0 < run["pytorch"]["seconds_to_first_result"] < 60
        assert (run["cold"], run["roofline"]) == (None, None)
        assert run["work"]["operations"] > 0
        assert len(run["seconds"]) == 2
    authors, ours = case["runs"].values()
    assert (authors["agreement"]["psnr_db"], authors["agreement"]["max_difference"]) == (None, 0.0)
    assert ours["agreement"]["psnr_db"] > 120
    assert "identical to the authors' formulation in float32 without TF32" in printed
    assert "call      compute 2.000 ms" in printed
    assert "0 MiB of GPU memory" in printed


def test_a_run_that_fails_is_recorded_and_the_others_are_measured(
    gpu, command, monkeypatch, tmp_path
):
    def fails(*_):
        raise RuntimeError("no Triton\nand a long tale")

    monkeypatch.setattr("torch.compile", lambda *_, **__: fails)
    code, record, printed = command("--device", "cuda", "--compare", "compile-max:fp16", "authors")
    assert code == 0, printed
    (case,) = record["cases"]
    assert [*case["runs"]] == ["PyTorch eager (authors) on cpu"]
    sentence = "torch.compile does not work (no Triton): leave compile-max:fp16 out of --compare"
    assert case["failed"] == {
        "PyTorch compiled (compile-max:fp16) on cpu": {
            "kind": "pytorch", "compare": "compile-max:fp16", "failed": sentence,
        }
    }  # fmt: skip
    assert f"PyTorch compiled (compile-max:fp16) on cpu failed: {sentence}" in printed
    evidence = read_evidence([tmp_path / "evidence.json"])
    missing = "Missing in evidence.json at 32x32: PyTorch compiled (compile-max:fp16) on cpu"
    assert any(line.startswith(missing) for line in latency_table(evidence).sources)
    (ceilings, *_) = roofline_table(evidence).sources
    assert ceilings.startswith("Ceilings in evidence.json: matmul of float16 ")


def test_a_run_without_a_result_in_time_is_abandoned(gpu, command, monkeypatch):
    stopped = []

    def never(*_):
        while True:
            try:
                time.sleep(0.05)
            except Exception:  # Like an autotuner whose kernel fails.
                continue

    monkeypatch.setattr("torch.compile", lambda *_, **__: never)
    # Less than five seconds, even on a busy machine.
    monkeypatch.setattr(torch_backend, "authors_loop", lambda *_, **__: lambda img0, *_: img0)
    monkeypatch.setattr(opening, "stop_compilers", lambda: stopped.append(True))
    code, record, printed = command(
        "--device", "cuda", "--compare", "compile", "authors", "--compare-limit", "5"
    )
    assert code == 0, printed
    (case,) = record["cases"]
    assert [*case["runs"]] == ["PyTorch eager (authors) on cpu"]
    (failure,) = case["failed"].values()
    assert failure["failed"] == "no pair was interpolated within 5 s: raise --compare-limit"
    assert stopped == [True]


def test_a_peak_that_cannot_be_measured_does_not_end_the_run(gpu, command, monkeypatch):
    def fails(*_):
        raise RuntimeError("CUDA error: no kernel image is available\nand a long tale")

    monkeypatch.setattr(gpu_peak, "matmul_peak", fails)
    code, record, printed = command("--device", "cuda", "--compare", "authors")
    assert code == 0, printed
    problem = "CUDA error: no kernel image is available"
    assert record["ceilings"] == {"problem": problem}
    assert f"the peak performance of the GPU was not measured: {problem}" in printed


def test_the_peak_of_a_gpu_follows_from_the_times_of_its_products(monkeypatch):
    times, seen = iter([4.0, 1.0, 2.0]), []
    monkeypatch.setattr("torch.matmul", lambda a, _: seen.append(a.shape))
    made = Gpu()
    made.milliseconds = lambda product: product() or next(times)
    found = matmul_peak(made, matrix=1000, samples=3)
    # 2e9 operations each, in 2 ms and 1 ms.
    assert found["matmul_fp16_tflops"] == {"p50": 1.0, "best": 2.0}
    assert found["milliseconds"]["samples"] == [4.0, 1.0, 2.0]
    assert seen == [(1000, 1000)] * 13  # 10 of warm-up.


def test_if_every_run_fails_no_evidence_is_written(gpu, command, monkeypatch):
    def fails(*_):
        raise RuntimeError("no Triton")

    monkeypatch.setattr("torch.compile", lambda *_, **__: fails)
    code, record, printed = command("--device", "cuda", "--compare", "compile", "compile:fp16")
    assert (code, record) == (1, None)
    assert "every run failed (PyTorch compiled (torch) on cpu: torch.compile does " in printed
    assert printed.count("no Triton") >= 2


def test_compiled_code_of_other_sizes_is_dropped_once_for_each_size(monkeypatch):
    dropped = []
    monkeypatch.setattr("torch.compile", lambda f, **_: f)
    monkeypatch.setattr(torch_backend, "reset_compiled", lambda: dropped.append(True))
    gpu, clip = Gpu(), noise_frames(SMALL.size)
    for names, count in ((["authors"], 0), (["compile", "authors:autocast:compile"], 1)):
        dropped.clear()
        monkeypatch.setattr(torch_backend, "_autocast", lambda forward, _: forward)
        runs = pytorch_runs(names, "demo", threads=1, gpu=gpu)
        with contextlib.ExitStack() as owner:
            found = open_runs(runs, SMALL, clip, owner, cold_start=True, limit_s=None)
        assert [*found.runs] == [run.name for run in runs]
        assert len(dropped) == count


# The GPU itself


def test_the_second_of_two_calls_is_timed(monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing
            self.at = None

        def record(self, stream):
            assert stream == "the stream of cuda:1"
            self.at = len(log)
            log.append("event")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, end):
            return float(end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    found = TorchGpu("cuda:1").milliseconds(lambda: log.append("call"))
    assert log == ["call", "event", "call", "event", "wait"]
    assert found == 2.0


def test_memory_is_the_increase_up_to_the_first_result():
    asked = []

    class Watched(Gpu):
        def allocated_bytes(self):
            asked.append("before")
            return 100

        def peak_bytes(self):
            asked.append("peak")
            return 700 + len(asked)

    (run,) = pytorch_runs(["authors"], "demo", threads=1, gpu=Watched())
    backend = run.open(SMALL)
    images = [frame[None] for frame in noise_frames(SMALL.size)]
    for _ in range(2):
        backend.run(*images, np.full((1, 1, 1, 1), 0.5, np.float32))
    assert asked == ["before", "peak"]
    assert backend.first_result["gpu_memory_bytes"] == 602
    backend.close()
    with pytest.raises(Exception, match="open it again"):
        backend.run(*images, np.full((1, 1, 1, 1), 0.5, np.float32))


def test_the_preparation_of_inputs_is_not_timed():
    gpu = Gpu()
    seen = []
    network = load_reference("demo").network
    (run,) = pytorch_runs(["authors"], "demo", threads=1, gpu=gpu)
    backend = open_on_gpu(network, GPU_FORMS["authors"], gpu, run.info(SMALL), name="x")
    prepared = backend.prepared
    backend.prepared = lambda *images: seen.append(gpu.calls) or prepared(*images)
    inputs = call_inputs(backend.info, noise_frames(SMALL.size))
    assert [backend.time_parts(*inputs) for _ in range(2)] == [{"compute": 2.0}] * 2
    assert (seen, gpu.calls) == ([0, 1], 2)


# Comparison of images


def test_moving_frames_have_detail():
    first, second = moving_frames((64, 96))
    assert first.shape == second.shape == (64, 96, 3)
    assert first.dtype == np.uint8
    assert first.std() > 10
    assert 5 < np.abs(first.astype(int) - second).mean() < 60
    neighbours = np.abs(np.diff(first.astype(int), axis=1)).mean()
    noise = np.abs(np.diff(noise_frames((64, 96))[0].astype(int), axis=1)).mean()
    assert neighbours < noise / 4  # No noise.
    for again, frame in zip(moving_frames((64, 96)), (first, second), strict=True):
        assert np.array_equal(again, frame)


def test_agreement_of_images():
    expected = np.zeros((1, 3, 4, 4), np.float32)
    assert agreement(expected, expected, "x") == {
        "psnr_db": None, "finite": True, "max_difference": 0.0, "reference": "x",
    }  # fmt: skip
    off = agreement(expected, expected + np.float32(0.1), "x")
    assert off["psnr_db"] == pytest.approx(20)
    assert off["max_difference"] == pytest.approx(0.1)
    for wrong in (np.nan, np.inf):
        broken = expected.copy()
        broken[0, 0, 0, 0] = wrong
        found = agreement(expected, broken, "x")
        assert (found["psnr_db"], found["finite"], found["max_difference"]) == (None, False, None)
    assert not any(math.isnan(v) for v in itertools.chain(off.values()) if isinstance(v, float))
