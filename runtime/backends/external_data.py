"""Finds out whether an ONNX file names other files for its weights, without the onnx package.

ONNX Runtime refuses some of such paths and follows others, depending on its version (1.23 reads
any absolute path). A model of ours is one file; anything else is refused before it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator

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
