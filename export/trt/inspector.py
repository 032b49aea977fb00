"""Reads the output of TensorRT's engine inspector: types of tensors and of convolutions.

Its JSON differs between versions. In 8.6 a layer has "Name" (of the ONNX nodes that were fused into
it), "LayerType", "Inputs" and "Outputs", each with "Name" and "Format/Datatype", for example
"Channel major FP16 format where channel % 8 == 0". From 10 on the type is "Half" or "Float", and
"Metadata" lists the nodes as "[ONNX Layer: NAME]".
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnx import ModelProto, TensorProto

Layers = list[dict[str, Any]]
"""The layers of an engine that was built with detailed profiling verbosity."""

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_MOVES_DATA = ("reformat", "noop", "constant", "shuffle", "copy")
"""Beginnings of layer types, in lower case, that compute nothing but may name a node."""


class InspectorError(Exception):
    """The inspector's output is not the expected JSON."""


@dataclass(frozen=True)
class ConvolutionCounts:
    """Number of float16 convolutions of a graph, by the type in which an engine computes them.

    Attributes:
        fp16: Computed in float16.
        other: Computed in another type, usually float32, which is several times slower.
        unseen: Not shown by the inspector, for example inside a fused block.
    """

    fp16: int
    other: int
    unseen: int

    @property
    def too_slow(self) -> bool:
        """Whether more than one in ten of those that the inspector shows are not in float16."""
        return 10 * self.other > self.fp16 + self.other

    def record(self) -> dict[str, int]:
        """The counts as a dictionary, for the manifest."""
        return asdict(self)


def parse_layers(inspected: str) -> Layers:
    """Parses the JSON of the engine inspector.

    Accepts control characters in strings, which JSON forbids, because TensorRT 8.6 writes them
    (TensorRT issue 2779).

    Raises:
        InspectorError: If the text is not JSON, or has no list of layers.
    """
    try:
        layers = json.loads(inspected, strict=False)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise InspectorError(
            f"TensorRT's engine inspector gave no readable JSON ({error}): the types of the layers "
            "were not checked, use another release of TensorRT to check them"
        ) from error
    # A layer is only a name if the engine was built without detailed verbosity.
    return [layer for layer in layers if isinstance(layer, dict)]


def count_layer_types(layers: Layers) -> dict[str, int]:
    """The number of layers of each type, the most frequent type first."""
    counts = Counter(str(layer.get("LayerType", "unknown")) for layer in layers)
    return dict(counts.most_common())


def missed_types(layers: Layers, types: Mapping[str, int]) -> tuple[int, list[str]]:
    """Finds float32 tensors of the graph that are float16 in the engine.

    Args:
        layers: The layers of the engine.
        types: Element type (of TensorProto) of every tensor of the graph by name.

    Returns:
        The number of float32 tensors of the graph that the inspector shows, and the names of those
        that are float16. It does not show tensors inside fused layers.
    """
    seen: set[str] = set()
    missed: list[str] = []
    for layer in layers:
        for tensor in _tensors(layer, "Inputs", "Outputs"):
            name = str(tensor.get("Name"))
            if types.get(name) != TensorProto.FLOAT or name in seen:
                continue
            seen.add(name)
            if _is_float16(tensor):
                missed.append(name)
    return len(seen), missed


def count_convolutions(layers: Layers, model: ModelProto) -> ConvolutionCounts:
    """Counts the float16 convolutions of a graph by the type in which they are computed.

    A convolution counts as float16 if the first input of a layer that names it is float16; its
    output may be float32, if a cast was fused into it.

    Args:
        layers: The layers of the engine.
        model: The graph that the engine was built from; its nodes have names.
    """
    halves = {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16}
    counts: Counter[str] = Counter()
    computing = [layer for layer in layers if not _moves_data(layer)]
    for node in model.graph.node:
        if node.op_type in _CONVOLUTIONS and node.input[1] in halves:
            naming = [layer for layer in computing if _names(layer, node.name)]
            first = [next(iter(_tensors(layer, "Inputs")), None) for layer in naming]
            read = [tensor for tensor in first if tensor is not None]
            if not read:
                counts["unseen"] += 1
            else:
                counts["fp16" if any(map(_is_float16, read)) else "other"] += 1
    return ConvolutionCounts(counts["fp16"], counts["other"], counts["unseen"])


def _tensors(layer: Mapping[str, Any], *sides: str) -> Iterable[dict[str, Any]]:
    for side in sides:
        yield from (tensor for tensor in layer.get(side, ()) if isinstance(tensor, dict))


def _is_float16(tensor: Mapping[str, Any]) -> bool:
    kind = str(tensor.get("Format/Datatype", tensor.get("Datatype", "")))
    return "FP16" in kind or "Half" in kind


def _moves_data(layer: Mapping[str, Any]) -> bool:
    return str(layer.get("LayerType", "")).lower().startswith(_MOVES_DATA)


def _names(layer: Mapping[str, Any], node: str) -> bool:
    """Whether a layer names this node; a longer name that contains it does not count."""
    text = f"{layer.get('Name', '')} {layer.get('Metadata', '')}"
    return re.search(rf"(?<![\w./]){re.escape(node)}(?![\w./])", text) is not None
