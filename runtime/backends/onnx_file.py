"""What is checked of an ONNX file whatever runs it, without the onnx package.

ONNX Runtime refuses some paths of files with weights and follows others, depending on its version
(1.23 reads any absolute path). A model of ours is one file; anything else is refused before it is
loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from runtime.errors import ModelError
from runtime.manifest import EngineManifest, ModelInfo, manifest_path

_METADATA_PROPS = 14
"""Of a ModelProto; its entries have a key (1) and a value (2)."""

_TENSOR_EXTERNAL_DATA = 13
_TENSOR_DATA_LOCATION = 14

# Field numbers of onnx.proto that lead to tensors: message -> field -> message.
_LEADS_TO: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}  # fmt: skip


class Port(NamedTuple):
    """An input or an output of a loaded model.

    Attributes:
        kind: "uint8" or "float32".
        shape: None where an axis is free.
    """

    kind: str
    shape: tuple[int | None, ...]


def read_onnx(path: Path) -> tuple[bytes, ModelInfo]:
    """Reads an ONNX file of ours and what it says about itself.

    A manifest beside the file must be the file's own. A file that names others for its weights
    is refused: it could read anything on this machine.

    Raises:
        ModelError: If the file is damaged or not one of ours.
    """
    if manifest_path(path).exists():
        EngineManifest.read(path)
    content = path.read_bytes()
    try:
        external, properties = has_external_data(content), _metadata(content)
    except ValueError as error:
        raise ModelError(f"{path} cannot be read as ONNX ({error}): export it again") from error
    if external:
        raise ModelError(f"{path} names other files for its weights: a model of ours is one file")
    return content, ModelInfo.from_properties(properties, source=str(path))


def check_ports(ports: Mapping[str, Port], info: ModelInfo, path: Path) -> None:
    """Refuses a graph without the inputs and the output that its metadata promises.

    Args:
        ports: Of the loaded graph, inputs and outputs.
        info: What its metadata promises.
        path: For the message.

    Raises:
        ModelError: If they differ.
    """
    sample = "uint8" if info.io == "frames" else "float32"
    expected = {"img0": sample, "img1": sample, "timestep": "float32", "imgt": sample}
    found = {name: port.kind for name, port in ports.items()}
    if found != expected:
        raise ModelError(f"{path} has {found}, its metadata promises {expected}: export it again")
    height, width = info.size or (None, None)
    image = (height, width, 3) if info.io == "frames" else (3, height, width)
    pairs, rows = info.pairs_per_call, info.frames_per_call
    first: tuple[int | None, int | None] = (None, None) if info.max_pairs else (pairs, rows)
    promised = {
        "img0": (first[0], *image),
        "img1": (first[0], *image),
        "timestep": (first[1], 1, 1, 1),
    }
    for name, wanted in promised.items():
        shape = ports[name].shape
        fits = (w is None or w == s for w, s in zip(wanted, shape, strict=False))
        if len(shape) != len(wanted) or not all(fits):
            raise ModelError(
                f"{path} has {name} of shape {shape}, its metadata promises {wanted}: "
                "export it again"
            )


def _metadata(content: bytes) -> dict[str, str]:
    """The `metadata_props` of a serialised ModelProto."""
    found = {}
    for number, entry in _fields(memoryview(content)):
        if number == _METADATA_PROPS and isinstance(entry, memoryview):
            said = {field: bytes(v) for field, v in _fields(entry) if isinstance(v, memoryview)}
            found[said.get(1, b"").decode()] = said.get(2, b"").decode()
    return found


def has_external_data(content: bytes) -> bool:
    """Whether any tensor of the model lies in another file.

    Args:
        content: A serialised ModelProto.

    Raises:
        ValueError: If it is not well-formed protobuf.
    """
    messages = [("model", memoryview(content))]
    while messages:
        kind, message = messages.pop()
        for number, value in _fields(message):
            if kind == "tensor" and (
                number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value == 1)
            ):
                return True
            below = _LEADS_TO[kind].get(number)
            if below is not None and isinstance(value, memoryview):
                messages.append((below, value))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of one message: numbers as int, everything longer as bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _varint(message, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ValueError(f"protobuf has no wire type {wire_type}")
        if length > len(message) - position:
            raise ValueError("the file ends in the middle of a field")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("the file ends in the middle of a number")
