"""Builds in int8: quantised layers, calibration, the gate and the manifest."""

import av
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from commands import build_without_torch
from export.build_engine import main
from export.errors import ExportError, GateError
from export.gate import gate as gate_module
from export.gate.cases import GroundTruthCase, moving_frames
from export.gate.compare import compare
from export.gate.runners import images_for
from export.graph.view import GraphView
from export.int8 import build as int8
from export.int8.calibration import read_calibration_frames
from export.int8.quantise import layer_names, measured_ranges, quantised
from export.source import source_from_onnx
from image_folders import image_folder
from paths import WALK
from runtime import Interpolator
from runtime.manifest import EngineManifest
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")

LAYERS = 24
"""Number of quantised convolutions: in each of 4 decoders the first and 5 of the residual block."""
LIMIT = 25.0
"""Required dB, in place of the gate's own limit: int8 loses more on frames of 64x96 than on larger
ones, and the loss depends on the weights."""
CONVOLUTIONS_LEFT = 8 + 4
"""Convolutions that are not quantised: 8 of the encoder and a transposed one in each decoder."""


@pytest.fixture(scope="session")
def source(models):
    return source_from_onnx(models / "dynamic.onnx")


@pytest.fixture(scope="module")
def _limit():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gate_module.REQUIRED_DB, "int8", LIMIT)
        yield


@pytest.fixture(scope="module")
def checked(source, clip, _limit):
    return int8.checked_int8(source, clip)


def feed(info, walk):
    img0, img1 = images_for(info, walk[0], walk[2], rows=1)
    return {"img0": img0, "img1": img1, "timestep": np.full((1, 1, 1, 1), 0.5, np.float32)}


@pytest.fixture(scope="session")
def ranges(source, walk):
    return measured_ranges(source.model, [feed(source.info, walk)])


def integer_convolutions(model):
    """Convolutions with integer input, weights and output, which a runtime can fuse."""
    view = GraphView(model)

    def maker(name):
        return view.producers[name].op_type if name in view.producers else ""

    return [
        node.name.removesuffix("/Conv")
        for node in model.graph.node
        if node.op_type == "Conv"
        and {maker(name) for name in node.input} == {"DequantizeLinear"}
        and view.only_consumer(node.output[0], "QuantizeLinear")
    ]


