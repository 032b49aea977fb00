"""A float32 graph -> the same with the decoders' convolutions in int8, as Q/DQ of plain ONNX.

Around each of them QuantizeLinear and DequantizeLinear stand at its input and its output, and its
weights and its bias are kept as integers: what ONNX Runtime fuses into one integer kernel, and
OpenVINO takes as its own. Activations are uint8 with one scale, weights int8 with one for each
output channel.

Measured with the small demo weights at 448x256 (CPU time of one thread, a processor with AVX2 and
without VNNI, against the float32 graph in the same program): Q/DQ at inputs and outputs and the
graph tuned for the CPU, 0.75 in ONNX Runtime 1.32 and 0.65 in OpenVINO 2026.4; Q/DQ at inputs
alone, 1.2 in ONNX Runtime, which fuses nothing then, and 0.64. Tried and left out: int8 activations
(4 dB less), percentiles in place of the extremes (no better), onnxruntime.quantization (the same
nodes and the same figures; it calibrates again for every layer that is left out, works on files,
and needs a package more).
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
"""The smallest and the largest value of a tensor; 0 lies between them."""

_LARGEST_WEIGHT = 64
"""Processors without VNNI add two products of a uint8 and an int8 in 16 bits, which overflow from
2 * 255 * 65 on. Weights up to 127 cost 9 to 13 dB there, 64 are right everywhere."""

_LARGEST_BIAS = 2**30
"""Half of what an int32 holds: the sum of products has the other half."""

_SUFFIX = "/Conv"


def layer_names(model: ModelProto) -> tuple[list[str], list[str]]:
    """The convolutions that are quantised, and those that are not, by the names of their layers.

    Not quantised are the encoder, 7 % of the arithmetic, which costs more dB than all decoders
    together (its first two levels, above all; measured one by one), and the transposed convolutions
    at the end of the decoders, which make flows, mask and residual. Everything that is no
    convolution stays float32: warps, mean, blend, output.

    Raises:
        ExportError: If the graph has none to quantise: its nodes were renamed.
    """
    view = GraphView(model)
    chosen: list[str] = []
    left: list[str] = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            fits = node.op_type == "Conv" and view.is_convolution(node)
            wanted = fits and node.name.startswith("decoder") and node.name.endswith(_SUFFIX)
            (chosen if wanted else left).append(_layer(node))
    if not chosen:
        raise ExportError(
            "the graph has no convolution named decoder...: give the float32 file of export.to_onnx"
        )
    return chosen, left


def _layer(node: NodeProto) -> str:
    return node.name.rpartition("/")[0] or node.name


def measured_ranges(
    model: ModelProto, feeds: Iterable[Mapping[str, NDArray[Any]]]
) -> dict[str, tuple[float, float]]:
    """The range of every tensor that quantised layers read or make, over all `feeds`.

    The extremes are found inside the graph: the tensors themselves would take gigabytes.

    Args:
        model: The float32 graph.
        feeds: Inputs by name.
    """
    chosen = set(layer_names(model)[0])
    found: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and _layer(node) in chosen:
            found |= dict.fromkeys((node.input[0], node.output[0]))
    names = list(found)
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
    """A copy with `layers` in int8.

    Args:
        model: The float32 graph.
        ranges: Of `measured_ranges`.
        layers: Of the first list of `layer_names`.
    """
    made = ModelProto()
    made.CopyFrom(model)
    del made.graph.value_info[:]
    view = GraphView(made)
    stand_ins: dict[str, str] = {}

    def rewritten(node: NodeProto) -> Iterator[NodeProto]:
        if node.op_type != "Conv" or _layer(node) not in layers:
            yield node
            return
        x, kernel, bias = node.input
        (y,) = node.output
        if x not in stand_ins:  # Several layers may read one tensor.
            stand_ins[x] = f"{x}_int8"
            yield from _rounded(made, x, stand_ins[x], ranges[x], name=f"{_layer(node)}/Input")
        weights, biases = view.constant(kernel), view.constant(bias)
        input_scale, _ = _activation_scale(ranges[x])
        scales = _weight_scales(weights, biases, input_scale)
        whole = np.rint(weights / scales[:, None, None, None]).astype(np.int8)
        yield _constant(made, kernel, whole, scales, name=f"{_layer(node)}/Weight")
        scales = scales * input_scale
        whole = np.rint(biases / scales).astype(np.int32)
        yield _constant(made, bias, whole, scales, name=f"{_layer(node)}/Bias")
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [stand_ins[x], f"{kernel}_int8", f"{bias}_int8"]
        copied.output[:] = [f"{y}_float"]
        yield copied
        yield from _rounded(made, f"{y}_float", y, ranges[y], name=f"{_layer(node)}/Output")

    replace_nodes(made, rewritten)
    return made


def _activation_scale(limits: tuple[float, float]) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of a tensor in uint8."""
    low, high = limits
    scale = np.float32((high - low) / 255) or np.float32(1)
    return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def _weight_scales(
    weights: NDArray[Any], biases: NDArray[Any], input_scale: np.float32
) -> NDArray[np.float32]:
    """A scale for each output channel; its bias, in steps of scale * input_scale, fits too."""
    largest = np.abs(weights).reshape(len(weights), -1).max(1) / _LARGEST_WEIGHT
    scales = np.maximum(largest, np.abs(biases) / input_scale / _LARGEST_BIAS)
    return np.where(scales == 0, 1, scales).astype(np.float32)


def _rounded(
    model: ModelProto, before: str, after: str, limits: tuple[float, float], *, name: str
) -> Sequence[NodeProto]:
    """QuantizeLinear and DequantizeLinear of an activation."""
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
    """Whole numbers in place of a constant, and the node that gives them their scale back."""
    inputs = [f"{name}/whole", f"{name}/scale", f"{name}/zero"]
    values = (whole, scales.astype(np.float32), np.zeros(len(scales), whole.dtype))
    for constant, value in zip(inputs, values, strict=True):
        add_constant(model, constant, value)
    return helper.make_node(
        "DequantizeLinear", inputs, [f"{float_name}_int8"], name=f"{name}/Dequantize", axis=0
    )
