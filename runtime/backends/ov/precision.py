"""Keeps the float32 chain of a graph float32 where OpenVINO computes in bfloat16 or float16.

Casts of an ONNX file do not survive there: OpenVINO makes one type of all floats first, and then
gives its lower precision to every node but those behind the last convolution. Coordinates of the
inner levels would be bfloat16. Simulated in PyTorch, demo weights against float32, made frames with
45 and 128 pixels of motion: 53.9 dB at 448x256, 46.6 at 1280x720 and 42.0 at 1920x1088; with the
chain in float32 61.5, 64.3 and 63.5; the last layers of the decoders in float32 too: 0.2 more at
most, hence they are not. A node
keeps its type if it carries a mark, which OpenVINO's own passes set (RoPE of language models does
the same). Two things about it are not obvious:

- Python cannot set it on a node, but a file in OpenVINO's own format can carry it; "precise" is
  what it is called there in all versions.
- It goes when a pass puts another node in the place of its own. So what is known to be replaced is
  replaced here first: Interpolate by its older version, which the processor's plugin wants, two
  sums with constants in a row by one, means of one axis after the other by one, a difference by a
  sum, a division by a product. A test looks for the marks in what the plugin made of the graph.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from runtime.errors import BackendError

_CONVOLUTIONS = frozenset({"Convolution", "ConvolutionBackpropData", "GroupConvolution"})
_NEVER = frozenset({*_CONVOLUTIONS, "Constant", "Parameter", "Result"})

FIRST_WITH_FLOAT32 = "2026.4"
"""The first OpenVINO that keeps all the marks; `compiled_with_float32` refuses those before it."""


def keeps_float32(version: str) -> bool:
    """Whether an OpenVINO, for example "2026.4.1", is known to keep all the marks."""
    return _numbers(version) >= _numbers(FIRST_WITH_FLOAT32)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".")[:2])


def compiled_with_float32(openvino: Any, core: Any, model: Any, settings: dict[str, str]) -> Any:
    """Compiles for bfloat16 or float16 and keeps the float32 chain float32.

    Args:
        openvino: The module.
        core: An openvino.Core.
        model: As read from an ONNX file; changed.
        settings: OpenVINO's properties, with INFERENCE_PRECISION_HINT.

    Returns:
        An openvino.CompiledModel.

    Raises:
        BackendError: If this OpenVINO cannot keep the chain float32.
    """
    version, asked = openvino.get_version(), settings["INFERENCE_PRECISION_HINT"]
    remedy = f"install openvino {FIRST_WITH_FLOAT32} or newer, or leave precision out"
    try:
        marked = with_float32_marks(openvino, core, model)
        compiled = core.compile_model(marked, "CPU", settings)
    except RuntimeError as error:
        raise BackendError(
            f"OpenVINO {version} cannot prepare this model for {asked} ({error}): {remedy}"
        ) from error
    if rounded := rounded_layers(marked, compiled):
        raise BackendError(
            f"OpenVINO {version} computes {len(rounded)} of the layers of the coordinates in "
            f"{asked}, and they must stay float32: {remedy}"
        )
    return compiled


def with_float32_marks(openvino: Any, core: Any, model: Any) -> Any:
    """A copy of an openvino.Model whose float32 chain keeps its type.

    That chain is what makes coordinates and the result: everything between them and the
    convolutions before, and what comes before the first convolution.

    Args:
        openvino: The module.
        core: An openvino.Core.
        model: As read from an ONNX file; changed.

    Raises:
        BackendError: If a mark was lost on the way.
    """
    for replace in (_older_interpolation, _sums_at_once, _means_at_once, _sums_and_products):
        replace(openvino, model)
    chain = float32_chain(model)
    for number, node in enumerate(model.get_ordered_ops()):
        # Names of nodes that the frontend made itself come more than once.
        node.set_friendly_name(f"{number}:{node.get_friendly_name()}")
    names = {node.get_friendly_name() for node in chain}
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder) / "model.xml", Path(folder) / "model.bin"
        openvino.serialize(model, str(xml), str(weights))
        tree = ElementTree.parse(xml)
        for layer in tree.iterfind("layers/layer"):
            if layer.get("name") in names:
                _mark(layer)
        # Read whole, so that nothing of it lies in the folder any more.
        content = np.fromfile(weights, np.uint8)
        marked = core.read_model(ElementTree.tostring(tree.getroot()), openvino.Tensor(content))
    kept = {node.get_friendly_name() for node in marked.get_ops() if is_marked(node)}
    if kept != names:
        raise BackendError(
            f"OpenVINO {openvino.get_version()} kept {len(kept)} of {len(names)} marks of float32: "
            "leave precision out"
        )
    return marked


def float32_chain(model: Any) -> list[Any]:
    """The nodes that must stay float32."""
    ordered = model.get_ordered_ops()
    behind, wanted = _behind_convolutions(ordered), _coordinates_and_result(ordered)
    return [
        node
        for node in ordered
        if node.get_type_name() not in _NEVER
        and (node.get_name() in wanted or node.get_name() not in behind)
    ]


def rounded_layers(model: Any, compiled: Any) -> list[str]:
    """The layers whose precision matters and that the compiled model computes in less than float32.

    The marks alone prove nothing: OpenVINO before 2026.4 loses those of the products and sums that
    make the coordinates, which cost 5 to 12 dB at 1280x720. The compiled model tells in which
    precision each of its layers runs, and which nodes of the original it is made of.

    Args:
        model: An openvino.Model from `with_float32_marks`.
        compiled: The openvino.CompiledModel that was made of it.

    Returns:
        Names of nodes in `model` that make the coordinates or the result. A bias that is added to
        a convolution is not among them: it is rounded with the result of the convolution.
    """
    ordered = model.get_ordered_ops()
    behind, wanted = _behind_convolutions(ordered), _coordinates_and_result(ordered)
    matters = {
        node.get_friendly_name()
        for node in ordered
        if node.get_name() in wanted and not _is_bias(node, behind)
    }
    rounded: list[str] = []
    for layer in compiled.get_runtime_model().get_ordered_ops():
        if _runtime_info(layer, "runtimePrecision") in ("bf16", "f16"):
            nodes = _runtime_info(layer, "originalLayersNames").split(",")
            rounded += [name for name in nodes if name in matters]
    return rounded


def _behind_convolutions(ordered: list[Any]) -> set[str]:
    """Unique names of the nodes that depend on a convolution, convolutions included."""
    behind: set[str] = set()
    for node in ordered:
        if node.get_type_name() in _CONVOLUTIONS or any(
            parent.get_name() in behind for parent in _parents(node)
        ):
            behind.add(node.get_name())
    return behind


def _coordinates_and_result(ordered: list[Any]) -> set[str]:
    """Unique names of the nodes between the convolutions and a sampling grid or the result."""
    wanted: set[str] = set()
    for node in reversed(ordered):
        kind = node.get_type_name()
        if kind == "Result" or node.get_name() in wanted:
            asked = list(_parents(node))
        elif kind == "GridSample":
            wanted.add(node.get_name())
            # Where to sample; what is sampled is rounded as a convolution's result may be.
            asked = [node.input_value(1).get_node()]
        else:
            asked = []
        wanted |= {one.get_name() for one in asked if one.get_type_name() not in _CONVOLUTIONS}
    return wanted


def _is_bias(node: Any, behind: set[str]) -> bool:
    """Whether a node adds a constant to the result of a convolution."""
    if node.get_type_name() != "Add":
        return False
    computed = [parent for parent in _parents(node) if parent.get_name() in behind]
    return len(computed) == 1 and computed[0].get_type_name() in _CONVOLUTIONS


def _runtime_info(layer: Any, key: str) -> str:
    """What the runtime model says of a layer; empty where it does not say it."""
    info = layer.get_rt_info()
    return str(info[key].value) if key in info else ""


def is_marked(node: Any) -> bool:
    """Whether a node carries the mark, under the name of this version."""
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


def _older_interpolation(openvino: Any, model: Any) -> None:
    """Interpolate of opset 11 -> opset 4, which says the same of two axes."""
    for node in model.get_ordered_ops():
        info = node.get_type_info()
        if (info.name, info.version_id) != ("Interpolate", "opset11"):
            continue
        said = node.get_attributes()
        image, target, *axes = node.input_values()
        by_size = said["shape_calculation_mode"] == "sizes"
        count = len(target.get_node().data) if hasattr(target.get_node(), "data") else 2
        constant = openvino.opset10.constant
        sizes = target if by_size else constant(np.ones(count, np.int64)).output(0)
        scales = constant(np.ones(count, np.float32)).output(0) if by_size else target
        made = openvino.opset10.interpolate(
            image,
            sizes,
            scales,
            said["mode"],
            said["shape_calculation_mode"],
            said["pads_begin"],
            said["pads_end"],
            said["coordinate_transformation_mode"],
            said["nearest_mode"],
            said["antialias"],
            said["cube_coeff"],
            *axes,
        )
        made.set_friendly_name(node.get_friendly_name())
        openvino.utils.replace_node(node, made)


def _sums_at_once(openvino: Any, model: Any) -> None:
    """Two sums with constants in a row -> one, as OpenVINO does too: x + a + b -> x + (a + b)."""
    for node in model.get_ordered_ops():
        inner, outer = _constant_of_sum(node), None
        if inner is None:
            continue
        rest, value = inner
        below = rest.get_node()
        if len(rest.get_target_inputs()) == 1:
            outer = _constant_of_sum(below)
        if outer is None:
            continue
        total = openvino.opset1.constant(outer[1] + value)
        made = openvino.opset1.add(outer[0], total)
        made.set_friendly_name(node.get_friendly_name())
        openvino.utils.replace_node(node, made)


def _means_at_once(openvino: Any, model: Any) -> None:
    """The mean of the mean over other axes -> one mean over all of them."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "ReduceMean":
            continue
        source, axes = (value.get_node() for value in node.input_values())
        if source.get_type_name() != "ReduceMean" or len(source.output(0).get_target_inputs()) > 1:
            continue
        image, more = source.input_values()
        both = np.concatenate([np.ravel(axes.data), np.ravel(more.get_node().data)])
        made = openvino.opset1.reduce_mean(image, np.sort(both), True)
        made.set_friendly_name(node.get_friendly_name())
        openvino.utils.replace_node(node, made)


def _sums_and_products(openvino: Any, model: Any) -> None:
    """Of float32: x - y -> x + -1 * y, and x / constant -> x * (1 / constant)."""
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("Subtract", "Divide") or node.get_element_type() != openvino.Type.f32:
            continue
        x, y = node.input_values()
        if kind == "Subtract":
            made = openvino.opset1.add(x, openvino.opset1.multiply(y, np.float32(-1)))
        elif y.get_node().get_type_name() == "Constant":
            made = openvino.opset1.multiply(x, np.reciprocal(y.get_node().data))
        else:
            continue
        made.set_friendly_name(node.get_friendly_name())
        openvino.utils.replace_node(node, made)


def _constant_of_sum(node: Any) -> tuple[Any, Any] | None:
    """(the other summand, the constant) of a sum with one constant."""
    if node.get_type_name() != "Add":
        return None
    first, second = node.input_values()
    for value, other in ((second, first), (first, second)):
        if value.get_node().get_type_name() == "Constant":
            return other, value.get_node().data
    return None
