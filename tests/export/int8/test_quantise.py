"""Quantisation of small graphs: ranges, scales, rounding, and the layers that are quantised."""

import numpy as np
import pytest
from onnx import helper

from export.errors import ExportError
from export.graph.view import GraphView, add_constant
from export.int8.quantise import layer_names, measured_ranges, quantised
from small_graphs import one_node, operators, run

LAYER = "decoder1.convblock.0.0"


def convolution(weights, biases, width=1):
    """A graph of one 1x1 convolution of the decoder; weights (outputs, inputs)."""
    kernel = np.array(weights, np.float32)[:, :, None, None]
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name=f"{LAYER}/Conv")
    constants = [("w", kernel), ("b", np.array(biases, np.float32))]
    return one_node(node, {"x": [1, kernel.shape[1], 1, width]}, constants)


def row(*values):
    return np.array(values, np.float32).reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("feeds", "low", "high"),
    [
        ([(2, 5), (3, 4)], 0, 5),
        ([(-2, -5), (-3, -4)], -5, 0),
        ([(0, 0)], 0, 0),
        ([(-3, 1), (-1, 7)], -3, 7),
        ([(-1, 7), (-3, 1)], -3, 7),
    ],
)
def test_ranges_span_all_inferences_and_zero(feeds, low, high):
    model = convolution([[2]], [0], width=2)
    ranges = measured_ranges(model, [{"x": row(*feed)} for feed in feeds])
    assert ranges == {"x": (low, high), "y": (2 * low, 2 * high)}


@pytest.mark.parametrize(
    ("limits", "scale", "zero"),
    [
        ((0, 255), 1, 0),
        ((-255, 0), 1, 255),
        ((-2, 253), 1, 2),
        ((-0.5, 254.5), 1, 0),
        ((-1.5, 253.5), 1, 2),
        ((-51, 76.5), 0.5, 102),
        ((0, 0), 1, 0),
    ],
)
def test_the_extremes_are_the_first_and_the_last_level_and_zero_is_exact(limits, scale, zero):
    model = quantised(convolution([[1]], [0]), {"x": limits, "y": limits}, [LAYER])
    view = GraphView(model)
    for place in ("Input", "Output"):
        made = view.constant(f"{LAYER}/{place}/scale"), view.constant(f"{LAYER}/{place}/zero")
        assert [value.dtype for value in made] == [np.float32, np.uint8]
        assert made == (scale, zero)
    assert run(model, x=row(0)).item() == 0


def test_activations_are_rounded_half_to_even_and_saturate():
    model = convolution([[1]], [0], width=7)
    model = quantised(model, {"x": (0, 255), "y": (0, 255)}, [LAYER])
    found = run(model, x=row(-3, 0.5, 1.5, 2.5, 2.6, 254.6, 300))
    assert found.ravel().tolist() == [0, 0, 2, 2, 3, 255, 255]


def test_weights_and_biases_are_rounded_half_to_even():
    """The largest weight of each channel is 64 steps, a step of a bias is that of a product."""
    weights = [[64, 0.5, 1.5, -2.6], [-32, 0.25, -0.75, 1.3], [0, 0, 0, 0]]
    limits = {"x": (0, 510), "y": (0, 255)}
    view = GraphView(quantised(convolution(weights, [5, -2.75, 3]), limits, [LAYER]))
    whole = view.constant(f"{LAYER}/Weight/whole")
    assert whole.dtype == np.int8
    assert whole[..., 0, 0].tolist() == [[64, 0, 2, -3], [-64, 0, -2, 3], [0, 0, 0, 0]]
    assert view.constant(f"{LAYER}/Weight/scale")[:2].tolist() == [1, 0.5]
    biases = view.constant(f"{LAYER}/Bias/whole")
    assert biases.dtype == np.int32
    assert biases[:2].tolist() == [2, -3]
    scales = view.constant(f"{LAYER}/Bias/scale")
    assert scales[:2].tolist() == [2, 1]
    assert biases[2] * scales[2] == pytest.approx(3, rel=1e-6)


def test_a_channel_of_zeros_stays_zero():
    model = convolution([[0]], [0])
    model = quantised(model, {"x": (0, 255), "y": (0, 255)}, [LAYER])
    assert GraphView(model).constant(f"{LAYER}/Weight/scale").tolist() == [1]
    assert run(model, x=row(200)).item() == 0


def several_convolutions():
    """Two convolutions of the decoder that read the same input, and nodes that stay float32."""
    model = convolution([[1]], [0])
    for name, shape in {"w2": (1, 1, 1, 1), "b2": (1,), "w4": (1, 1, 4, 4)}.items():
        add_constant(model, name, np.full(shape, name[0] == "w", np.float32))
    twice = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        ("Conv", ("x", "w2", "b2"), "other", "decoder2/Conv", {}),
        ("Relu", ("other",), "positive", "decoder2/Relu", {}),
        ("Conv", ("x", "w", "b"), "encoded", "encoder.pyramid1/Conv", {}),
        ("Conv", ("y", "w", "b"), "second", "decoder3/Conv_2", {}),
        ("Conv", ("y", "w"), "plain", "decoder4/Conv", {}),
        ("Conv", ("y", "other", "b"), "computed", "decoder5/Conv", {}),
        ("ConvTranspose", ("y", "w4", "b"), "wide", "decoder6/ConvTranspose", twice),
        ("ConvTranspose", ("y", "w4", "b"), "wider", "decoder7/Conv", twice),
    ]
    for operator, inputs, output, name, attributes in nodes:
        node = helper.make_node(operator, inputs, [output], name=name, **attributes)
        model.graph.node.append(node)
    return model


def test_only_convolutions_of_the_decoders_with_constant_weights_and_bias_are_quantised():
    layers, others = layer_names(several_convolutions())
    assert layers == [LAYER, "decoder2"]
    assert others == [
        "encoder.pyramid1", "decoder3", "decoder4", "decoder5", "decoder6", "decoder7",
    ]  # fmt: skip


def test_layers_with_the_same_input_share_its_rounding():
    model = several_convolutions()
    del model.graph.node[3:]
    ranges = measured_ranges(model, [{"x": row(-4)}])
    assert ranges == dict.fromkeys(("x", "y", "other"), (-4, 0))
    both = quantised(model, ranges, [LAYER, "decoder2"])
    assert operators(both)["QuantizeLinear"] == 3
    convolutions = [node for node in both.graph.node if node.op_type == "Conv"]
    assert [node.input[0] for node in convolutions] == ["x_int8", "x_int8"]
    one = quantised(model, ranges, ["decoder2"])
    assert operators(one)["QuantizeLinear"] == 2
    assert [node.input[0] for node in one.graph.node if node.op_type == "Conv"] == ["x", "x_int8"]
    assert run(both, x=row(-4)).item() == run(one, x=row(-4)).item() == -4


def test_a_graph_with_renamed_nodes_is_refused():
    model = convolution([[1]], [0])
    model.graph.node[0].name = "conv_7"
    with pytest.raises(ExportError, match=r"no convolution named decoder\.\.\.: give the float32"):
        layer_names(model)
