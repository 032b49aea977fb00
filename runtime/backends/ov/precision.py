"""Keeps coordinates and results in float32 where OpenVINO computes in bfloat16 or float16.

Casts in an ONNX file have no effect: OpenVINO first converts all floats to one type, and then gives
the lower precision to every node except those after the last convolution. The coordinates of the
inner levels would be bfloat16. Simulated in PyTorch with the demo weights, PSNR to float32 on
synthetic frames with 45 and 128 pixels of motion is 53.9 dB at 448x256, 46.6 at 1280x720 and 42.0
at 1920x1088. With coordinates and results in float32 it is 61.5, 64.3 and 63.5 dB. The last layers
of the decoders stay in the lower precision: float32 would gain 0.2 dB at most.

A node keeps its type if it has a mark, which OpenVINO's own passes set (for example for RoPE of
language models). Two properties of the mark are not obvious:

- Python cannot set it on a node, but a file in OpenVINO's own format can contain it, in all
  versions under the name "precise".
- It is lost when a pass replaces its node. Therefore this module first replaces the nodes that
  OpenVINO would replace: Interpolate by its older version, which the CPU plugin needs, two
  consecutive sums with constants by one, consecutive means by one, a difference by a sum, a
  division by a product. A test checks the marks in the compiled graph of the plugin.

Some marks are lost all the same: before OpenVINO 2026.4 those of the sums and products that compute
the coordinates, and in int8 models those of all sums and products, which OpenVINO replaces while it
looks for integer convolutions. In such a model the coordinates become outputs, because OpenVINO
computes everything between the last convolutions and an output in float32. This includes the
transposed convolutions, which makes it slower; so outputs are added only where marks are lost.

In the last two decoders a convolution with the identity after the transposed one ends that float32
part. Measured with int8 models (448x256, 640x480, 1280x720; 2 threads, AVX-512 BF16): 6 to 8 %
faster, 0.1 dB further from float32 on generated frames, and at most 0.005 dB lost to true frames.
In all four decoders it would be 8 to 9 % faster, but the flows of the first two are scaled up most:
0.7 dB further, and 0.017 dB lost.

Subgraphs of constants, which hold quantised weights, are neither marked nor changed, since OpenVINO
would not recognise the integer convolutions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from runtime.errors import BackendError
from runtime.model_info import ModelInfo

_CONVOLUTIONS = frozenset({"Convolution", "ConvolutionBackpropData", "GroupConvolution"})
_NEVER = frozenset({*_CONVOLUTIONS, "Constant", "Parameter", "Result"})

PREPARATION = 1
"""Version of the preparation in this module. Raise it when results change: cached models and proofs
of another version are not used."""

_LAST_DECODERS = 2
"""Number of decoders, counted from the end, whose transposed convolutions are not float32."""

IDENTITY = "/Identity"
"""Suffix of the name of an added convolution."""

COORDINATES_OUTPUT = "ifrnet.coordinates."
"""Prefix of the names of the added outputs, which are never read."""


def keeps_coordinates(info: ModelInfo) -> bool:
    """Whether a model can be compiled for bfloat16 or float16 with coordinates in float32.

    Not if it is tuned for ONNX Runtime: OpenVINO then replaces nodes of the coordinates, which
    removes their marks.
    """
    return info.tuned_for == "any"


def compiled_with_float32(openvino: Any, core: Any, model: Any, settings: dict[str, str]) -> Any:
    """Compiles a model for bfloat16 or float16 with coordinates and results in float32.

    Args:
        openvino: The module.
        core: An openvino.Core.
        model: An openvino.Model from an ONNX file; modified.
        settings: Properties of OpenVINO, with INFERENCE_PRECISION_HINT.

    Returns:
        An openvino.CompiledModel.

    Raises:
        BackendError: If this OpenVINO cannot keep coordinates and results in float32.
    """
    version, hint = openvino.get_version(), settings["INFERENCE_PRECISION_HINT"]
    try:
        marked = with_float32_marks(openvino, core, model)
        compiled = core.compile_model(marked, "CPU", settings)
        rounded = rounded_layers(marked, compiled)
        if rounded:
            add_coordinates_to_outputs(marked)
            add_convolutions(openvino, marked)
            compiled = core.compile_model(marked, "CPU", settings)
            rounded = rounded_layers(marked, compiled)
    except RuntimeError as error:
        raise BackendError(
            f"OpenVINO {version} cannot prepare this model for {hint} ({error}): leave precision "
            "out"
        ) from error
    if rounded:
        raise BackendError(
            f"OpenVINO {version} computes {len(rounded)} of the layers of the coordinates in "
            f"{hint}, and they must stay float32: leave precision out"
        )
    return compiled


def with_float32_marks(openvino: Any, core: Any, model: Any) -> Any:
    """Creates a copy of an openvino.Model with marks on the nodes of `float32_chain`.

    Args:
        openvino: The module.
        core: An openvino.Core.
        model: An openvino.Model from an ONNX file; modified.

    Raises:
        BackendError: If a mark is lost when the copy is read.
    """
    for replace in (
        _replace_interpolations,
        _merge_sums,
        _merge_means,
        _replace_differences_and_divisions,
    ):
        replace(openvino, model)
    chain = float32_chain(model)
    for number, node in enumerate(model.get_ordered_ops()):
        # The frontend gives one name to several nodes that it adds.
        node.set_friendly_name(f"{number}:{node.get_friendly_name()}")
    names = {node.get_friendly_name() for node in chain}
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, str(xml), str(weights))
        tree = ElementTree.parse(xml)
        for layer in tree.iterfind("layers/layer"):
            if layer.get("name") in names:
                _mark(layer)
        # Read, not memory-mapped, since the folder is removed.
        content = np.fromfile(weights, np.uint8)
        marked = core.read_model(ElementTree.tostring(tree.getroot()), openvino.Tensor(content))
    remaining = {node.get_friendly_name() for node in marked.get_ops() if is_marked(node)}
    if remaining != names:
        raise BackendError(
            f"OpenVINO {openvino.get_version()} kept {len(remaining)} of {len(names)} float32 "
            "marks: leave precision out"
        )
    return marked


def float32_chain(model: Any) -> list[Any]:
    """The nodes of an openvino.Model that must stay float32.

    These are the nodes between the convolutions and the coordinates or the result, and those
    between the inputs and the first convolution. Nodes that depend on constants alone are not among
    them, since OpenVINO computes them in float32 in any case.
    """
    ordered = model.get_ordered_ops()
    dependent, exact = _after_convolutions(ordered), _coordinates_and_result(ordered)
    computed = _after(ordered, frozenset({"Parameter"}))
    return [
        node
        for node in ordered
        if node.get_type_name() not in _NEVER
        and node.get_name() in computed
        and (node.get_name() in exact or node.get_name() not in dependent)
    ]


def rounded_layers(model: Any, compiled: Any) -> list[str]:
    """The nodes of coordinates and result that a compiled model computes in less than float32.

    The marks alone are no proof: if those of the products and sums that compute the coordinates are
    lost, the result loses 5 to 12 dB at 1280x720. The compiled model declares for each of its
    layers the precision and the original nodes.

    Args:
        model: An openvino.Model from `with_float32_marks`.
        compiled: The openvino.CompiledModel of `model`.

    Returns:
        Names of these nodes in `model`. A bias that is added to a convolution is not among them,
        since it is rounded with the result of the convolution.
    """
    ordered = model.get_ordered_ops()
    dependent, exact = _after_convolutions(ordered), _coordinates_and_result(ordered)
    must_be_float32 = {
        node.get_friendly_name()
        for node in ordered
        if node.get_name() in exact and not _is_bias(node, dependent)
    }
    rounded: list[str] = []
    for layer in compiled.get_runtime_model().get_ordered_ops():
        if _runtime_info(layer, "runtimePrecision") in ("bf16", "f16"):
            nodes = _runtime_info(layer, "originalLayersNames").split(",")
            rounded += [name for name in nodes if name in must_be_float32]
    return rounded


def _after_convolutions(ordered: list[Any]) -> set[str]:
    """Unique names of the nodes that depend on a convolution, convolutions included."""
    return _after(ordered, _CONVOLUTIONS)


def _after(ordered: list[Any], kinds: frozenset[str]) -> set[str]:
    """Unique names of the nodes of these types, and of all that depend on one of them."""
    dependent: set[str] = set()
    for node in ordered:
        if node.get_type_name() in kinds or any(
            parent.get_name() in dependent for parent in _parents(node)
        ):
            dependent.add(node.get_name())
    return dependent


def _coordinates_and_result(ordered: list[Any]) -> set[str]:
    """Unique names of the nodes between the convolutions and a sampling grid or the result."""
    exact: set[str] = set()
    for node in reversed(ordered):
        kind = node.get_type_name()
        if kind == "Result" or node.get_name() in exact:
            inputs = list(_parents(node))
        elif kind == "GridSample":
            exact.add(node.get_name())
            # Only the coordinates: the sampled image may be rounded, like a convolution's result.
            inputs = [node.input_value(1).get_node()]
        else:
            inputs = []
        exact |= {one.get_name() for one in inputs if one.get_type_name() not in _CONVOLUTIONS}
    return exact


def add_coordinates_to_outputs(model: Any) -> None:
    """Adds the sampling coordinates to the outputs of an openvino.Model, in place."""
    grids = [
        node.input_value(1)
        for node in model.get_ordered_ops()
        if node.get_type_name() == "GridSample"
    ]
    for number, output in enumerate(model.add_outputs(grids)):
        output.get_tensor().add_names({f"{COORDINATES_OUTPUT}{number}"})


def add_convolutions(openvino: Any, model: Any) -> None:
    """Adds a convolution with the identity in the last two decoders, in place.

    It follows the transposed convolution and its bias. It changes no value except that it rounds
    their result to the type in which it computes.
    """
    transposed = [
        node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "ConvolutionBackpropData"
    ]
    for node in transposed[-_LAST_DECODERS:]:
        result = node.output(0)
        users = list(result.get_target_inputs())
        if len(users) == 1 and _constant_of_sum(users[0].get_node()) is not None:
            result = users[0].get_node().output(0)  # With the bias.
            users = list(result.get_target_inputs())
        channels = result.get_partial_shape()[1].get_length()
        identity = np.eye(channels, dtype=np.float32)[:, :, None, None]
        added = openvino.opset1.convolution(result, identity, [1, 1], [0, 0], [0, 0], [1, 1])
        added.set_friendly_name(f"{node.get_friendly_name()}{IDENTITY}")
        for one in users:
            one.replace_source_output(added.output(0))
    model.validate_nodes_and_infer_types()


def _is_bias(node: Any, dependent: set[str]) -> bool:
    """Whether a node adds a constant to the result of a convolution."""
    if node.get_type_name() != "Add":
        return False
    computed = [parent for parent in _parents(node) if parent.get_name() in dependent]
    return len(computed) == 1 and computed[0].get_type_name() in _CONVOLUTIONS


def _runtime_info(layer: Any, key: str) -> str:
    """A value of the runtime information of a layer; "" if it is missing."""
    info = layer.get_rt_info()
    return str(info[key].value) if key in info else ""


def is_marked(node: Any) -> bool:
    """Whether a node has the mark, under the name of any version of OpenVINO."""
    return any(
        key.startswith(("precise", "DisablePrecisionConversion")) for key in node.get_rt_info()
    )


def _parents(node: Any) -> Iterator[Any]:
    for value in node.input_values():
        yield value.get_node()


def _mark(layer: ElementTree.Element) -> None:
    info = layer.find("rt_info")
    if info is None:
        info = ElementTree.Element("rt_info")
        layer.insert(0 if layer.find("data") is None else 1, info)
    ElementTree.SubElement(info, "attribute", name="precise", version="0")


def _replace_interpolations(openvino: Any, model: Any) -> None:
    """Replaces Interpolate of opset 11 by that of opset 4, which is equal for two axes."""
    for node in float32_chain(model):
        info = node.get_type_info()
        if (info.name, info.version_id) != ("Interpolate", "opset11"):
            continue
        attributes = node.get_attributes()
        image, target, *axes = node.input_values()
        by_size = attributes["shape_calculation_mode"] == "sizes"
        count = len(target.get_node().data) if hasattr(target.get_node(), "data") else 2
        constant = openvino.opset10.constant
        sizes = target if by_size else constant(np.ones(count, np.int64)).output(0)
        scales = constant(np.ones(count, np.float32)).output(0) if by_size else target
        older = openvino.opset10.interpolate(
            image,
            sizes,
            scales,
            attributes["mode"],
            attributes["shape_calculation_mode"],
            attributes["pads_begin"],
            attributes["pads_end"],
            attributes["coordinate_transformation_mode"],
            attributes["nearest_mode"],
            attributes["antialias"],
            attributes["cube_coeff"],
            *axes,
        )
        _replace(openvino, node, older)


def _merge_sums(openvino: Any, model: Any) -> None:
    """Replaces x + a + b with constants a, b by x + (a + b), as OpenVINO would."""
    for node in float32_chain(model):
        inner, outer = _constant_of_sum(node), None
        if inner is None:
            continue
        rest, value = inner
        if len(rest.get_target_inputs()) == 1:
            outer = _constant_of_sum(rest.get_node())
        if outer is None:
            continue
        total = openvino.opset1.constant(outer[1] + value)
        _replace(openvino, node, openvino.opset1.add(outer[0], total))


def _merge_means(openvino: Any, model: Any) -> None:
    """Replaces the mean of a mean over other axes by one mean over all of them."""
    for node in float32_chain(model):
        if node.get_type_name() != "ReduceMean":
            continue
        source, axes = (value.get_node() for value in node.input_values())
        if source.get_type_name() != "ReduceMean" or len(source.output(0).get_target_inputs()) > 1:
            continue
        image, more = source.input_values()
        both = np.concatenate([np.ravel(axes.data), np.ravel(more.get_node().data)])
        _replace(openvino, node, openvino.opset1.reduce_mean(image, np.sort(both), True))


def _replace_differences_and_divisions(openvino: Any, model: Any) -> None:
    """In float32, replaces x - y by x + -1 * y and x / constant by x * (1 / constant)."""
    for node in float32_chain(model):
        kind = node.get_type_name()
        if kind not in ("Subtract", "Divide") or node.get_element_type() != openvino.Type.f32:
            continue
        x, y = node.input_values()
        if kind == "Subtract":
            new = openvino.opset1.add(x, openvino.opset1.multiply(y, np.float32(-1)))
        elif y.get_node().get_type_name() == "Constant":
            new = openvino.opset1.multiply(x, np.reciprocal(y.get_node().data))
        else:
            continue
        _replace(openvino, node, new)


def _replace(openvino: Any, node: Any, new: Any) -> None:
    """Replaces a node by a new one with the same name."""
    new.set_friendly_name(node.get_friendly_name())
    openvino.utils.replace_node(node, new)


def _constant_of_sum(node: Any) -> tuple[Any, Any] | None:
    """The other summand and the constant of a sum with a constant; None for other nodes."""
    if node.get_type_name() != "Add":
        return None
    first, second = node.input_values()
    for value, other in ((second, first), (first, second)):
        if value.get_node().get_type_name() == "Constant":
            return other, value.get_node().data
    return None
