import numpy as np
import onnx
import pytest
from onnx import helper

from export.graph.for_cpu import (
    deconvolution_as_convolution,
    prelu_as_relu,
    sampling_in_bounds,
    tuned_for_cpu,
)
from runtime.telemetry import import_quietly
from small_graphs import one_node, operators, run

onnxruntime = import_quietly("onnxruntime")


@pytest.mark.parametrize("slopes", [(0.25, 0.0), (-3.0, 1.0), (0.999, 1.5)])
def test_prelu_as_relu_is_equal(slopes):
    node = helper.make_node("PRelu", ["x", "a"], ["y"])
    slope = np.array(slopes, np.float32).reshape(2, 1, 1)
    model = one_node(node, {"x": [1, 2, 8, 8]}, [("a", slope)])
    x = np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32)
    expected = run(model, x=x)
    prelu_as_relu(model)
    assert operators(model) == {"Mul": 2, "Relu": 1, "Add": 1}
    np.testing.assert_allclose(run(model, x=x), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [[2, 5, 6, 9], ["n", 5, "h", "w"]])
def test_deconvolution_as_convolution_is_equal(shape):
    node = helper.make_node(
        "ConvTranspose", ["x", "w", "b"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 3, 4, 4)).astype(np.float32)
    bias = rng.standard_normal(3).astype(np.float32)
    model = one_node(node, {"x": shape}, [("w", weight), ("b", bias)])
    x = rng.standard_normal((2, 5, 6, 9)).astype(np.float32)
    expected = run(model, x=x)
    deconvolution_as_convolution(model)
    onnx.checker.check_model(model, full_check=True)
    assert operators(model) == {"Conv": 1, "Slice": 4, "Concat": 1, "DepthToSpace": 1}
    assert expected.shape == (2, 3, 12, 18)
    np.testing.assert_allclose(run(model, x=x), expected, atol=1e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        {"strides": [1, 1]},
        {"strides": [2, 1]},
        {"pads": [0, 0, 0, 0]},
        {"output_padding": [1, 1]},
        {"group": 5},
    ],
)
def test_other_deconvolutions_are_left_alone(attributes):
    given = {"strides": [2, 2], "pads": [1, 1, 1, 1], **attributes}
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], **given)
    weight, bias = np.ones((5, 3, 4, 4), np.float32), np.ones(3, np.float32)
    model = one_node(node, {"x": [1, 5, 6, 9]}, [("w", weight), ("b", bias)])
    before = model.SerializeToString()
    deconvolution_as_convolution(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("inputs", "kernel"),
    [
        (["x", "w"], (4, 4)),
        (["x", "w", "b"], (2, 2)),
        (["x", "w", "b"], (4, 2)),
        (["x", "x", "b"], (4, 4)),
        (["x", "w", "x"], (4, 4)),
    ],
)
def test_deconvolutions_with_other_inputs_are_left_alone(inputs, kernel):
    node = helper.make_node("ConvTranspose", inputs, ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    weight, bias = np.ones((5, 3, *kernel), np.float32), np.ones(3, np.float32)
    model = one_node(node, {"x": [5, 3, 4, 4]}, [("w", weight), ("b", bias)])
    deconvolution_as_convolution(model)
    assert list(model.graph.node) == [node]


def test_prelu_with_a_computed_slope_is_left_alone():
    model = one_node(helper.make_node("PRelu", ["x", "x"], ["y"]), {"x": [1, 2, 8, 8]})
    before = model.SerializeToString()
    prelu_as_relu(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("shape", [[2, 3, 9, 14], ["n", 3, "h", "w"]])
def test_sampling_in_bounds_equals_repeated_borders(shape):
    node = helper.make_node(
        "GridSample", ["x", "g"], ["y"], mode="bilinear", padding_mode="border", align_corners=1
    )
    model = one_node(node, {"x": shape, "g": ["n", "p", "q", 2]})
    rng = np.random.default_rng(0)
    x = rng.random((2, 3, 9, 14)).astype(np.float32)
    grid = rng.uniform(-1.5, 1.5, (2, 20, 21, 2)).astype(np.float32)
    grid[0, 0, :4] = [[-1, -1], [1, 1], [-1, 1], [1, -1]]
    expected = run(model, x=x, g=grid)
    sampling_in_bounds(model)
    onnx.checker.check_model(model, full_check=True)
    (sample,) = (n for n in model.graph.node if n.op_type == "GridSample")
    attributes = {a.name: helper.get_attribute_value(a) for a in sample.attribute}
    assert attributes == {"mode": b"bilinear", "padding_mode": b"zeros", "align_corners": 0}
    np.testing.assert_allclose(run(model, x=x, g=grid), expected, atol=2e-6)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"padding_mode": "zeros"},
        {"padding_mode": "zeros", "align_corners": 1},
        {"padding_mode": "reflection", "align_corners": 1},
        {"padding_mode": "border"},
        {"padding_mode": "border", "align_corners": 0},
    ],
)
def test_sampling_with_another_border_or_grid_is_left_alone(attributes):
    node = helper.make_node("GridSample", ["x", "g"], ["y"], **attributes)
    model = one_node(node, {"x": [1, 3, 9, 14], "g": [1, 4, 4, 2]})
    before = model.SerializeToString()
    sampling_in_bounds(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("options", [{}, {"dynamic": True}, {"io": "float"}])
def test_tuning_changes_neither_the_plain_graph_nor_the_result(export, options):
    height, width = (64, 80) if options else (50, 70)
    plain = export(height=height, width=width, **options).model
    before = plain.SerializeToString()
    tuned = tuned_for_cpu(plain)
    assert plain.SerializeToString() == before
    found = operators(tuned)
    assert found["PRelu"] == found["ConvTranspose"] == 0
    assert found["Relu"] == 32
    assert found["DepthToSpace"] == 4
    assert found["GridSample"] == 4
    rng = np.random.default_rng(0)
    if options.get("io") == "float":
        frames = rng.random((2, 1, 3, height, width)).astype(np.float32)
        tolerance = 1e-4
    else:
        frames = rng.integers(0, 256, (2, 1, height, width, 3), dtype=np.uint8)
        tolerance = 1
    inputs = {"img0": frames[0], "img1": frames[1], "timestep": np.full((1, 1, 1, 1), 0.5, "f")}
    difference = run(tuned, **inputs).astype(float) - run(plain, **inputs)
    assert np.abs(difference).max() <= tolerance
    assert np.mean(np.abs(difference) >= 1) < 1e-3
