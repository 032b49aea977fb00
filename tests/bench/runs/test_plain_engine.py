"""Latency of a plain ONNX export in TensorRT beside an engine of this project, over fakes."""

import json

import pytest

from bench import latency
from bench.harness import measure
from bench.harness.interleave import Interleaving, parts_interleaved
from export.trt.build import Profile
from runtime.manifest import file_sha256


@pytest.fixture
def command(tmp_path, capsys, monkeypatch):
    """Runs the command in this process; returns (exit code, record, printed text)."""
    monkeypatch.setattr(measure, "ON_GPU", Interleaving(1, 0.0))
    monkeypatch.setattr("bench.harness.interleave._WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr("bench.harness.request.STREAM_FRAMES", 2)
    monkeypatch.setitem(parts_interleaved.__kwdefaults__, "interleaving", Interleaving(1, 0.0))

    def run(*arguments, size=("50x70",)):
        evidence = tmp_path / "evidence.json"
        evidence.unlink(missing_ok=True)
        with pytest.raises(SystemExit) as left:
            latency.main(
                [*map(str, arguments), "--size", *size, "--no-cold-start", "--samples", "2",
                 "--seconds", "0", "--json", str(evidence)]
            )  # fmt: skip
        printed = capsys.readouterr()
        record = json.loads(evidence.read_text()) if evidence.exists() else None
        return left.value.code, record, printed.out + printed.err

    return run


def test_a_plain_export_is_measured_beside_an_engine(trt, engine, models, command):
    ours, plain = engine(), models / "float.onnx"
    built = len(trt.builds)
    code, record, printed = command("--model", ours, "--plain", plain)
    assert code == 0, printed
    assert len(trt.builds) == built + 1
    has_flag = hasattr(trt.BuilderFlag, "FP16")
    _, config = trt.builds[-1]
    assert ("FP16" in config._flag_names()) == has_flag
    (case,) = record["cases"]
    on = f"on tensorrt {trt.__version__} cuda:0, 1 stream"
    name = f"frames.engine {on}, CUDA graph"
    plains = [f"float.onnx {on}, CUDA graph", f"float.onnx {on}, no CUDA graph"]
    assert [*case["runs"]] == [name, *plains]
    assert case["failed"] == {}
    for plain_name, graph in zip(plains, (True, False), strict=True):
        run = case["runs"][plain_name]
        assert (run["kind"], run["variant"], run["cold"]) == ("plain", "small", None)
        file = run["artefact"]
        assert (file["file"], file["sha256"]) == ("float.onnx", file_sha256(plain))
        assert (file["fp16_flag"], file["cuda_graph"]) == (has_flag, graph)
        assert file["build_seconds"] > 0
        compared = run["agreement"]
        assert compared["reference"] == "the same file in ONNX Runtime in float32"
        assert compared["finite"]
        # The fake chooses float16 where it may.
        if has_flag:
            assert 20 < compared["psnr_db"] < 100
        else:
            assert compared["max_difference"] < 1e-5
        assert len(run["parts_of_a_call_milliseconds"]["compute"]["samples"]) == 2
    # Its frames are converted on the host, so that only the network is compared.
    assert case["ratios"] == []
    assert [(r["slower"], r["faster"]) for r in case["compute_ratios"]] == [
        (one, name) for one in plains
    ]
    for ratio in case["compute_ratios"]:
        slower, faster = (
            case["runs"][ratio[key]]["parts_of_a_call_milliseconds"]["compute"]["p50"]
            for key in ("slower", "faster")
        )
        assert ratio["p50"] == pytest.approx(slower / faster)
    assert f"{name} computes {case['compute_ratios'][0]['p50']:.2f}x as fast as {plains[0]}" in (
        printed
    )


def test_cuda_graphs_are_used_as_requested(trt10, engine, models, command):
    launched = trt10.cuda.calls
    code, _, printed = command("--model", engine(), "--plain", models / "float.onnx")
    assert code == 0, printed
    assert launched["cudaStreamBeginCapture"] == 2  # Our engine, and the plain one.


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            ("fail_build", "no tactic"),
            "build float.onnx (IBuilder::buildSerializedNetwork: no tactic): export it",
        ),
        (("unsupported_operators", {"GridSample"}), "parse float.onnx (In node"),
    ],
)
def test_a_plain_export_that_cannot_be_built_is_recorded_with_the_reason(
    trt, engine, models, command, monkeypatch, change, reason
):
    ours = engine()
    monkeypatch.setattr(trt, *change)
    code, record, printed = command("--model", ours, "--plain", models / "float.onnx")
    assert code == 0, printed
    (case,) = record["cases"]
    assert [name.split()[0] for name in case["runs"]] == ["frames.engine"]
    assert len(case["failed"]) == 2
    for failure in case["failed"].values():
        assert failure["kind"] == "plain"
        assert f"TensorRT {trt.__version__} cannot {reason}" in failure["failed"]
    assert f"failed: TensorRT {trt.__version__} cannot {reason}" in printed


def test_other_files_are_refused(trt10, engine, models, tmp_path, command):
    ours = engine()
    code, record, printed = command("--model", ours, "--plain", models / "frames.onnx")
    assert (code, record) == (1, None)
    assert "frames.onnx has the inputs and outputs img0 tensor(uint8) [1, 50, 70, 3]" in printed
    assert "export it with float32 img0 and img1 (1, 3, H, W)" in printed
    broken = tmp_path / "broken.onnx"
    for content in (b"no protobuf", b""):
        broken.write_bytes(content)
        code, _, printed = command("--model", ours, "--plain", broken)
        assert (code, len(printed.splitlines())) == (1, 1)
        assert "broken.onnx" in printed


def test_a_plain_export_runs_at_sizes_that_pad_to_its_size(trt10, engine, models, command):
    ours = engine("dynamic", profile=Profile((32, 32), (64, 80), (96, 96)))
    plain = models / "float.onnx"
    code, _, printed = command("--model", ours, "--plain", plain, size=("32x32", "48x48"))
    assert code == 1
    assert "float.onnx accepts 64x80, but not 32x32, 48x48: give --size 64x80" in printed
    code, record, printed = command("--model", ours, "--plain", plain, size=("32x32", "60x66"))
    assert code == 0, printed
    assert [len(case["runs"]) for case in record["cases"]] == [1, 3]


@pytest.mark.filterwarnings("ignore:the inference could not be recorded")
@pytest.mark.parametrize("failing", [0, 1])
def test_a_failed_cuda_graph_is_in_the_record(trt10, engine, models, command, failing):
    ours = engine()
    # Our engine is opened first, then the plain one with a graph.
    trt10.cuda.fail_next(
        "cudaStreamBeginCapture", "cudaErrorStreamCaptureUnsupported", after=failing
    )
    code, record, printed = command("--model", ours, "--plain", models / "float.onnx")
    assert code == 0, printed
    with_graph = [
        run for name, run in record["cases"][0]["runs"].items() if name.endswith(", CUDA graph")
    ]
    for number, run in enumerate(with_graph):
        failed = number == failing
        assert run["artefact"]["cuda_graph"] == (not failed)
        assert ("cuda_graph_problem" in run["artefact"]) == failed
        assert any("it was measured without one" in said for said in run["warnings"]) == failed
    assert (
        "cudaErrorStreamCaptureUnsupported"
        in (with_graph[failing]["artefact"]["cuda_graph_problem"])
    )
