"""What is checked of an ONNX file whatever runs it, without the onnx package.

ONNX Runtime refuses some paths of files with weights and follows others, depending on its version
(1.23 reads any absolute path). A model of ours is one file; anything else is refused before it is
loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from runtime.errors import ModelError
from runtime.manifest import EngineManifest, manifest_path
from runtime.model_info import INPUTS, ModelInfo, Port

_METADATA_PROPS = 14
"""Of a ModelProto; its entries have a key (1) and a value (2)."""

_TENSOR_EXTERNAL_DATA = 13
_TENSOR_DATA_LOCATION = 14

_FIXED_WIDTHS = {1: 8, 5: 4}
"""Wire type -> bytes of its values."""

_ORT_FORMAT = b"ORTM"
"""Bytes 4 to 7 of a model in ONNX Runtime's own format."""

# Field numbers of onnx.proto that lead to tensors: message -> field -> message.
_LEADS_TO: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training info", 25: "function"},
    "training info": {1: "graph", 2: "graph"},
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


def read_onnx(path: Path) -> tuple[bytes, ModelInfo]:
    """Reads an ONNX file of ours and what it says about itself.

    A manifest beside the file must be the file's own. A file that names others for its weights
    is refused: it could read anything on this machine.

    Raises:
        ModelError: If the file is damaged or not one of ours.
    """
    if manifest_path(path).exists():
        EngineManifest.read(path)
    content = read_self_contained(path)
    try:
        properties = _metadata(content)
    except ValueError as error:
        raise _unreadable(path, error) from error
    return content, ModelInfo.from_properties(properties, source=str(path))


def read_self_contained(path: Path) -> bytes:
    """Reads an ONNX file of any origin.

    What it returns can be given to ONNX Runtime, OpenVINO or TensorRT, which read no other file for
    it.

    Raises:
        ModelError: If the file is damaged, or has tensors whose data lies in another file.
        OSError: If it cannot be read.
    """
    content = path.read_bytes()
    try:
        external = has_external_data(content)
    except ValueError as error:
        raise _unreadable(path, error) from error
    if external:
        raise ModelError(f"{path} names other files for its weights: a model of ours is one file")
    return content


def _unreadable(path: Path, error: ValueError) -> ModelError:
    return ModelError(f"{path} cannot be read as ONNX ({error}): export it again")


def check_ports(ports: Iterable[Port], info: ModelInfo, path: Path) -> None:
    """Refuses a graph without the inputs and the output that its metadata promises.

    Args:
        ports: Of the loaded graph, inputs and outputs.
        info: What its metadata promises.
        path: For the message.

    Raises:
        ModelError: If they differ.
    """
    found, promised = {port.name: port for port in ports}, info.ports()
    dtypes, wanted_dtypes = (
        {name: port.dtype for name, port in of.items()} for of in (found, promised)
    )
    if dtypes != wanted_dtypes:
        raise ModelError(
            f"{path} has {dtypes}, its metadata promises {wanted_dtypes}: export it again"
        )
    # Runtimes leave axes of the output free that follow from those of the inputs.
    for name in INPUTS:
        shape, wanted = found[name].shape, promised[name].shape
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
    """Whether any tensor of the model lies in another file, or may lie there to some parser.

    Args:
        content: A serialised ModelProto.

    Raises:
        ValueError: If it is not well-formed protobuf, or protobuf that parsers read differently
            (see `_fields`), or if ONNX Runtime would load it as a model in its own format.
    """
    if content[4:8] == _ORT_FORMAT:
        raise ValueError("it is in the format of ONNX Runtime")
    messages = [("model", memoryview(content))]
    while messages:
        kind, message = messages.pop()
        for number, value in _fields(message):
            if kind == "tensor" and _is_external(number, value):
                return True
            below = _LEADS_TO[kind].get(number)
            if below is not None and isinstance(value, memoryview):
                messages.append((below, value))
    return False


def _is_external(number: int, value: int | memoryview | None) -> bool:
    """Whether this field of a TensorProto can make its data external.

    Parsers keep 32 bits of `data_location` and treat values that they do not know in different
    ways: 0 is the only one that is internal to all.
    """
    return number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value != 0)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview | None]]:
    """Yields the number and the value of each field of a message.

    A value is an int for a varint, bytes for a string or a message, and None for a number of fixed
    width, which no field that is read here has.

    Everything that parsers of protobuf read differently is refused, and no serialiser of ONNX
    files writes it: tags and lengths of more than 32 bits or in more bytes than they need, field
    number 0, groups.

    Raises:
        ValueError: If the message is malformed or refused.
    """
    position = 0
    while position < len(message):
        tag, position = _short_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        if wire_type == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = _short_varint(message, position)
        elif wire_type in _FIXED_WIDTHS:
            length = _FIXED_WIDTHS[wire_type]
        else:
            raise ValueError(f"field {number} has the wire type {wire_type}")
        if length > len(message) - position:
            raise ValueError("the file ends in the middle of a field")
        yield number, message[position : position + length] if wire_type == 2 else None
        position += length


def _short_varint(message: memoryview, position: int) -> tuple[int, int]:
    """A tag or a length and the position behind it."""
    value, end = _varint(message, position)
    if value >= 1 << 32:
        raise ValueError("a tag or a length has more than 32 bits")
    if end - position > 1 and message[end - 1] == 0:
        raise ValueError("a tag or a length takes more bytes than it needs")
    return value, end


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("the file ends in the middle of a number")
