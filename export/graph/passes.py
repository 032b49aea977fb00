"""Passes over a whole ONNX graph. Each states why the result is equal; the gate measures it."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.errors import ExportError
from runtime.backends.onnx_format import has_external_data

OPSET = 17
"""The last opset that TensorRT 8.6 reads, and the last before GridSample's mode was renamed: newer
files have "linear", which TensorRT's parser before 11.2 reads as nearest (TensorRT issue 4646)."""

ALLOWED_OPERATORS = frozenset({
    "Add", "Cast", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "DequantizeLinear",
    "Div", "Expand", "Floor", "GatherElements", "GridSample", "Max", "Min", "Mul", "PRelu", "Pad",
    "QuantizeLinear", "Range", "ReduceMean", "Relu", "Reshape", "Resize", "Round", "Sigmoid",
    "Slice", "Split", "Sub", "Tile", "Transpose",
    # Operators on shapes, for free sizes.
    "Gather", "Mod", "Neg", "Reciprocal", "Shape", "Squeeze", "Unsqueeze",
})  # fmt: skip
"""Operators of the default domain that a graph may use; no ScatterND, plugin or function."""

_SMALLEST_HALVED = 1024
"""Minimum number of values of a constant that `halve_constants` stores as float16."""


def lower_opset(model: ModelProto) -> None:
    """Converts the exporter's opset 18 to 17, in place.

    onnx's own converter has no adapter for Split. Of the operators used here, only these differ in
    opset 17: ReduceMean has its axes as an attribute, Split has no `num_outputs`, Resize has
    neither `antialias` nor `axes` nor an aspect ratio policy, Pad has no `axes`. At their default
    values they can be omitted.

    Raises:
        ExportError: If a node cannot be expressed in opset 17.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": 18}:
        raise ExportError(
            f"the exporter wrote opsets {opsets}, expected 18 of ai.onnx only: install another "
            "release of torch"
        )
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
            _take_attributes(node, {"keepdims": 1})
            node.attribute.append(helper.make_attribute("axes", axes))
            del node.input[1:]
        elif node.op_type == "Resize":
            _take_attributes(node, {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"})
        elif (node.op_type == "Split" and len(node.input) < 2) or (
            node.op_type == "Pad" and len(node.input) > 3 and node.input[3]
        ):
            raise ExportError(
                f"{node.op_type} node {node.name} cannot be expressed in opset {OPSET}: install "
                "another release of torch"
            )
    model.opset_import[0].version = OPSET


def _take_attributes(node: NodeProto, defaults: dict[str, object]) -> None:
    """Removes attributes that opset 18 added, if they have the behaviour of opset 17."""
    for attribute in list(node.attribute):
        if attribute.name in defaults or attribute.name == "noop_with_empty_axes":
            value = helper.get_attribute_value(attribute)
            if value != defaults.get(attribute.name, 0):
                raise ExportError(
                    f"{node.op_type} node {node.name} has {attribute.name}={value}, which opset "
                    f"{OPSET} cannot express: install another release of torch"
                )
            node.attribute.remove(attribute)


def tidy(model: ModelProto) -> None:
    """Names nodes after their layers and removes the exporter's metadata, in place.

    The metadata of nodes contains stack traces with paths of the exporting machine.
    """
    counts: Counter[str] = Counter()
    for node in model.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}
        layer = _layer_name(scopes.get("pkg.torch.onnx.name_scopes", ""))
        name = f"{layer}/{node.op_type}" if layer else node.op_type
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name]}"
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    drop_unused_constants(model)


def write_out_reshapes(model: ModelProto) -> None:
    """Replaces a -1 in the shape of a Reshape by the size, if it is fixed, in place.

    Some releases of PyTorch write the size, others (2.11) a -1. With this pass, all of them export
    the same graph.
    """
    graph = model.graph
    sizes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    uses: defaultdict[str, set[tuple[int, ...]]] = defaultdict(set)
    for node in graph.node:
        for index, name in enumerate(node.input):
            is_shape = node.op_type == "Reshape" and index == 1
            uses[name].add(sizes.get(node.output[0], ()) if is_shape else ())
    for tensor in graph.initializer:
        (shape, *others) = uses[tensor.name]
        # A free size is 0 here.
        if shape and all(shape) and not others and -1 in numpy_helper.to_array(tensor):
            tensor.CopyFrom(numpy_helper.from_array(np.array(shape, np.int64), tensor.name))


def drop_unused_constants(model: ModelProto) -> None:
    """Removes initializers that no node uses, in place."""
    used = {name for node in model.graph.node for name in node.input}
    remaining = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(remaining)


def _layer_name(scopes: str) -> str:
    """The innermost module in the exporter's scopes, for example decoder1.convblock.0.0."""
    names = [name.strip(" '\"") for name in scopes.strip("[]").split(",")]
    modules = [name for name in names[:-1] if name.startswith("network.")]
    return modules[-1].removeprefix("network.") if modules else ""


