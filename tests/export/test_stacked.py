"""Models with one input, for filters of video frameworks such as vs-mlrt."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from commands import run_main
from export.errors import ExportError
from export.gate.cases import moving_frames
from export.request import BuildRequest, GraphRequest
from export.source import source_from_onnx
from export.store import write_onnx
from export.wrapper import ExportOptions
from runtime import Interpolator, ModelError
from runtime.manifest import EngineManifest, file_sha256, manifest_path
from runtime.model_info import ModelInfo
from small_graphs import run

REFUSED = r"has both frames in one input, for filters of video frameworks: export it without --io"


@pytest.fixture(scope="module")
def stacked(export, tmp_path_factory):
    """The path of a model of any size."""
    path = tmp_path_factory.mktemp("models") / "stacked.onnx"
    write_onnx(export(height=64, width=80, dynamic=True, io="stacked").model, path)
    return path


def planes_of(frames, time):
    """float32 (1, 7, H, W) of two uint8 frames (H, W, 3)."""
    images = [frame.transpose(2, 0, 1) / np.float32(255) for frame in frames]
    return np.concatenate([*images, np.full((1, *frames[0].shape[:2]), time, np.float32)])[None]


@pytest.mark.parametrize("size", [(16, 16), (50, 70), (64, 80), (131, 93)])
def test_a_frame_is_that_of_a_model_with_three_inputs(stacked, models, size):
    frames, times = moving_frames(*size, 4.0), np.full((1, 1, 1, 1), 0.25, np.float32)
    found = run(onnx.load(stacked), planes=planes_of(frames, 0.25))
    assert found.shape == (1, 3, *size)
    plain = onnx.load(models / "dynamic.onnx")
    expected = run(plain, img0=frames[0][None], img1=frames[1][None], timestep=times)
    levels = np.rint(found * 255).transpose(0, 2, 3, 1)
    assert np.abs(levels - expected).max() <= 1
    assert np.mean(levels != expected) < 0.001


def test_the_first_pixel_of_the_last_plane_is_the_time(stacked):
    frames = moving_frames(50, 70, 4.0)
    planes = planes_of(frames, 0.25)
    expected = run(onnx.load(stacked), planes=planes)
    planes[:, 6].flat[1:] = 0.75
    np.testing.assert_array_equal(run(onnx.load(stacked), planes=planes), expected)
    planes[:, 6] = 0.75
    assert np.abs(run(onnx.load(stacked), planes=planes) - expected).max() > 0.1


@pytest.mark.parametrize("options", [{}, {"tta": True}, {"precision": "fp16"}])
def test_the_graph_of_one_size_says_what_it_takes(export, options):
    checked = export(height=50, width=70, io="stacked", **options)
    (planes,), (imgt,) = checked.model.graph.input, checked.model.graph.output
    assert planes.doc_string == (
        "both frames, and the time of the new frame in every pixel: float32 (1, 7, H, W), three "
        "channels each, 0 to 1, red, green, blue, and one"
    )
    assert imgt.doc_string == "new frame: float32 (B, 3, H, W), 0 to 1, red, green, blue, clipped"
    shapes = [[dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in (planes, imgt)]
    assert shapes == [[1, 7, 50, 70], [1, 3, 50, 70]]
    metadata = {entry.key: entry.value for entry in checked.model.metadata_props}
    assert metadata["ifrnet.io"] == "stacked"
    ports = ModelInfo.from_properties(metadata, source="m").ports()
    assert {name: port.dims for name, port in ports.items()} == {
        "planes": (1, 7, 50, 70), "imgt": (1, 3, 50, 70)
    }  # fmt: skip
    assert checked.gate.psnr_db > (70 if "precision" not in options else 50)


@pytest.mark.parametrize("options", [{"batch": 2}, {"timesteps": 3}, {"max_batch": 4}])
def test_several_pairs_or_time_steps_are_refused(options):
    with pytest.raises(ExportError, match=r"^--io stacked was given with --batch, --max-batch or"):
        ExportOptions(io="stacked", **options)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_runtime_refuses_it(stacked, backend):
    with pytest.raises(ModelError, match=f"stacked.onnx {REFUSED}"):
        Interpolator.open(stacked, backend=backend)


def test_a_manifest_of_such_a_model_is_refused(models, tmp_path):
    path = tmp_path / "m.onnx"
    shutil.copy(models / "frames.onnx", path)
    shipped = Path(__file__).resolve().parents[2] / "runtime" / "models" / "demo_openvino.onnx.json"
    text = shipped.read_text().replace('"io": "frames"', '"io": "stacked"')
    sha256 = EngineManifest.read(shipped.with_suffix("")).artefact_sha256
    manifest_path(path).write_text(text.replace(sha256, file_sha256(path)))
    with pytest.raises(ModelError, match=REFUSED):
        EngineManifest.read(path)


def test_metadata_of_several_pairs_is_refused(export):
    info = export(height=50, width=70, io="stacked").info
    values = {**info.to_properties(), "ifrnet.pairs_per_call": "2"}
    with pytest.raises(ModelError, match="has stacked I/O and several pairs or time steps: export"):
        ModelInfo.from_properties(values, source="m")


def test_build_engine_refuses_it(stacked, tmp_path):
    with pytest.raises(ExportError, match=r"^--io stacked was given: use export\.to_onnx"):
        BuildRequest(weights="demo", graph=GraphRequest(io="stacked"), output=tmp_path / "m.engine")
    with pytest.raises(ModelError, match=REFUSED):
        source_from_onnx(stacked)
    done = run_main(
        "export.build_engine", "--weights", "demo", "--io", "stacked", "--output", "m.engine",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "invalid choice: 'stacked'" in done.stderr


def test_the_command_writes_it(tmp_path):
    done = run_main(
        "export.to_onnx", "--weights", "demo", "--io", "stacked", "--size", "50x70", "--output",
        "m.onnx", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [one.name for one in onnx.load(tmp_path / "m.onnx").graph.input] == ["planes"]
