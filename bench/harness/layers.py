"""Time of each layer of an artefact as text, and of each node of an ONNX file in ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from runtime.backends.onnx_format import read_onnx
from runtime.telemetry import import_quietly

Layers = Sequence[tuple[str, float]]
"""Name and milliseconds of each layer, in order of execution."""

_SHOWN = 30
_NAME_WIDTH = 76


def layer_lines(layers: Layers) -> Iterator[str]:
    """Lines of a table of the 30 slowest layers, slowest first, with their share of the total."""
    total = sum(ms for _, ms in layers)
    yield f"{len(layers)} layers, {total:.3f} ms in total, each timed separately"
    slowest = sorted(layers, key=lambda layer: -layer[1])
    for name, ms in slowest[:_SHOWN]:
        yield f"  {ms:8.4f} ms {ms / total if total else 0:6.1%}  {_shortened(name)}"
    if rest := slowest[_SHOWN:]:
        ms = sum(ms for _, ms in rest)
        yield f"  {ms:8.4f} ms {ms / total if total else 0:6.1%}  {len(rest)} more"


def profile_onnx(
    path: Path, inputs: Mapping[str, NDArray[Any]], *, threads: int, runs: int
) -> list[tuple[str, float]]:
    """Mean milliseconds of each node of an ONNX file on the CPU, by ONNX Runtime's profiler.

    Args:
        path: The ONNX file. Its nodes are those of the graph that ONNX Runtime has optimised.
        inputs: Input arrays of one call, by name.
        threads: Number of CPU threads.
        runs: Number of calls that are averaged, after one that is not counted.

    Returns:
        "operator name" and milliseconds of each node, in order of execution.

    Raises:
        ModelError: If the file is damaged or not an artefact of this project; see `read_onnx`.
    """
    onnxruntime = import_quietly("onnxruntime")
    # Profiling is an option of a new session; the other options are those of runtime.backends.ort.
    content = read_onnx(path).content
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_mem_pattern = False
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "trace")
        session = onnxruntime.InferenceSession(
            content, sess_options=options, providers=["CPUExecutionProvider"]
        )
        for _ in range(1 + runs):
            session.run(None, dict(inputs))
        trace = Path(session.end_profiling())
        return mean_of_nodes(json.loads(trace.read_text()))


def mean_of_nodes(trace: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Mean milliseconds of each node in a trace of ONNX Runtime, without its first call."""
    microseconds: dict[tuple[str, str], list[int]] = {}
    for event in trace:
        # Older versions also write fence events before and after a kernel in this category.
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node, args = event["name"].removesuffix("_kernel_time"), event["args"]
            # The index too: nodes may have no name.
            key = args["node_index"], f"{args['op_name']} {node}"
            microseconds.setdefault(key, []).append(event["dur"])
    return [(name, sum(us[1:]) / (len(us) - 1) / 1e3) for (_, name), us in microseconds.items()]


def _shortened(name: str) -> str:
    """Cuts the middle of a long name: a fused layer is named after all layers fused into it."""
    if len(name) <= _NAME_WIDTH:
        return name
    half = (_NAME_WIDTH - 5) // 2
    return f"{name[:half]} ... {name[-half:]}"