def in_float32(model: ModelProto) -> ModelProto:
    """A copy that computes everything in float32 with the same weights.

    It is the reference of a float16 graph: the weights stay rounded, but nothing is rounded between
    the layers.
    """
    copied = ModelProto()
    copied.CopyFrom(model)
    for tensor in copied.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(tensor).astype("float32")
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in copied.graph.node:
        if node.op_type != "Cast":
            continue
        (to,) = (attribute for attribute in node.attribute if attribute.name == "to")
        if to.i == TensorProto.FLOAT16:
            to.i = TensorProto.FLOAT
    del copied.graph.value_info[:]
    return copied


def halve_constants(model: ModelProto) -> None:
    """Stores large float32 constants as float16 and a Cast where no value changes, in place.

    The file of weights that were published in float16 is half as large; backends compute the casts
    once, when they load it.
    """
    casts: list[NodeProto] = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < _SMALLEST_HALVED:
            continue
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if not np.array_equal(halved.astype(np.float32), values):
            continue
        name, stored = tensor.name, f"{tensor.name}_half"
        tensor.CopyFrom(numpy_helper.from_array(halved, stored))
        cast = helper.make_node("Cast", [stored], [name], name=f"{name}/Cast", to=TensorProto.FLOAT)
        casts.append(cast)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def with_size(model: ModelProto, height: int, width: int, *, axes: tuple[int, int]) -> ModelProto:
    """A copy whose free height and width are fixed; `axes` are their axes in the images."""
    copied = ModelProto()
    copied.CopyFrom(model)
    for value in (*copied.graph.input, *copied.graph.output):
        dims = value.type.tensor_type.shape.dim
        for axis, size in zip(axes, (height, width), strict=True):
            if len(dims) > axis and not dims[axis].HasField("dim_value"):
                dims[axis].dim_value = size  # Replaces the name, because dims are a oneof.
    # Shapes that were inferred for free sizes are outdated.
    del copied.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(copied)


def with_free_batch(model: ModelProto) -> ModelProto:
    """A copy of a graph of one pair and one time step in which the number of pairs N is free.

    Only the first axis of a Reshape's shape contains the number of pairs (2N images, N rows): it
    becomes -1. Tensors that are expanded or broadcast along that axis have length 1 there.

    Raises:
        ExportError: If a Reshape has a -1 in another axis already.
    """
    copied = ModelProto()
    copied.CopyFrom(model)
    shapes = {node.input[1]: node for node in copied.graph.node if node.op_type == "Reshape"}
    for tensor in copied.graph.initializer:
        if tensor.name not in shapes:
            continue
        shape = numpy_helper.to_array(tensor).copy()
        if -1 in shape[1:]:
            raise ExportError(
                f"Reshape {shapes[tensor.name].name} to {shape.tolist()} does not allow a free "
                "number of pairs: export without --max-batch"
            )
        shape[0] = -1
        tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    for value in (*copied.graph.input, *copied.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "pairs"
    # Shapes that were inferred for one pair are outdated.
    del copied.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(copied)


def check(model: ModelProto) -> None:
    """Checks that a model is plain ONNX of opset 17.

    Raises:
        ExportError: If a tensor is in another file, or the model fails onnx's full check, uses
            another domain or opset, an operator that is not in `ALLOWED_OPERATORS`, or a GridSample
            that is not bilinear.
    """
    if has_external_data(model.SerializeToString()):
        raise ExportError("the graph has tensors in other files: give a file of export.to_onnx")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"the graph is not valid ONNX ({error}): give a file of export.to_onnx"
        ) from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET} or model.functions:
        raise ExportError(
            f"the graph uses opsets {opsets}, expected only {OPSET} of ai.onnx without functions: "
            "give a file of export.to_onnx"
        )
    for node in model.graph.node:
        if node.op_type not in ALLOWED_OPERATORS or node.domain:
            raise ExportError(
                f"the graph uses {node.domain}{node.op_type} ({node.name}): give a file of "
                "export.to_onnx"
            )
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "GridSample" and attributes.get("mode", b"bilinear") != b"bilinear":
            raise ExportError(
                f"GridSample {node.name} has mode {attributes['mode']!r}, not bilinear: give a "
                "file of export.to_onnx"
            )
