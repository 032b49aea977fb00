"""Describes the inputs and the output of a graph in the file itself, for readers without us.

The texts are also those of the table in docs/onnx_contract.md.
"""

from __future__ import annotations

from onnx import ModelProto

from runtime.model_info import INPUTS, LAYOUTS, OUTPUT, STACKED, IOKind, ModelInfo

PAIRS, HEIGHT, WIDTH = "pairs", "height", "width"
"""Names of free axes."""

MEANINGS = {
    "img0": "frame at time 0",
    "img1": "frame at time 1",
    "timestep": "time of the new frame, inside (0, 1)",
    "planes": "both frames, and the time of the new frame in every pixel",
    "imgt": "new frame",
}
"""Input or output -> meaning."""

VALUES: dict[IOKind, str] = {
    "frames": "0 to 255, red, green, blue",
    "float": "0 to 1, red, green, blue",
    "stacked": "0 to 1, red, green, blue",
}
"""I/O -> range and colours of images. A graph checks neither."""


def images_text(io: IOKind, count: str) -> str:
    """Type, axes and values of a batch of images: "uint8 (N, H, W, 3), 0 to 255, red, ..."."""
    layout = LAYOUTS[io]
    axes = f"{count}, H, W, 3" if layout.channels_last else f"{count}, 3, H, W"
    return f"{layout.dtype} ({axes}), {VALUES[io]}"


def descriptions(info: ModelInfo) -> dict[str, str]:
    """What each input and the output is, in a sentence, by name."""
    sides = f"; H and W are multiples of {info.divisor}" if info.io == "float" else ""
    images = images_text(info.io, "N") + sides
    result = images_text(info.io, "B") + ("" if info.io == "frames" else ", clipped")
    types = dict(zip(INPUTS, (images, images, "float32 (B, 1, 1, 1)"), strict=True))
    if info.io == "stacked":
        types = {
            STACKED: f"float32 (1, 7, H, W), three channels each, {VALUES['stacked']}, and one"
        }
    types[OUTPUT] = result
    return {name: f"{MEANINGS[name]}: {text}" for name, text in types.items()}


def describe(model: ModelProto, info: ModelInfo) -> None:
    """Writes the descriptions and the names of free axes into a graph, in place.

    Args:
        model: A graph with the inputs and the output of this package.
        info: Its metadata.
    """
    graph, texts = model.graph, descriptions(info)
    model.doc_string = (
        f"IFRNet ({info.variant}): the frames between two frames of a video. N pairs of frames "
        "give B new frames, one for each time step. No value is checked."
    )
    renamed: dict[str, str] = {}
    for value in (*graph.input, *graph.output):
        value.doc_string = texts[value.name]
        dims = value.type.tensor_type.shape.dim
        names = {0: PAIRS}
        if value.name != "timestep":
            names |= dict(zip(info.layout.size_axes, (HEIGHT, WIDTH), strict=True))
        for axis, name in names.items():
            if dims[axis].dim_param:
                renamed[dims[axis].dim_param] = name
                dims[axis].dim_param = name
    # An axis that was inferred to have the same length keeps the same name.
    for value in graph.value_info:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in renamed:
                dim.dim_param = renamed[dim.dim_param]
