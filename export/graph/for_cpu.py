"""Rewrites for the CPU kernels of ONNX Runtime: equal results from faster operators.

Measured on two cores of an x86-64 with AVX-512 (ONNX Runtime 1.32, base, 448x256, best of 36
pairs, interleaved): 173 ms as exported, 126 with `prelu_as_relu` and `sampling_in_bounds`, 122 with
`deconvolution_as_convolution` too. Tried and rejected: PRelu as Max(x, a * x), 6 ms slower, because
its operators leave the blocked layout of the convolutions; the transposed convolution as 3x3
convolution + DepthToSpace, 9/4 of the arithmetic, 5 ms slower than the original.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graph.view import add_constant, is_deconvolution, replace_nodes

_TO_THE_END = 2**31 - 1


def tuned_for_cpu(model: ModelProto) -> ModelProto:
    """A copy with all rewrites of this module applied."""
    tuned = ModelProto()
    tuned.CopyFrom(model)
    prelu_as_relu(tuned)
    sampling_in_bounds(tuned)
    deconvolution_as_convolution(tuned)
    return tuned


def prelu_as_relu(model: ModelProto) -> None:
    """PRelu(x, a) -> (1 - a) * Relu(x) + a * x, in place.

    Equal except for the rounding of the sum. ONNX Runtime's PRelu runs on one core and in the plain
    layout; these run on all cores and in the blocked layout of the neighbouring convolutions.
    """
    slopes = {t.name: t for t in model.graph.initializer}

    def rewritten(node: NodeProto) -> Iterable[NodeProto]:
        if node.op_type != "PRelu" or node.input[1] not in slopes:
            return [node]
        x, slope = node.input
        (y,) = node.output
        rest = f"{y}_rest"
        add_constant(model, rest, 1 - numpy_helper.to_array(slopes[slope]))
        return [
            helper.make_node("Mul", [x, slope], [f"{y}_line"], name=f"{node.name}/Line"),
            helper.make_node("Relu", [x], [f"{y}_relu"], name=f"{node.name}/Relu"),
            helper.make_node("Mul", [f"{y}_relu", rest], [f"{y}_bend"], name=f"{node.name}/Bend"),
            helper.make_node("Add", [f"{y}_bend", f"{y}_line"], [y], name=f"{node.name}/Add"),
        ]

    replace_nodes(model, rewritten)


def deconvolution_as_convolution(model: ModelProto) -> None:
    """ConvTranspose(4, stride 2, padding 1) -> 2x2 convolution, slices, DepthToSpace, in place.

    Rows 2i and 2i + 1 of the output depend on two rows of the input each: i - 1 and i, or i and
    i + 1. One 2x2 convolution over the padded input computes the four kinds of output pixel as four
    groups of channels, (h + 1) x (w + 1) each; the first or the last row and column of a
    group are in no output and are cut off. The number of operations stays the same.
    """
    weights = {t.name: t for t in model.graph.initializer}
    if any(is_deconvolution(node, weights) for node in model.graph.node):
        add_constant(model, "deconvolution_axes", np.array([1, 2, 3]))

    def rewritten(node: NodeProto) -> Iterable[NodeProto]:
        if not is_deconvolution(node, weights):
            return [node]
        kernel, bias = (numpy_helper.to_array(weights[name]) for name in node.input[1:])
        inputs, outputs = kernel.shape[:2]
        (y,) = node.output
        groups = np.empty((2, 2, outputs, inputs, 2, 2), kernel.dtype)
        for row, column in np.ndindex(2, 2):
            # Tap p of output row 2i + row reads input row i + row - 1 + p through kernel row
            # 3 - row - 2p; columns likewise.
            taps = kernel[:, :, [3 - row, 1 - row]][:, :, :, [3 - column, 1 - column]]
            groups[row, column] = taps.swapaxes(0, 1)
        add_constant(model, f"{y}_kernel", groups.reshape(4 * outputs, inputs, 2, 2))
        add_constant(model, f"{y}_bias", np.tile(bias, 4))
        nodes = [
            helper.make_node(
                "Conv",
                [node.input[0], f"{y}_kernel", f"{y}_bias"],
                [f"{y}_groups"],
                name=f"{node.name}/Conv",
                pads=[1, 1, 1, 1],
            )
        ]
        parts = []
        for number, (row, column) in enumerate(np.ndindex(2, 2)):
            part = f"{y}_part{number}"
            start = np.array([number * outputs, row, column])
            end = [(number + 1) * outputs, *((-1, _TO_THE_END)[k] for k in (row, column))]
            add_constant(model, f"{part}_start", start)
            add_constant(model, f"{part}_end", np.array(end))
            cut = [f"{y}_groups", f"{part}_start", f"{part}_end", "deconvolution_axes"]
            nodes.append(helper.make_node("Slice", cut, [part], name=f"{node.name}/Slice{number}"))
            parts.append(part)
        whole = f"{y}_parts"
        return [
            *nodes,
            helper.make_node("Concat", parts, [whole], name=f"{node.name}/Concat", axis=1),
            helper.make_node(
                "DepthToSpace", [whole], [y], name=f"{node.name}/DepthToSpace", blocksize=2
            ),
        ]

    replace_nodes(model, rewritten)


def sampling_in_bounds(model: ModelProto) -> None:
    """GridSample with repeated borders -> the same on a grid that never leaves the image, in place.

    A grid clipped to [-1, 1] between the outermost pixel centres needs no border, so padding may
    be zeros; multiplied by (n - 1) / n, it refers to the outer edges instead (align_corners = 0).
    ONNX Runtime has a fast path for that combination, which finds the four neighbours and weights
    of a pixel once, not once per channel. Equal except for the rounding of coordinates.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    sizes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][2:]
        for value in (*inferred.graph.value_info, *inferred.graph.input)
    }
    constants = {"grid_low": -1.0, "grid_high": 1.0, "grid_one": 1.0}
    for name, value in constants.items():
        add_constant(model, name, np.array(value, np.float32))
    add_constant(model, "grid_width_height", np.array([3, 2], np.int64))

    def rewritten(node: NodeProto) -> Iterable[NodeProto]:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type != "GridSample" or (
            attributes.get("padding_mode"),
            attributes.get("align_corners"),
        ) != (b"border", 1):
            return [node]
        image, grid = node.input
        size = sizes.get(image, [])
        clipped = f"{grid}_clipped"
        clip = [grid, "grid_low", "grid_high"]
        nodes = [helper.make_node("Clip", clip, [clipped], name=f"{node.name}/Clip")]
        shrink = f"{grid}_shrink"
        if len(size) == 2 and all(size):
            height, width = size
            values = np.array([(width - 1) / width, (height - 1) / height], np.float32)
            add_constant(model, shrink, values)
        else:
            nodes += _shrink_from_shape(image, shrink, node.name)
        return [
            *nodes,
            helper.make_node("Mul", [clipped, shrink], [f"{grid}_inside"], name=f"{node.name}/Mul"),
            helper.make_node(
                "GridSample",
                [image, f"{grid}_inside"],
                list(node.output),
                name=node.name,
                mode="bilinear",
                padding_mode="zeros",
                align_corners=0,
            ),
        ]

    replace_nodes(model, rewritten)


def _shrink_from_shape(image: str, shrink: str, name_prefix: str) -> list[NodeProto]:
    """Nodes that compute ((W - 1) / W, (H - 1) / H) of an image whose size is free."""
    nodes = []

    def step(operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        name = f"{name_prefix}/{operator}"
        nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))

    step("Shape", [image], f"{shrink}_shape")
    step("Gather", [f"{shrink}_shape", "grid_width_height"], f"{shrink}_size")
    step("Cast", [f"{shrink}_size"], f"{shrink}_float", to=TensorProto.FLOAT)
    step("Sub", [f"{shrink}_float", "grid_one"], f"{shrink}_less")
    step("Div", [f"{shrink}_less", f"{shrink}_float"], shrink)
    return nodes
