"""Recognises known faults of an engine by simulating them in the graph that it was built from.

All of them occur in practice: parsers that read "linear" as nearest, converters that use float16
for coordinates, builders that align a grid to the edges of pixels, programs that pass BGR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from export.gate.compare import ComparedImages, compare
from export.gate.runners import onnx_runner, rounded_to_bytes
from runtime.model_info import ModelInfo

_CLEARLY_DB = 6.0
"""A fault is named if the image is this much closer to its simulation than to the reference."""


def _samplers(model: ModelProto) -> Iterator[NodeProto]:
    return (node for node in model.graph.node if node.op_type == "GridSample")


def _set_attribute(node: NodeProto, name: str, value: object) -> None:
    for attribute in list(node.attribute):
        if attribute.name == name:
            node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute(name, value))


def nearest_sampling(model: ModelProto) -> None:
    """Sets every GridSample to nearest-neighbour sampling, in place."""
    for node in _samplers(model):
        _set_attribute(node, "mode", "nearest")


def shifted_grid(model: ModelProto) -> None:
    """Aligns the grid of every GridSample to the edges of pixels, not their centres, in place."""
    for node in _samplers(model):
        _set_attribute(node, "align_corners", 0)


def float16_coordinates(model: ModelProto) -> None:
    """Rounds every grid to float16, in place."""
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


_GRAPH_FAULTS: dict[str, Callable[[ModelProto], None]] = {
    "nearest sampling": nearest_sampling,
    "coordinates in float16": float16_coordinates,
    "a grid shifted by half a pixel": shifted_grid,
}
_SWAPPED_CHANNELS = "red and blue swapped"


def diagnosis(model: ModelProto, info: ModelInfo, images: ComparedImages) -> str:
    """Names the known fault that the images of a failed engine show.

    Args:
        model: The graph that the engine was built from.
        info: Its description.
        images: The images of the comparison that failed.

    Returns:
        A sentence without a full stop: "it looks like ..." with the PSNR to the simulated fault, or
        "it looks like none of ...".
    """
    expected_db, _ = compare(images.expected, images.actual)
    fault_db = {_SWAPPED_CHANNELS: compare(images.expected[:, ::-1], images.actual)[0]}
    if any(_samplers(model)):
        for name, inject in _GRAPH_FAULTS.items():
            faulty = onnx.ModelProto()
            faulty.CopyFrom(model)
            inject(faulty)
            run = onnx_runner(faulty, info, optimised=False)
            if info.io == "frames":
                run = rounded_to_bytes(run)
            simulated = run(images.frame0, images.frame1, images.timestep)
            fault_db[name], _ = compare(simulated, images.actual)
    name, closest_db = max(fault_db.items(), key=lambda item: item[1])
    if closest_db - expected_db < _CLEARLY_DB:
        return f"it looks like none of {', '.join(fault_db)}"
    return f"it looks like {name}, with a PSNR of {closest_db:.1f} dB to a simulation of that fault"
