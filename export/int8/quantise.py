"""Quantises the decoders' convolutions of a float32 graph to int8, as Q/DQ nodes of plain ONNX.

Each convolution has QuantizeLinear and DequantizeLinear at its input and its output, and weights
and bias as integers, which ONNX Runtime and OpenVINO fuse into one integer kernel. Activations are
uint8 with one scale per tensor, weights int8 with one scale per output channel.

Measured with the small demo weights at 448x256, as CPU time of one thread relative to the float32
graph in the same backend, on a CPU with AVX2 and without VNNI: Q/DQ at inputs and outputs with the
graph tuned for the CPU, 0.75 in ONNX Runtime 1.32 and 0.65 in OpenVINO 2026.4; Q/DQ only at inputs,
1.2 in ONNX Runtime, which then fuses nothing, and 0.64. Tried and rejected: int8 activations (4 dB
less), percentiles instead of the extremes (no better), onnxruntime.quantization (the same nodes and
results; it calibrates again for every layer that is left out, works on files, and needs another
package).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from export.errors import ExportError
from export.graph.view import GraphView, add_constant, replace_nodes
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")

Ranges = Mapping[str, tuple[float, float]]
"""Name of a tensor -> its minimum and maximum, a range that contains 0."""

_LARGEST_WEIGHT = 64
"""CPUs without VNNI add two products of a uint8 and an int8 in 16 bits, which overflow from
2 * 255 * 65 on. Weights up to 127 cost 9 to 13 dB there; up to 64 they are exact on every CPU."""

_LARGEST_BIAS = 2**30
"""Half the range of int32; the other half is for the sum of products."""

_SUFFIX = "/Conv"


def layer_names(model: ModelProto) -> tuple[list[str], list[str]]:
    """The layers of the convolutions to quantise, and of those that stay float32.

    These stay float32: the encoder, which is 7 % of the arithmetic and loses more dB in int8 than
    all decoders together (measured one by one, mostly in its first two levels), and the transposed
    convolutions at the end of the decoders, which output flows, mask and residual. Warps, mean,
    blend and output are no convolutions and stay float32 too.

    Raises:
        ExportError: If the graph has no convolution to quantise, because its nodes were renamed.
    """
    view = GraphView(model)
    quantised_layers: list[str] = []
    float_layers: list[str] = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            plain = node.op_type == "Conv" and view.is_convolution(node)
            selected = plain and node.name.startswith("decoder") and node.name.endswith(_SUFFIX)
            (quantised_layers if selected else float_layers).append(_layer(node))
    if not quantised_layers:
        raise ExportError(
            "the graph has no convolution named decoder...: give the float32 file of export.to_onnx"
        )
    return quantised_layers, float_layers


def _layer(node: NodeProto) -> str:
    return node.name.rpartition("/")[0] or node.name


def measured_ranges(
    model: ModelProto, feeds: Iterable[Mapping[str, NDArray[Any]]]
) -> dict[str, tuple[float, float]]:
    """Measures the range of every input and output of the layers to quantise.

    The extremes are computed inside the graph, because the tensors would take gigabytes.

    Args:
        model: The float32 graph.
        feeds: Inputs of the graph by name, one dictionary for each inference.

    Returns:
        Name of a tensor -> (minimum, maximum) over all inferences, a range that contains 0.
    """
    layers = set(layer_names(model)[0])
    tensors: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and _layer(node) in layers:
            tensors |= dict.fromkeys((node.input[0], node.output[0]))
    names = list(tensors)
    tapped = ModelProto()
    tapped.CopyFrom(model)
    del tapped.graph.output[:]
    for name in names:
        for operator in ("ReduceMin", "ReduceMax"):
            tap = f"{name}/{operator}"
            tapped.graph.node.append(
                helper.make_node(operator, [name], [tap], name=tap, keepdims=0)
            )
            tapped.graph.output.append(helper.make_tensor_value_info(tap, TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        tapped.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    extremes = np.array([session.run(None, dict(feed)) for feed in feeds], np.float32)
    lows, highs = extremes[:, 0::2].min(0), extremes[:, 1::2].max(0)
    return {
        name: (min(float(low), 0.0), max(float(high), 0.0))
        for name, low, high in zip(names, lows, highs, strict=True)
    }


def quantised(model: ModelProto, ranges: Ranges, layers: Collection[str]) -> ModelProto:
    """A copy of a float32 graph with `layers` in int8.

    Args:
        model: The float32 graph.
        ranges: The ranges of the inputs and outputs of the layers, of `measured_ranges`.
        layers: Names of layers, of the first list of `layer_names`.
    """
    copied = ModelProto()
    copied.CopyFrom(model)
    del copied.graph.value_info[:]
    view = GraphView(copied)
    int8_inputs: dict[str, str] = {}

    def rewritten(node: NodeProto) -> Iterator[NodeProto]:
        if node.op_type != "Conv" or _layer(node) not in layers:
            yield node
            return
        x, kernel, bias = node.input
        (y,) = node.output
        if x not in int8_inputs:  # Several layers may have the same input.
            int8_inputs[x] = f"{x}_int8"
            yield from _rounded(copied, x, int8_inputs[x], ranges[x], name=f"{_layer(node)}/Input")
        weights, biases = view.constant(kernel), view.constant(bias)
        input_scale, _ = _activation_scale(ranges[x])
        scales = _weight_scales(weights, biases, input_scale)
        whole = np.rint(weights / scales[:, None, None, None]).astype(np.int8)
        yield _constant(copied, kernel, whole, scales, name=f"{_layer(node)}/Weight")
        scales = scales * input_scale
        whole = np.rint(biases / scales).astype(np.int32)
        yield _constant(copied, bias, whole, scales, name=f"{_layer(node)}/Bias")
        conv = NodeProto()
        conv.CopyFrom(node)
        conv.input[:] = [int8_inputs[x], f"{kernel}_int8", f"{bias}_int8"]
        conv.output[:] = [f"{y}_float"]
        yield conv
        yield from _rounded(copied, f"{y}_float", y, ranges[y], name=f"{_layer(node)}/Output")

    replace_nodes(copied, rewritten)
    return copied


def _activation_scale(limits: tuple[float, float]) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of a tensor with these (minimum, maximum) in uint8."""
    low, high = limits
    scale = np.float32((high - low) / 255) or np.float32(1)
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def _weight_scales(
    weights: NDArray[Any], biases: NDArray[Any], input_scale: np.float32
) -> NDArray[np.float32]:
    """A scale per output channel, at which the bias, in steps of scale * input_scale, fits too."""
    largest = np.abs(weights).reshape(len(weights), -1).max(1) / _LARGEST_WEIGHT
    scales = np.maximum(largest, np.abs(biases) / input_scale / _LARGEST_BIAS)
    return np.where(scales == 0, 1, scales).astype(np.float32)


