"""Times of the layers of a model in OpenVINO, for benchmarks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from runtime.backends.base import InferencePrecision
from runtime.backends.onnx_format import read_onnx
from runtime.backends.ov.compilation import (
    Compilation,
    compiled_model,
    import_openvino,
    shapes_at,
)


def profile_layers(
    path: Path,
    inputs: Mapping[str, NDArray[Any]],
    *,
    precision: InferencePrecision,
    threads: int,
    runs: int,
) -> list[tuple[str, float]]:
    """Times each layer of an ONNX file on the CPU, in a model that is compiled for this call.

    Args:
        path: The ONNX file. Layers are those of the graph after OpenVINO's optimisations.
        inputs: Input arrays of one call, by name.
        precision: Type in which convolutions are computed; one that this CPU and OpenVINO support.
        threads: Number of CPU threads.
        runs: Number of calls that are averaged, after one that is not counted.

    Returns:
        "type kernel name" and mean milliseconds of each layer that was executed, in order of
        execution. The kernel ends in the type in which it computes: brgconv_avx512_bf16.

    Raises:
        ModelError: If the file is damaged or not an artefact of this project; see `read_onnx`.
        BackendError: If this OpenVINO cannot keep the coordinates in float32.
    """
    openvino = import_openvino()
    file = read_onnx(path)
    options = Compilation(precision, streams=1, threads=threads, cache=None, profile=True)
    shapes = shapes_at(file.info, file.info.layout.size_of(inputs["img0"].shape))
    request = compiled_model(openvino, file.content, options, shapes=shapes).create_infer_request()
    request.infer(inputs)
    first = [layer.real_time for layer in request.profiling_info]
    for _ in range(runs):
        request.infer(inputs)
    executed = openvino.ProfilingInfo.Status.EXECUTED
    layers = []
    for layer, before in zip(request.profiling_info, first, strict=True):
        if layer.status == executed:
            # OpenVINO gives the mean of all calls, in whole microseconds.
            total = (1 + runs) * layer.real_time - before
            name = f"{layer.node_type} {layer.exec_type} {_short(layer.node_name)}"
            layers.append((name, max(0.0, 1e3 * total.total_seconds() / runs)))
    return layers


def _short(name: str) -> str:
    """The name of a layer in the ONNX file, which is the same in every precision.

    OpenVINO and `runtime.backends.ov.precision` add prefixes and suffixes.
    """
    return re.sub(r"/WithoutBiases|(?:^|(?<=_))\d+:", "", name)
