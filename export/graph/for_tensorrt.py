"""Rewrites of a graph for TensorRT.

One is always applied: `without_shape_ranges`. The others may run faster and are chosen by name;
none of them is applied by default. Each computes the same results with other operators, except for
the rounding of sums. None was measured on a GPU yet; measurements will decide which of them a
build applies. `round` is not for speed: a build tries it if TensorRT cannot build the graph, since
a kernel for Round may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from export.errors import ExportError
from export.graph import passes
from export.graph.channels import align_channels
from export.graph.view import GraphView, add_constant, is_deconvolution, replace_nodes


def rewritten_for_tensorrt(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """A copy without ranges of Shape, and with the rewrites of these names applied.

    Args:
        model: The graph.
        names: Names of `REWRITES`; they are applied in the order of `REWRITES`.

    Raises:
        ExportError: If a name is unknown, or the result is not plain ONNX.
    """
    check_names(names)
    rewritten = ModelProto()
    rewritten.CopyFrom(model)
    without_shape_ranges(rewritten)
    for name, rewrite in REWRITES.items():
        if name in names:
            rewrite(rewritten)
    passes.check(rewritten)
    return rewritten


def check_names(names: Sequence[str]) -> None:
    """Checks the names of rewrites.

    Raises:
        ExportError: If one is not in `REWRITES`.
    """
    for name in names:
        if name not in REWRITES:
            raise ExportError(f"rewrite {name!r} is unknown: use {', '.join(REWRITES)}")


def without_shape_ranges(model: ModelProto) -> None:
    """Shape(x, start, end) -> Slice(Shape(x), start, end), in place.

    The parser of TensorRT 8.6 ignores the attributes, which ONNX has had since opset 15: in a graph
    of free size it returns the whole shape instead of the height, and fails at the next node.
    """

    def rewritten(node: NodeProto) -> list[NodeProto]:
        attributes = {a.name: a.i for a in node.attribute}
        if node.op_type != "Shape" or not (attributes.get("start") or "end" in attributes):
            return [node]
        (x,), (y,) = node.input, node.output
        bounds = [f"{y}_start", f"{y}_end", f"{y}_axis"]
        ends = attributes.get("start", 0), attributes.get("end", np.iinfo(np.int64).max), 0
        for name, value in zip(bounds, ends, strict=True):
            add_constant(model, name, np.array([value], np.int64))
        return [
            helper.make_node("Shape", [x], [f"{y}_whole"], name=f"{node.name}/Shape"),
            helper.make_node("Slice", [f"{y}_whole", *bounds], [y], name=f"{node.name}/Slice"),
        ]

    replace_nodes(model, rewritten)


def separate_side_channels(model: ModelProto) -> None:
    """Conv, PRelu, Split -> a Conv and a PRelu for each part, in place.

    The output of a layer can be written into the buffer of the Concat that consumes it; channels
    cut from a wider tensor must be copied there. In exchange the input is read twice. Every channel
    is the same sum as before. Flows stay with the feature that they are decoded with: four channels
    are too few for a separate layer.
    """
    view = GraphView(model)
    replaced: dict[str, list[NodeProto]] = {}
    for conv in model.graph.node:
        prelu = view.only_consumer(conv.output[0], "PRelu")
        split = view.only_consumer(prelu.output[0], "Split") if prelu else None
        if not (prelu and split and conv.op_type == "Conv" and view.is_convolution(conv)):
            continue
        if not view.is_constant(prelu.input[1], split.input[1]):
            continue
        kernel, bias, slope = map(view.constant, (*conv.input[1:], prelu.input[1]))
        cuts = np.cumsum(view.constant(split.input[1]))[:-1]
        arrays = (np.split(kernel, cuts), np.split(bias, cuts), np.split(slope, cuts, -3))
        layers = replaced[conv.output[0]] = []
        replaced[prelu.output[0]] = replaced[split.output[0]] = []
        for part, *constants in zip(split.output, *arrays, strict=True):
            names = [f"{part}_{role}" for role in ("kernel", "bias", "slope")]
            for name, constant in zip(names, constants, strict=True):
                add_constant(model, name, constant)
            layers += [_copy(conv, [conv.input[0], *names[:2]], f"{part}_sum")]
            layers += [_copy(prelu, [f"{part}_sum", names[2]], part)]
    replace_nodes(model, lambda node: replaced.get(node.output[0], [node]))


def _copy(node: NodeProto, inputs: Sequence[str], output: str) -> NodeProto:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    name = f"{node.name}/{output}"
    return helper.make_node(node.op_type, inputs, [output], name=name, **attributes)


def deconvolution_as_convolution(model: ModelProto) -> None:
    """ConvTranspose(4, stride 2, padding 1) -> 3x3 Conv to 4x the channels, DepthToSpace, in place.

    An input pixel becomes 2x2 output pixels. Each of them depends on four of the 3x3 pixels around
    that input pixel; the other weights are 0, so the arithmetic grows to 9/4. The four output
    pixels are four runs of all channels ("DCR"): with channels innermost, whole pixels are copied.
    """
    weights = {t.name: t for t in model.graph.initializer}

    def rewritten(node: NodeProto) -> list[NodeProto]:
        if not is_deconvolution(node, weights):
            return [node]
        kernel, bias = (numpy_helper.to_array(weights[name]) for name in node.input[1:])
        (inputs, outputs), (y,) = kernel.shape[:2], node.output
        runs = np.zeros((2, 2, outputs, inputs, 3, 3), kernel.dtype)
        for row, column in np.ndindex(2, 2):
            # Tap row + p of output row 2i + row reads input row i + row + p - 1 through kernel row
            # 3 - row - 2p; columns likewise.
            taps = kernel[:, :, [3 - row, 1 - row]][:, :, :, [3 - column, 1 - column]]
            runs[row, column, :, :, row : row + 2, column : column + 2] = taps.swapaxes(0, 1)
        conv = [node.input[0], f"{y}_runs_kernel", f"{y}_runs_bias"]
        add_constant(model, conv[1], runs.reshape(4 * outputs, inputs, 3, 3))
        add_constant(model, conv[2], np.tile(bias, 4))
        name, wide = f"{node.name}/DepthToSpace", f"{y}_runs"
        return [
            helper.make_node("Conv", conv, [wide], name=f"{node.name}/Conv", pads=[1, 1, 1, 1]),
            helper.make_node("DepthToSpace", [wide], [y], name=name, blocksize=2, mode="DCR"),
        ]

    replace_nodes(model, rewritten)


def grid_in_two_steps(model: ModelProto) -> None:
    """Flow * scale + columns + rows -> flow * scale + plane, in place, if sizes are fixed.

    Bit-equal: each channel adds 0 in one of the two sums. The plane is a constant of 8 bytes for
    each pixel.
    """
    view = GraphView(model)
    removed = set()
    for node in model.graph.node:
        second = view.only_consumer(node.output[0], "Add") if node.op_type == "Add" else None
        turned = view.only_consumer(second.output[0], "Transpose") if second else None
        if not (second and turned and view.only_consumer(turned.output[0], "GridSample")):
            continue
        if view.is_constant(node.input[1], second.input[1]):
            plane = f"{second.output[0]}_plane"
            add_constant(
                model, plane, view.constant(node.input[1]) + view.constant(second.input[1])
            )
            second.input[:] = [node.input[0], plane]
            removed.add(node.output[0])
    replace_nodes(model, lambda node: [] if node.output[0] in removed else [node])


_Steps = list[tuple[str, list[str], str]]  # Operator, inputs, output.


def prelu_as_maximum_and_minimum(model: ModelProto) -> None:
    """PRelu(x, a) -> Max(x, 0) + a * Min(x, 0), in place. Bit-equal: one of the two terms is 0."""

    def steps(x: str, a: str, y: str, slope: NDArray[Any]) -> _Steps:
        zero = f"zero_{slope.dtype}"
        if all(t.name != zero for t in model.graph.initializer):
            add_constant(model, zero, np.zeros([1] * slope.ndim, slope.dtype))
        parts = ("Max", [x, zero], f"{y}_above"), ("Min", [x, zero], f"{y}_below")
        bent = ("Mul", [f"{y}_below", a], f"{y}_bent")
        return [*parts, bent, ("Add", [f"{y}_above", f"{y}_bent"], y)]

    _replace_prelu(model, steps)


def prelu_as_maximum(model: ModelProto) -> None:
    """PRelu(x, a) -> Max(x, a * x), in place, in layers without a slope above 1.

    Bit-equal for finite x: a * x is at most x where x is positive, at least x where it is negative.
    """

    def steps(x: str, a: str, y: str, slope: NDArray[Any]) -> _Steps:
        if (slope > 1).any():
            return [("PRelu", [x, a], y)]
        return [("Mul", [x, a], f"{y}_line"), ("Max", [x, f"{y}_line"], y)]

    _replace_prelu(model, steps)


def _replace_prelu(
    model: ModelProto, steps: Callable[[str, str, str, NDArray[Any]], _Steps]
) -> None:
    slopes = {t.name: t for t in model.graph.initializer}

    def rewritten(node: NodeProto) -> list[NodeProto]:
        if node.op_type != "PRelu" or node.input[1] not in slopes:
            return [node]
        (x, a), slope = node.input, numpy_helper.to_array(slopes[node.input[1]])
        return [
            helper.make_node(operator, inputs, [output], name=f"{node.name}/{operator}")
            for operator, inputs, output in steps(x, a, node.output[0], slope)
        ]

    replace_nodes(model, rewritten)


def round_as_floor(model: ModelProto) -> None:
    """Round(x) -> Floor(x + 0.5), in place.

    Equal except for x halfway between an even integer and the next one: Round returns the even one,
    Floor(x + 0.5) the greater one.
    """

    def rewritten(node: NodeProto) -> list[NodeProto]:
        if node.op_type != "Round":
            return [node]
        (x,), (y,) = node.input, node.output
        half = f"{y}_half"
        add_constant(model, half, np.array(0.5, np.float32))
        return [
            helper.make_node("Add", [x, half], [f"{y}_raised"], name=f"{node.name}/Add"),
            helper.make_node("Floor", [f"{y}_raised"], [y], name=f"{node.name}/Floor"),
        ]

    replace_nodes(model, rewritten)


REWRITES: dict[str, Callable[[ModelProto], None]] = {
    "side": separate_side_channels,
    "channels": align_channels,
    "deconvolution": deconvolution_as_convolution,
    "grid": grid_in_two_steps,
    "prelu": prelu_as_maximum_and_minimum,
    "prelu_max": prelu_as_maximum,
    "round": round_as_floor,
}
"""Name -> rewrite, in the order of application: each keeps the patterns that later ones match."""