def _rounded(
    model: ModelProto, before: str, after: str, limits: tuple[float, float], *, name: str
) -> Sequence[NodeProto]:
    """The nodes that quantise and dequantise an activation."""
    scale, zero = _activation_scale(limits)
    parameters = [f"{name}/scale", f"{name}/zero"]
    for constant, value in zip(parameters, (scale, zero), strict=True):
        add_constant(model, constant, np.array(value))
    whole = f"{name}/uint8"
    return (
        helper.make_node("QuantizeLinear", [before, *parameters], [whole], name=f"{name}/Quantize"),
        helper.make_node(
            "DequantizeLinear", [whole, *parameters], [after], name=f"{name}/Dequantize"
        ),
    )


def _constant(
    model: ModelProto, float_name: str, whole: NDArray[Any], scales: NDArray[Any], *, name: str
) -> NodeProto:
    """Adds a constant as integers, and returns the node that dequantises it."""
    inputs = [f"{name}/whole", f"{name}/scale", f"{name}/zero"]
    values = (whole, scales.astype(np.float32), np.zeros(len(scales), whole.dtype))
    for constant, value in zip(inputs, values, strict=True):
        add_constant(model, constant, value)
    return helper.make_node(
        "DequantizeLinear", inputs, [f"{float_name}_int8"], name=f"{name}/Dequantize", axis=0
    )
