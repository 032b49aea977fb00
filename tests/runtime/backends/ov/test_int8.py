"""An int8 model in OpenVINO: integer convolutions beside bfloat16, and float32 coordinates."""

from collections import Counter

import numpy as np
import onnx
import pytest

from export.candidate import finalise
from export.gate.cases import moving_frames
from export.gate.runners import images_for
from export.int8.quantise import layer_names, measured_ranges, quantised
from export.source import source_from_onnx
from runtime import Interpolator
from runtime.backends.ov import backend as ov
from runtime.backends.ov.compilation import Compilation, compiled_model, from_onnx
from runtime.backends.ov.precision import (
    add_convolutions,
    add_coordinates_to_outputs,
    is_marked,
    with_float32_marks,
)
from runtime.model_info import INPUTS, OUTPUT
from runtime.telemetry import import_quietly

LEVELS = 1
"""Tolerance in levels of 255, for sums of float32 in another order."""

BF16_DB = 45
"""Lowest PSNR of bfloat16; measured: 57.5 dB, on frames with 4 pixels of motion."""


@pytest.fixture(scope="module")
def openvino():
    return import_quietly("openvino")


@pytest.fixture(scope="module")
def int8(models, tmp_path_factory):
    """The ONNX file of the demo weights for frames of 50x70, quantised without the gate."""
    source = source_from_onnx(models / "frames.onnx")
    frames = moving_frames(*source.info.size, 4.0)
    img0, img1 = images_for(source.info, *frames, rows=1)
    feed = {"img0": img0, "img1": img1, "timestep": np.full((1, 1, 1, 1), 0.5, np.float32)}
    layers, _ = layer_names(source.model)
    model = quantised(source.model, measured_ranges(source.model, [feed]), layers)
    model, _ = finalise(model, source.info, "any")
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    onnx.save(model, path)
    return path, len(layers), frames, feed


@pytest.fixture
def marked(openvino, int8):
    path, *_ = int8
    return with_float32_marks(openvino, openvino.Core(), from_onnx(openvino, path.read_bytes()))


def test_quantised_weights_have_no_marks(openvino, marked):
    kinds = Counter(node.get_type_name() for node in marked.get_ops() if is_marked(node))
    assert kinds["GridSample"] == 4
    assert not {"FakeQuantize", "Convolution", "PRelu"} & kinds.keys()
    for node in marked.get_ops():
        if node.get_type_name() == "Convert" and is_marked(node):
            assert node.input_value(0).get_node().get_type_name() != "Constant"


def test_the_marked_graph_makes_the_same_frame_with_and_without_outputs(openvino, int8, marked):
    path, _, _, feed = int8
    core, settings = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    plain = from_onnx(openvino, path.read_bytes())
    compiled = [core.compile_model(one, "CPU", settings) for one in (plain, marked)]
    add_coordinates_to_outputs(marked)
    compiled.append(core.compile_model(marked, "CPU", settings))
    assert [len(one.outputs) for one in compiled] == [1, 1, 5]
    for one in compiled:
        assert {port.name for port in ov._ports(one)} == {*INPUTS, OUTPUT}
    first, *others = (one(feed)[0] for one in compiled)
    for other in others:
        assert np.abs(first.astype(int) - other).max() <= LEVELS


def test_convolutions_with_the_identity_change_no_value(openvino, int8, marked):
    *_, feed = int8
    core, settings = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    add_coordinates_to_outputs(marked)
    before = core.compile_model(marked, "CPU", settings)(feed)
    add_convolutions(openvino, marked)
    identities = [
        node
        for node in marked.get_ordered_ops()
        if node.get_type_name() == "Convolution"
        and (weights := node.input_value(1).get_node()).get_type_name() == "Constant"
        and np.array_equal(weights.data[..., 0, 0], np.eye(len(weights.data)))
    ]
    (height, width) = int8[2][0].shape[:2]
    padded = [-(-n // 16) * 16 for n in (height, width)]
    assert [node.output(0).shape[2:] for node in identities] == [
        [n // 2 for n in padded], padded
    ]  # fmt: skip
    after = core.compile_model(marked, "CPU", settings)(feed)
    for one, other in zip(before.values(), after.values(), strict=True):
        assert np.abs(one.astype(float) - other).max() <= LEVELS


def convolutions(compiled, kind="Convolution"):
    """The number of convolutions of a compiled model by the type in which they run."""
    infos = (layer.get_rt_info() for layer in compiled.get_runtime_model().get_ordered_ops())
    return Counter(
        info["runtimePrecision"].value for info in infos if info["layerType"].value == kind
    )


def test_integer_convolutions_stay_integer_beside_bfloat16(openvino, bf16_cpu, int8):
    path, layers, *_ = int8
    compiled = {
        precision: compiled_model(openvino, path.read_bytes(), Compilation(precision, 1, 1, None))
        for precision in ("fp32", "bf16")
    }
    assert convolutions(compiled["fp32"]) == {"u8": layers, "f32": 8}
    assert convolutions(compiled["fp32"], "Deconvolution") == {"f32": 4}
    # Two added convolutions with the identity end the float32 part after two transposed ones.
    assert convolutions(compiled["bf16"]) == {"u8": layers, "bf16": 8 + 2}
    assert convolutions(compiled["bf16"], "Deconvolution") == {"f32": 2, "bf16": 2}


def test_bfloat16_hardly_changes_the_frames_of_an_int8_model(bf16_cpu, int8):
    path, _, frames, _ = int8
    made = []
    for precision in ("fp32", "bf16"):
        with Interpolator.open(path, backend="openvino", precision=precision, cache="none") as vfi:
            made.append(vfi.interpolate(*frames).astype(np.float64) / 255)
    db = 10 * np.log10(1 / np.mean((made[0] - made[1]) ** 2))
    assert db > BF16_DB