def test_only_the_decoders_convolutions_are_int8(checked):
    assert integer_convolutions(checked.model) == checked.calibration.quantised
    assert len(checked.calibration.quantised) == LAYERS
    assert all(name.startswith("decoder") for name in checked.calibration.quantised)
    assert len(checked.calibration.excluded) == CONVOLUTIONS_LEFT
    assert {name.split(".")[0] for name in checked.calibration.excluded} == {
        "encoder", "decoder1", "decoder2", "decoder3", "decoder4",
    }  # fmt: skip
    assert checked.calibration.skipped == []
    # The inputs and outputs of 24 layers; no two layers share an input.
    rounded = [node for node in checked.model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(rounded) == 2 * LAYERS
    assert {entry.domain: entry.version for entry in checked.model.opset_import} == {"": 17}


def test_onnx_runtime_fuses_every_int8_convolution(checked, tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        checked.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    optimised = onnx.load(tmp_path / "optimised.onnx")
    fused = [node for node in optimised.graph.node if node.op_type == "QLinearConv"]
    assert len(fused) == LAYERS


def test_weights_cannot_overflow_sums_of_16_bits(checked):
    whole = [
        numpy_helper.to_array(tensor)
        for tensor in checked.model.graph.initializer
        if tensor.name.endswith("/Weight/whole")
    ]
    assert len(whole) == LAYERS
    for weights in whole:
        assert weights.dtype == np.int8
        largest = np.abs(weights.astype(int)).reshape(len(weights), -1).max(1)
        assert largest.max() * 255 * 2 < 2**15
        assert (largest == 64).all()  # Each output channel has a scale of its own.


def test_each_range_is_that_of_its_tensor(source, walk, ranges):
    name = next(iter(ranges))
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    tensor = session.run([name], feed(source.info, walk))[0]
    low, high = ranges[name]
    assert low == pytest.approx(min(tensor.min(), 0), rel=1e-5)
    assert high == pytest.approx(max(tensor.max(), 0), rel=1e-5)


def test_a_bias_that_is_large_for_its_weights_is_kept(source, ranges):
    layer = layer_names(source.model)[0][0]
    model = onnx.ModelProto()
    model.CopyFrom(source.model)
    (node,) = (n for n in model.graph.node if n.name == f"{layer}/Conv")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = numpy_helper.to_array(tensors[node.input[1]]).copy()
    biases = numpy_helper.to_array(tensors[node.input[2]]).copy()
    weights[0], biases[0], weights[1], biases[1] = 1e-12, 3.0, 0.0, 0.0
    tensors[node.input[1]].CopyFrom(numpy_helper.from_array(weights, node.input[1]))
    tensors[node.input[2]].CopyFrom(numpy_helper.from_array(biases, node.input[2]))
    view = GraphView(quantised(model, ranges, [layer]))
    made = view.constant(f"{layer}/Bias/whole") * view.constant(f"{layer}/Bias/scale")
    np.testing.assert_allclose(made[:2], [3.0, 0.0], rtol=1e-6)


def test_the_gate_compares_generated_and_real_frames(checked, clip):
    gate = checked.gate
    assert gate.required_db == LIMIT
    assert gate.psnr_db > LIMIT
    assert gate.allowed_loss_db == 0.1
    assert gate.loss_db <= 0.1
    assert [case["motion_px"] for case in gate.cases] == [2.0, 9.6, None, None, None]
    real = gate.cases[2:]
    assert [case["frames"] for case in real] == [f"walk, window {n} of 3" for n in (1, 2, 3)]
    assert gate.loss_db == pytest.approx(np.mean([case["loss_db"] for case in real]), abs=1e-3)


def test_an_int8_model_has_its_precision_in_the_metadata_and_runs(checked, tmp_path, walk, models):
    from export.store import write_artefact

    path = tmp_path / "int8.onnx"
    write_artefact(checked, path, started=0.0)
    manifest = EngineManifest.read(path)
    assert manifest.model.precision == "int8"
    assert manifest.model.tuned_for == "cpu"
    assert manifest.calibration == checked.calibration
    assert manifest.calibration.source == "walk"
    with Interpolator.open(path) as vfi, Interpolator.open(models / "dynamic.onnx") as plain:
        assert vfi.info.precision == "int8"
        made, expected = (one.interpolate(walk[0], walk[2]) for one in (vfi, plain))
    assert compare(expected / np.float32(255), made / np.float32(255))[0] > LIMIT
    with pytest.raises(ExportError, match=r"is int8 already: give the float32 file"):
        source_from_onnx(path)


@pytest.mark.usefixtures("_limit")
def test_the_alpha_of_frames_is_ignored_in_calibration(tmp_path, source):
    """FFmpeg's swscale loses half of the last row when it converts gbrap16le."""
    path = tmp_path / "alpha.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "gbrap16le"
        for number in range(12):
            frame = av.VideoFrame(96, 64, "gbrap16le")
            for plane in frame.planes:
                plane.update(np.full(plane.buffer_size // 2, 30000 + 2000 * number, "<u2"))
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    for window in read_calibration_frames(path, source.info).calibration:
        for frame in window:
            assert frame.min() == frame.max() > 100


def test_the_gate_runs_in_the_backend_of_the_build(source, clip, tmp_path):
    from export.store import write_artefact

    made = int8.checked_int8(source, clip, backend="openvino")
    assert made.info.tuned_for == "any"
    assert {case["candidate"].split()[0] for case in made.gate.cases} == {"OpenVINO"}
    write_artefact(made, tmp_path / "int8.onnx", started=0.0)
    with Interpolator.open(tmp_path / "int8.onnx") as vfi:
        assert vfi.backend.startswith("openvino")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([np.zeros((64, 96, 3), np.uint8)] * 12, "nothing moves in"),
        (list(moving_frames(64, 96, 4.0)) * 2, "has 4 frames and only 1 of the 2 runs of 3 frames"),
    ],
)
def test_unsuitable_clips_are_refused(tmp_path, source, frames, message):
    with pytest.raises(ExportError, match=message):
        int8.checked_int8(source, image_folder(tmp_path / "clip", frames))


@pytest.mark.usefixtures("_limit")
def test_frames_of_another_size_are_used_for_a_model_of_fixed_size(models):
    checked = int8.checked_int8(source_from_onnx(models / "frames.onnx"), WALK)
    assert {case["size"] for case in checked.gate.cases} == {"50x70"}
    assert len(checked.gate.cases) == 2 + 4
    assert checked.gate.loss_db <= 0.1


def test_a_float16_file_is_refused_as_source(sources, clip):
    with pytest.raises(ExportError, match="--precision int8 was given with a graph in fp16"):
        int8.checked_int8(sources["fp16"], clip)


@pytest.fixture
def one_bad_layer(source, monkeypatch, _limit):
    """Makes one layer unusable in int8, as some weights do: its weights lose their sign."""
    bad = "decoder1.convblock.1.conv3.0"
    honest = int8.quantised

    def spoiling(model, ranges, layers):
        made = honest(model, ranges, layers)
        for tensor in made.graph.initializer:
            if tensor.name == f"{bad}/Weight/whole":
                tensor.CopyFrom(
                    numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name)
                )
        return made

    monkeypatch.setattr(int8, "quantised", spoiling)
    return bad


def test_a_layer_that_costs_too_much_is_skipped_and_named(one_bad_layer, source, clip, tmp_path):
    made = int8.checked_int8(source, clip)
    skipped = made.calibration.skipped
    assert skipped[0] == one_bad_layer
    assert len(skipped) == 2
    assert integer_convolutions(made.model) == made.calibration.quantised
    assert len(made.calibration.quantised) == LAYERS - 2
    assert made.gate.psnr_db > LIMIT


def test_a_model_that_fails_the_gate_is_refused_with_the_layers(
    monkeypatch, one_bad_layer, source, clip
):
    monkeypatch.setattr(int8, "_MAXIMUM_SKIPPED", 0.0)
    monkeypatch.setitem(gate_module.REQUIRED_DB, "int8", 100.0)  # More than int8 can reach.
    with pytest.raises(
        GateError,
        match=rf"100 dB are required for int8; the layers with the largest error, each alone in "
        rf"int8, are {one_bad_layer} \(.* dB\), .*: nothing was written; calibrate with frames",
    ):
        int8.checked_int8(source, clip)


@pytest.mark.usefixtures("_limit")
def test_a_loss_compared_with_the_true_frames_is_refused(monkeypatch, source, clip):
    monkeypatch.setattr(int8, "_MAXIMUM_SKIPPED", 0.0)
    monkeypatch.setattr(gate_module, "ALLOWED_LOSS_DB", -100.0)
    with pytest.raises(GateError, match=r"dB below that of .* the layers with"):
        int8.checked_int8(source, clip)


def test_the_loss_is_the_drop_of_the_psnr_to_the_true_frame(walk):
    truth = walk[1].transpose(2, 0, 1)[None] / np.float32(255)
    case = GroundTruthCase("walk", walk[:3], (0.5,))
    # 0.01 is 40 dB, 0.02 is 6.02 dB less.
    assert case.loss_db(truth + 0.01, truth + 0.02) == pytest.approx(20 * np.log10(2), abs=1e-2)
    padded = np.pad(truth, ((0, 0), (0, 0), (3, 4), (1, 1)), constant_values=9.0)
    assert case.loss_db(padded, padded) == 0


def test_the_command_needs_no_torch(models, clip, tmp_path):
    done = build_without_torch(
        "--onnx", models / "dynamic.onnx", "--backend", "onnxruntime", "--precision", "int8",
        "--calibrate", clip, "--output", "int8.onnx", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = EngineManifest.read(tmp_path / "int8.onnx")
    assert manifest.model.precision == "int8"
    assert manifest.gate.required_db == 40
    layers = manifest.calibration.quantised
    assert len(layers) + len(manifest.calibration.skipped) == LAYERS
    assert f"layers in int8: {len(layers)}, calibrated with 14 frames of walk" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "onnxruntime", "--precision", "int8"], "was given without --calibrate"),
        (
            ["--backend", "onnxruntime", "--calibrate", "x"],
            "--calibrate was given without --prec",
        ),
        (
            ["--precision", "int8", "--calibrate", "x"],
            "was given with --backend tensorrt: use fp16",
        ),
        (
            ["--backend", "onnxruntime", "--precision", "int8", "--calibrate", "no.mp4"],
            "no.mp4 does not exist",
        ),
    ],
)
def test_contradicting_arguments_are_refused(models, tmp_path, capsys, arguments, message):
    output = tmp_path / "int8.onnx"
    with pytest.raises(SystemExit) as exit_:
        main(["--onnx", str(models / "dynamic.onnx"), "--output", str(output), *arguments])
    assert exit_.value.code == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert len(printed.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
