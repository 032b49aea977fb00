"""Where the time of an artefact goes: layer by layer in TensorRT, node by node in ONNX Runtime."""

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
"""Name and milliseconds, in the order in which they run."""

_SHOWN = 30
_NAME_WIDTH = 72


def layer_lines(layers: Layers) -> Iterator[str]:
    """A table for a person: the slowest first, with their share of the whole."""
    total = sum(ms for _, ms in layers)
    yield f"{len(layers)} layers, {total:.3f} ms in sum, each timed apart"
    slowest = sorted(layers, key=lambda layer: -layer[1])
    for name, ms in slowest[:_SHOWN]:
        yield f"  {ms:8.4f} ms {ms / total if total else 0:6.1%}  {_shortened(name)}"
    if rest := slowest[_SHOWN:]:
        ms = sum(ms for _, ms in rest)
        yield f"  {ms:8.4f} ms {ms / total if total else 0:6.1%}  {len(rest)} more"


def profile_onnx(
    path: Path, inputs: Mapping[str, NDArray[Any]], *, threads: int, runs: int
) -> list[tuple[str, float]]:
    """Mean milliseconds of each node of an ONNX file, by ONNX Runtime's own profiler on the CPU.

    Args:
        path: The file; its nodes are those that are left after ONNX Runtime's optimisation.
        inputs: Of one call, by name.
        threads: Processors to use.
        runs: How many calls are averaged, after one that is not counted.

    Returns:
        Operator and name of each node with its time, in the order in which they run.

    Raises:
        ModelError: If the file is damaged or not one of ours; see `read_onnx`.
    """
    onnxruntime = import_quietly("onnxruntime")
    # Recording must be asked for before the session is made; the rest as in runtime.backends.ort.
    content, _ = read_onnx(path)
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
    """Milliseconds of each node in a trace of ONNX Runtime, without the first call of each."""
    microseconds: dict[tuple[str, str], list[int]] = {}
    for event in trace:
        # Older versions write a "fence" before and after a kernel under the same category.
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node, said = event["name"].removesuffix("_kernel_time"), event["args"]
            # By index too: nodes need no name.
            key = said["node_index"], f"{said['op_name']} {node}"
            microseconds.setdefault(key, []).append(event["dur"])
    return [(name, sum(us[1:]) / (len(us) - 1) / 1e3) for (_, name), us in microseconds.items()]


def _shortened(name: str) -> str:
    """Fused layers have the names of all that went into them: begin and end tell most."""
    if len(name) <= _NAME_WIDTH:
        return name
    half = (_NAME_WIDTH - 5) // 2
    return f"{name[:half]} ... {name[-half:]}"
