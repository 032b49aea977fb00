import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from export import build_engine, to_onnx
from export.errors import ExportError
from export.request import BuildRequest, GraphRequest, flow_scale_note
from paths import ROOT
from runtime.doctor import _report_lines, examine

OUTPUT = Path("m.engine")


def from_file(**changes):
    return BuildRequest(**{"onnx": Path("m.onnx"), "output": OUTPUT, **changes})


def test_the_command_has_the_given_options_in_the_order_of_the_help():
    request = BuildRequest(
        weights="demo", graph=GraphRequest(precision="fp16", max_batch=4, warp="gather"),
        time="midpoint", output=OUTPUT, portable=True, device=0, rewrite=("round", "split"),
        rebuild=True, layers=Path("layers.json"),
    )  # fmt: skip
    assert request.command((48, 64), Path("my engine")) == (
        "python -m export.build_engine --weights demo --precision fp16 --max-batch 4 "
        "--warp gather --time midpoint --portable --device cuda:0 --rewrite round split "
        "--size 48x64 --output 'my engine'"
    )
    bounds = from_file(min=(32, 32), opt=(48, 64), max=(64, 80))
    assert bounds.command(None, OUTPUT).endswith(
        "--onnx m.onnx --min 32x32 --opt 48x64 --max 64x80 --output m.engine"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "demo"}, "--weights was given with --onnx: give only one"),
        ({"onnx": None}, "neither --weights nor --onnx was given: give one"),
        ({"min": (32, 48), "max": (64, 96)}, "lacks --opt: give --min, --opt and --max"),
        (
            {"min": (32, 48), "opt": (32, 48), "max": (64, 96), "sizes": ((32, 48),)},
            "--min, --opt and --max were given with --size or --dynamic: leave those out",
        ),
        (
            {"graph": GraphRequest(io="float"), "time": "midpoint"},
            "--onnx was given with io, time: ",
        ),
        (
            {"backend": "openvino", "sizes": ((32, 48),)},
            "--onnx was given with height, width: the file fixes these",
        ),
        ({"backend": "openvino", "device": 0}, "--backend openvino was given with --device"),
        ({"min": (32, 32)}, "lacks --opt and --max: give --min, --opt and --max"),
        ({"real_frames": Path("c.mkv")}, "--real-frames was given with --backend tensorrt: leave"),
        ({"compact": True}, "--compact was given with --backend tensorrt: leave it out"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ExportError, match=message):
        from_file(**changes)


def test_engines_of_several_sizes_can_be_built_from_a_file():
    assert from_file(sizes=((32, 48), (64, 80))).sizes == ((32, 48), (64, 80))


def test_int8_is_built_from_a_float32_graph():
    request = BuildRequest(
        weights="demo", backend="onnxruntime", graph=GraphRequest(precision="int8", io="float"),
        calibrate=Path("clip.mp4"), output=OUTPUT,
    )  # fmt: skip
    assert request.graph_options((32, 48)) == {"io": "float", "height": 32, "width": 48}
    assert from_file(
        backend="onnxruntime", graph=GraphRequest(precision="int8"), calibrate=Path("clip.mp4")
    ).graph_options(None) == {}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({"backend": "onnxruntime"}, True),
        ({"backend": "openvino", "graph": GraphRequest(precision="int8")}, True),
        ({"backend": "onnxruntime", "graph": GraphRequest(max_batch=4)}, False),
        ({"backend": "tensorrt"}, False),
    ],
)
def test_without_a_size_option_the_size_is_free_if_possible(changes, free):
    clip = Path("clip.mp4") if "graph" in changes and changes["graph"].precision else None
    request = BuildRequest(weights="demo", calibrate=clip, output=OUTPUT, **changes)
    assert request.graph_options(None).get("dynamic", False) == free
    assert "dynamic" not in request.graph_options((32, 48))


def test_requests_need_neither_torch_nor_onnx():
    script = "import sys, export.request; sys.exit(bool({'torch', 'onnx'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("sizes", "graph", "named"),
    [
        ([(1080, 1920)], {}, None),
        ([(1081, 1920)], {}, "1081x1920 without --flow-scale"),
        ([(1920, 1088)], {}, "1920x1088 without --flow-scale"),
        ([(720, 1280), (2160, 3840), (1440, 2560)], {}, "2160x3840, 1440x2560 without"),
        ([(2160, 3840)], {"flow_scale": 1.0}, None),
        ([(2160, 3840)], {"flow_scale": 0.5}, None),
        ([(2160, 3840)], {"dynamic": True}, None),
        ([], {}, None),
    ],
)
def test_a_flow_scale_is_recommended_for_large_fixed_sizes_without_one(sizes, graph, named):
    note = flow_scale_note(GraphRequest(**graph), sizes)
    if named is None:
        assert note is None
    else:
        assert note.startswith(f"note: {named}")
        assert "\n" not in note


def test_the_recommendation_of_a_flow_scale_gives_the_measured_figures():
    folder = ROOT / "bench" / "results" / "flow_scale"
    at_4k, _ = json.loads((folder / "latency.json").read_text())["cases"]
    assert at_4k["size"] == "2160x3840"
    full, half = (
        at_4k["runs"][f"{name}_openvino.onnx on openvino cpu fp32"]["milliseconds"]["p50"]
        for name in ("small", "half")
    )
    losses = []
    for clip in ("portrait_4k60", "8k24fps_4k", "dovi_1080p"):
        before, after = (
            json.loads((folder / f"parity_{clip}_{scale}.jsonl").read_text().splitlines()[-1])[
                "summary"
            ]["artefacts"][f"{name}_openvino.onnx"]["psnr"]
            for name, scale in (("small", "full"), ("half", "half"))
        )
        losses.append(before - after)
    assert (round(min(losses), 2), round(max(losses), 2)) == (0.03, 0.69)
    note = flow_scale_note(GraphRequest(), [(2160, 3840)])
    for text in (note, "\n".join(_report_lines(examine()))):
        assert f"{full / half:.1f} times as fast" in text
        assert f"lost at most {max(losses):.1f} dB" in text


@pytest.mark.parametrize(
    ("command", "default"), [(to_onnx, "fp32"), (build_engine, "fp16 for TensorRT, else fp32")]
)
def test_the_help_has_the_default_of_each_command(command, default):
    text = " ".join(command.make_parser().format_help().split())
    (precision,) = re.findall(r" --precision \{[^(]+\(default: ([^)]+)\)", text)
    assert precision == default
