"""What a wrong engine looks like: known faults, simulated in the plain graph and compared with.

Each has been seen in deployed interpolation: a parser that reads "linear" as nearest, converters
that put coordinates into float16, builders that take the corners of a grid for the edges of pixels,
programs that hand over BGR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from export.gate.compare import ComparedImages, compare
from export.gate.runners import onnx_runner, rounded_to_bytes
from runtime.model_info import ModelInfo

_CLEARLY_DB = 6.0
"""A fault is named where the image is that much nearer to it than to the right image."""


def _samplers(model: ModelProto) -> Iterator[NodeProto]:
    return (node for node in model.graph.node if node.op_type == "GridSample")


def _set_attribute(node: NodeProto, name: str, value: object) -> None:
    for attribute in list(node.attribute):
        if attribute.name == name:
            node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute(name, value))


def nearest_sampling(model: ModelProto) -> None:
    """Every GridSample takes the nearest pixel, in place."""
    for node in _samplers(model):
        _set_attribute(node, "mode", "nearest")


def shifted_grid(model: ModelProto) -> None:
    """Every GridSample counts between the edges of pixels, not their centres, in place."""
    for node in _samplers(model):
        _set_attribute(node, "align_corners", 0)


def float16_coordinates(model: ModelProto) -> None:
    """Every grid is rounded to float16, in place."""
    nodes = []
    for node in model.graph.node:
        if node.op_type == "GridSample":
            grid = node.input[1]
            rounded, back = f"{node.name}_grid_half", f"{node.name}_grid_back"
            nodes += [
                helper.make_node("Cast", [grid], [rounded], to=TensorProto.FLOAT16),
                helper.make_node("Cast", [rounded], [back], to=TensorProto.FLOAT),
            ]
            node.input[1] = back
        nodes.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


_IN_THE_GRAPH: dict[str, Callable[[ModelProto], None]] = {
    "nearest sampling": nearest_sampling,
    "coordinates in float16": float16_coordinates,
    "a grid shifted by half a pixel": shifted_grid,
}
_SWAPPED = "red and blue swapped"


def diagnosis(model: ModelProto, info: ModelInfo, images: ComparedImages) -> str:
    """Says which known fault a failed engine shows.

    Args:
        model: The plain graph that the engine was built from.
        info: Its description.
        images: Of the comparison that failed.

    Returns:
        "it looks like ..." with the figures that say so, or that it looks like none of them.
    """
    right, _ = compare(images.expected, images.actual)
    seen = {_SWAPPED: compare(images.expected[:, ::-1], images.actual)[0]}
    if any(_samplers(model)):
        for name, inject in _IN_THE_GRAPH.items():
            faulty = onnx.ModelProto()
            faulty.CopyFrom(model)
            inject(faulty)
            run = onnx_runner(faulty, info, optimised=False)
            if info.io == "frames":
                run = rounded_to_bytes(run)
            simulated = run(images.frame0, images.frame1, images.timestep)
            seen[name], _ = compare(simulated, images.actual)
    name, nearest = max(seen.items(), key=lambda item: item[1])
    if nearest - right < _CLEARLY_DB:
        return f"it looks like none of {', '.join(seen)}"
    shown = "exactly" if np.isinf(nearest) else f"to {nearest:.1f} dB"
    return f"it looks like {name}, which it matches {shown}"
