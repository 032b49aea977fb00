"""The graph that an artefact is built from, and its reference. Imports no PyTorch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import ModelProto

from export.errors import ExportError
from export.gate.gate import Reference
from export.gate.runners import onnx_runner
from export.graph import passes
from runtime import ModelError
from runtime.backends.onnx_format import read_self_contained
from runtime.model_info import ModelInfo


class SourceGraph(NamedTuple):
    """A graph that is not tuned for a device yet, and the reference of the artefacts built from it.

    Attributes:
        model: The graph with its metadata.
        info: Its metadata.
        onnx_sha256: The SHA-256 of its file, 64 hexadecimal digits.
        reference: Computes the correct results.
    """

    model: ModelProto
    info: ModelInfo
    onnx_sha256: str
    reference: Reference


def source_from_onnx(path: Path) -> SourceGraph:
    """Reads a file of `export.to_onnx`, without PyTorch.

    The reference is the file itself in ONNX Runtime, in float32 without optimisations: it was
    compared with PyTorch when it was exported.

    Raises:
        ExportError: If the file cannot be read, has tensors in other files, is not plain ONNX, or
            is tuned or int8 already.
        ModelError: If the file has no metadata of ifrnet-deploy, or stacked I/O.
    """
    try:
        content = read_self_contained(path)
        plain = onnx.load_model_from_string(content)
    except ModelError as error:
        raise ExportError(str(error)) from error
    except Exception as error:  # protobuf's DecodeError has no public name.
        raise ExportError(f"{path} cannot be read as ONNX ({error}): export it again") from error
    passes.check(plain)
    properties = {entry.key: entry.value for entry in plain.metadata_props}
    info = ModelInfo.from_properties(properties, source=str(path))
    info.check_separate(str(path))
    if info.precision == "int8":
        raise ExportError(f"{path} is int8 already: give the float32 file of export.to_onnx")
    if info.tuned_for != "any":
        raise ExportError(
            f"{path} is tuned for {info.tuned_for} already: give the file of export.to_onnx"
        )
    return source_from_model(plain, info, hashlib.sha256(content).hexdigest())


def source_from_model(model: ModelProto, info: ModelInfo, onnx_sha256: str) -> SourceGraph:
    """A source whose reference is the graph itself, in float32 without optimisations."""
    half = info.precision == "fp16"
    reference = Reference(
        onnx_runner(passes.in_float32(model) if half else model, info, optimised=False),
        f"the unoptimised ONNX file{' in float32' if half else ''}",
    )
    return SourceGraph(model, info, onnx_sha256, reference)
