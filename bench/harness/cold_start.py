"""What a program pays for its first frame: a fresh process that opens a model and makes one pair.

`python -m bench.harness.cold_start REQUEST` is that process; bench.latency starts it. No package
is imported before the clock runs, ours included: what imports cost is one of the figures. What
drivers and compilers keep on disk between processes stays there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def cold_start(name: str, request: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Starts a process that opens a model, makes one pair and ends.

    Args:
        name: Of the run, for errors.
        request: As of `bench.runs.artefact.Run.request`.

    Returns:
        "import_seconds": NumPy, the runtime and what computes; "load_seconds": until the model is
        open; "first_pair_seconds": from frames to frames; "peak_host_bytes": most memory that the
        process held, None where the system does not tell; "device_bytes": what it took of the
        GPU beside the CUDA context, None without TensorRT.

    Raises:
        MeasurementError: If the process fails.
    """
    from bench.environment import MeasurementError

    # The folder of our packages: the process may start where they are not found.
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "bench.harness.cold_start", json.dumps(request)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode == 0:
        figures: dict[str, float | int | None] = json.loads(done.stdout.splitlines()[-1])
        return figures
    said = [line for line in done.stderr.splitlines() if line.strip()]
    why = said[-1].strip() if said else "it said nothing; was it out of memory?"
    raise MeasurementError(
        f"{name} did not make a pair in a process of its own, which ended with code "
        f"{done.returncode} ({why}): mend that, or give --no-cold"
    )


def first_pair(request: Mapping[str, Any]) -> dict[str, float | int | None]:
    """What `cold_start` asks for, in this process, which must be a fresh one."""
    clock = time.perf_counter
    started = clock()  # What is imported to find out what to import counts too.
    from runtime.telemetry import import_quietly

    for module in _modules(request):
        import_quietly(module)
    imported = clock() - started

    from bench.runs.artefact import noise_frames
    from runtime import Interpolator

    height, width = request["size"]
    frames = noise_frames((height, width))
    started = clock()
    # CUDA's context is made here: its time counts, its memory does not.
    free = _free_device_bytes(request)
    with Interpolator(_open(request)) as vfi:
        loaded = clock() - started
        started = clock()
        vfi.interpolate(*frames, timesteps=vfi.steps_for_factor(request["factor"]))
        made = clock() - started
        left = _free_device_bytes(request)
    return {
        "import_seconds": imported,
        "load_seconds": loaded,
        "first_pair_seconds": made,
        "peak_host_bytes": peak_host_bytes(),
        "device_bytes": None if free is None or left is None else free - left,
    }


def _modules(request: Mapping[str, Any]) -> list[str]:
    """What a program imports that opens such a model."""
    if "pytorch" in request:
        return ["numpy", "runtime", "torch", "bench.runs.torch_backend"]
    if _is_engine(request):
        return [
            "numpy",
            "runtime",
            "runtime.backends.trt.backend",
            "tensorrt",
            "cuda.bindings.runtime",
        ]
    from runtime.backends.base import OpenOptions
    from runtime.backends.registry import default_backend

    model, options = Path(request["model"]), OpenOptions(**request["options"])
    if (request.get("backend") or default_backend(model, options)) == "openvino":
        return ["numpy", "runtime", "runtime.backends.ov.backend", "openvino"]
    return ["numpy", "runtime", "runtime.backends.ort.backend", "onnxruntime"]


def _is_engine(request: Mapping[str, Any]) -> bool:
    return Path(request.get("model", "")).suffix.lower() in (".engine", ".plan")


def _open(request: Mapping[str, Any]) -> Any:
    """The `Backend` that the request describes."""
    from bench.runs.artefact import Case
    from bench.runs.pytorch import PyTorchRun
    from runtime.backends.base import OpenOptions
    from runtime.backends.registry import open_backend

    if "pytorch" not in request:
        options = OpenOptions(**request["options"])
        return open_backend(request["model"], options, backend=request.get("backend"))
    from bench.runs.authors import load_reference

    asked = request["pytorch"]
    height, width = request["size"]
    case = Case(None, (height, width), request["factor"], request["flow_scale"])
    return PyTorchRun(checkpoint=load_reference(asked["weights"]), **asked).open(case)


def _free_device_bytes(request: Mapping[str, Any]) -> int | None:
    """Of the GPU that an engine runs on, other programs' use included; None without an engine."""
    if not _is_engine(request):
        return None
    from runtime.backends.base import OpenOptions
    from runtime.backends.cuda.runtime import Cuda

    device = OpenOptions(**request["options"]).cuda_device()
    if device is None:
        return None  # An engine on a processor: opening it says why that cannot be.
    cuda = Cuda(device)
    with cuda.current():
        free, _ = cuda.call("cudaMemGetInfo")
    return int(free)


def peak_host_bytes() -> int | None:
    """Most memory that this process held; None where the system does not tell.

    Linux is asked for the figure of the program alone: what getrusage says there includes the
    memory of the process that started it, up to the moment when the program replaced its copy.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "darwin":
        import resource

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # Bytes there.
    return None


def main() -> None:
    """The process: one JSON object as its last line; an error ends it with a traceback."""
    print(json.dumps(first_pair(json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
