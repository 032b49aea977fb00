"""Reads ONNX files without the onnx package, and checks them before a backend loads them.

ONNX Runtime refuses some paths of external weights and follows others, depending on its version
(1.23 reads any absolute path). A model of this package is one file; a file with external data is
refused before it is loaded.

A backend does not get the file but bytes that are rebuilt from what was parsed here: only fields
of ONNX, in the encoding that every serialiser writes. Its parser then cannot find external data
that this one did not see. ONNX Runtime and OpenVINO have no option that turns external data off,
and without a folder of the model they take the working directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from runtime.errors import ModelError
from runtime.manifest import EngineManifest, manifest_path
from runtime.model_info import INPUTS, ModelInfo, Port

_METADATA_PROPS = 14
"""Field of a ModelProto; its entries have the fields key (1) and value (2)."""

_TENSOR_EXTERNAL_DATA = 13
_TENSOR_DATA_LOCATION = 14

_FIXED_WIDTHS = {1: 8, 5: 4}
"""Wire type -> size of its values in bytes."""

_ORT_FORMAT = b"ORTM"
"""Bytes 4 to 7 of a model in ONNX Runtime's own format."""

# Fields of onnx.proto that may contain tensors: message -> field number -> message.
_FIELDS_WITH_TENSORS: dict[str, dict[int, str]] = {
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


# Fields of the same messages: message -> wire type -> field numbers.
_KNOWN_FIELDS: dict[str, dict[int, frozenset[int]]] = {
    "model": {0: frozenset((1, 5)), 2: frozenset((2, 3, 4, 6, 7, 8, 14, 20, 25, 26))},
    "training info": {2: frozenset((1, 2, 3, 4))},
    "function": {2: frozenset((1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14))},
    "graph": {2: frozenset((1, 2, 5, 10, 11, 12, 13, 14, 15, 16))},
    "node": {2: frozenset(range(1, 11))},
    "attribute": {
        0: frozenset((3, 8, 20)),
        2: frozenset((1, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 21, 22, 23)),
        5: frozenset((2, 7)),
    },
    "sparse tensor": {0: frozenset((3,)), 2: frozenset((1, 2, 3))},
    "tensor": {
        0: frozenset((1, 2, 5, 7, 11, 14)),
        1: frozenset((10,)),
        2: frozenset((1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16)),
        5: frozenset((4,)),
    },
}

_DEEPEST = 100
"""Limit of the depth of messages, as in the parsers of protobuf."""


class OnnxFile(NamedTuple):
    """An ONNX file of this package.

    Attributes:
        path: Its path.
        content: Its content as a backend may load it; see `rebuilt`.
        info: Its metadata.
        manifest: The manifest beside it; None if there is none.
    """

    path: Path
    content: bytes
    info: ModelInfo
    manifest: EngineManifest | None


def read_onnx(path: Path) -> OnnxFile:
    """Reads an ONNX file of this package, its metadata and its manifest.

    A manifest beside the file must belong to it. A file with external data is refused: it could
    read any file on this machine.

    Raises:
        ModelError: If the file or its manifest is damaged, or the file has external data or stacked
            I/O or is not from this package.
        OSError: If it cannot be read.
    """
    manifest = EngineManifest.read(path) if manifest_path(path).exists() else None
    content = read_self_contained(path)
    info = info_in(content, path)
    info.check_separate(str(path))
    return OnnxFile(path, content, info, manifest)


def info_in(content: bytes, path: Path) -> ModelInfo:
    """The metadata in the content of an ONNX file.

    Args:
        content: From `read_self_contained`.
        path: Path of the file, for messages.

    Raises:
        ModelError: If it is damaged, or not from this package.
    """
    try:
        properties = _metadata(content)
    except ValueError as error:
        raise _unreadable(path, error) from error
    return ModelInfo.from_properties(properties, source=str(path))


def read_self_contained(path: Path) -> bytes:
    """Reads an ONNX file of any origin that has no external data.

    ONNX Runtime, OpenVINO and TensorRT read no other file when they load the returned content,
    which is that of the file as `rebuilt`.

    Raises:
        ModelError: If the file is damaged, or has tensors whose data is in another file.
        OSError: If it cannot be read.
    """
    content = path.read_bytes()
    try:
        external = has_external_data(content)
        content = rebuilt(content)
    except ValueError as error:
        raise _unreadable(path, error) from error
    if external:
        raise ModelError(
            f"{path} has weights in other files, a model of this package is one file: export it "
            "again"
        )
    return content


def _unreadable(path: Path, error: ValueError) -> ModelError:
    return ModelError(f"{path} cannot be read as ONNX ({error}): export it again")


def check_ports(ports: Iterable[Port], info: ModelInfo, path: Path) -> None:
    """Checks that a graph has the inputs and the output that its metadata declares.

    Args:
        ports: Inputs and outputs of the loaded graph.
        info: The metadata.
        path: Path of the file, for the message.

    Raises:
        ModelError: If names, types or shapes differ.
    """
    actual, declared = {port.name: port for port in ports}, info.ports()
    dtypes, declared_dtypes = (
        {name: port.dtype for name, port in by_name.items()} for by_name in (actual, declared)
    )
    if dtypes != declared_dtypes:
        raise ModelError(
            f"{path} has {dtypes}, its metadata declares {declared_dtypes}: export it again"
        )
    # Only inputs: for output axes that depend on the inputs, runtimes report a free axis.
    for name in INPUTS:
        shape, expected = actual[name].shape, declared[name].shape
        fits = (e is None or e == s for e, s in zip(expected, shape, strict=False))
        if len(shape) != len(expected) or not all(fits):
            raise ModelError(
                f"{path} has {name} of shape {shape}, its metadata declares {expected}: "
                "export it again"
            )


def _metadata(content: bytes) -> dict[str, str]:
    """The `metadata_props` of a serialised ModelProto."""
    properties = {}
    for number, entry, *_ in _fields(memoryview(content)):
        if number == _METADATA_PROPS and isinstance(entry, memoryview):
            values = {n: bytes(v) for n, v, *_ in _fields(entry) if isinstance(v, memoryview)}
            properties[values.get(1, b"").decode()] = values.get(2, b"").decode()
    return properties


def has_external_data(content: bytes) -> bool:
    """Whether any parser could find data of a tensor in another file.

    Args:
        content: A serialised ModelProto.

    Raises:
        ValueError: If the content is not well-formed protobuf, is protobuf that parsers read
            differently (see `_fields`), or is a model in ONNX Runtime's own format.
    """
    if content[4:8] == _ORT_FORMAT:
        raise ValueError("it is in the format of ONNX Runtime")
    messages = [("model", memoryview(content))]
    while messages:
        kind, message = messages.pop()
        for number, value, *_ in _fields(message):
            if kind == "tensor" and _is_external(number, value):
                return True
            child = _FIELDS_WITH_TENSORS[kind].get(number)
            if child is not None and isinstance(value, memoryview):
                messages.append((child, value))
    return False


def rebuilt(content: bytes) -> bytes:
    """An ONNX file with nothing but the fields of ONNX that can be on the way to a tensor.

    Other fields are left out, and numbers get their shortest encoding. A file of a usual serialiser
    is returned as it is.

    Args:
        content: A serialised ModelProto.

    Raises:
        ValueError: If the content is not well-formed protobuf, is protobuf that parsers read
            differently (see `_fields`), or has messages more than 100 deep.
    """
    whole = memoryview(content)
    made = _rebuilt("model", whole, 0)
    return content if made is whole else bytes(made)


def _rebuilt(kind: str, message: memoryview, depth: int) -> memoryview | bytes:
    """The message, which is the same object if nothing in it is to change."""
    if depth > _DEEPEST:
        raise ValueError(f"its messages are more than {_DEEPEST} deep")
    known, below = _KNOWN_FIELDS[kind], _FIELDS_WITH_TENSORS[kind]
    parts: list[memoryview | bytes] = []
    changed = False
    for field in _fields(message):
        if field.number not in known.get(field.wire_type, ()):
            changed = True
            continue
        part: memoryview | bytes = field.whole
        if isinstance(field.value, int):
            shortest = _encoded(field.number << 3) + _encoded(field.value % (1 << 64))
            part = part if len(part) == len(shortest) else shortest
        elif field.value is not None and field.number in below:
            child = _rebuilt(below[field.number], field.value, depth + 1)
            if child is not field.value:
                part = _encoded(field.number << 3 | 2) + _encoded(len(child)) + child
        changed = changed or part is not field.whole
        parts.append(part)
    return b"".join(parts) if changed else message


def _encoded(value: int) -> bytes:
    """A varint in the fewest bytes."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _is_external(number: int, value: int | memoryview | None) -> bool:
    """Whether this field of a TensorProto can make its data external.

    Parsers read 32 bits of `data_location` and treat unknown values in different ways: 0 is the
    only value that all of them read as internal.
    """
    return number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value != 0)


class _Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: Its number.
        value: An int for a varint, a memoryview for a string or a message, and None for a number
            of fixed width, which no caller reads.
        wire_type: 0 for a varint, 2 for a string or a message, 1 and 5 for numbers of fixed width.
        whole: Its bytes, with the tag.
    """

    number: int
    value: int | memoryview | None
    wire_type: int
    whole: memoryview


def _fields(message: memoryview) -> Iterator[_Field]:
    """Yields the fields of a message.

    Encodings that parsers of protobuf read differently are refused: tags and lengths of more than
    32 bits or in more bytes than necessary, field number 0, groups. No serialiser of ONNX files
    writes them.

    Raises:
        ValueError: If the message is malformed or refused.
    """
    position = 0
    while position < len(message):
        start = position
        tag, position = _short_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        if wire_type == 0:
            value, position = _varint(message, position)
            yield _Field(number, value, wire_type, message[start:position])
            continue
        if wire_type == 2:
            length, position = _short_varint(message, position)
        elif wire_type in _FIXED_WIDTHS:
            length = _FIXED_WIDTHS[wire_type]
        else:
            raise ValueError(f"field {number} has the wire type {wire_type}")
        if length > len(message) - position:
            raise ValueError("the file ends in the middle of a field")
        text = message[position : position + length] if wire_type == 2 else None
        position += length
        yield _Field(number, text, wire_type, message[start:position])


def _short_varint(message: memoryview, position: int) -> tuple[int, int]:
    """Reads a tag or a length; returns it and the position after it."""
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
