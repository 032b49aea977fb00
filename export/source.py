"""What artefacts are built from: a plain graph and its reference. No PyTorch."""

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
    """A plain graph, and what everything made from it is compared with.

    Attributes:
        model: The graph with its metadata, before it is tuned for anything.
        info: What it says about itself.
        onnx_sha256: Hash of its file.
        reference: What is right.
    """

    model: ModelProto
    info: ModelInfo
    onnx_sha256: str
    reference: Reference


def source_from_onnx(path: Path) -> SourceGraph:
    """Reads an ONNX file of ours, without PyTorch.

    The reference is the file in ONNX Runtime, in float32 with every optimisation off: what
    PyTorch said about it was measured when it was exported.

    Args:
        path: A file of `export.to_onnx`.

    Raises:
        ExportError: If the file cannot be read, names other files for its data, is not plain ONNX,
            or is tuned or int8 already.
        ModelError: If it carries no metadata of ours.
    """
    try:
        content = read_self_contained(path)
        plain = onnx.load_model_from_string(content)
    except ModelError as error:
        raise ExportError(str(error)) from error
    except Exception as error:  # protobuf's DecodeError has no public home.
        raise ExportError(f"{path} cannot be read as ONNX ({error}): export it again") from error
    passes.check(plain)
    properties = {entry.key: entry.value for entry in plain.metadata_props}
    info = ModelInfo.from_properties(properties, source=str(path))
    if info.precision == "int8":
        raise ExportError(f"{path} is int8 already: give the float32 file of export.to_onnx")
    if info.tuned_for != "any":
        raise ExportError(
            f"{path} is tuned for {info.tuned_for} already: give the file of export.to_onnx"
        )
    return source_from_model(plain, info, hashlib.sha256(content).hexdigest())


def source_from_model(model: ModelProto, info: ModelInfo, onnx_sha256: str) -> SourceGraph:
    """A source whose reference is the graph itself, in float32 with every optimisation off."""
    half = info.precision == "fp16"
    reference = Reference(
        onnx_runner(passes.in_float32(model) if half else model, info, optimised=False),
        f"the file {'in float32' if half else 'as it is'}, unoptimised",
    )
    return SourceGraph(model, info, onnx_sha256, reference)
