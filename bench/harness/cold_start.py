"""Cold start: time and memory until a fresh process has interpolated its first pair.

`bench.latency` starts `python -m bench.harness.cold_start REQUEST` for each run. The time of
imports is one of the figures, so this module imports only the standard library before the clock
starts. Caches of drivers and compilers on disk are not cleared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.records.latency import ColdStart

_ROOT = Path(__file__).resolve().parents[2]


def measure_cold_start(name: str, request: Mapping[str, Any]) -> ColdStart:
    """Measures a cold start in a process that opens a model, interpolates one pair and exits.

    Args:
        name: Name of the run, for error messages.
        request: The run, as `bench.runs.artefact.Run.request` describes it.

    Returns:
        "import_seconds": import of NumPy, the runtime and the inference library;
        "load_seconds": opening the model;
        "first_pair_seconds": from the frames of the pair to the new frames;
        "peak_host_bytes": peak resident memory of the process, None where the system does not
        report it;
        "device_bytes": GPU memory in use without the CUDA context, None without TensorRT.

    Raises:
        MeasurementError: If the process fails.
    """
    from bench.environment import MeasurementError

    # The current folder may be another, and the packages need not be installed.
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
        figures: ColdStart = json.loads(done.stdout.splitlines()[-1])
        return figures
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    why = errors[-1].strip() if errors else "without a message, perhaps for lack of memory"
    raise MeasurementError(
        f"the cold start of {name} in a new process failed with exit code {done.returncode} "
        f"({why}): correct the cause, or give --no-cold-start"
    )


def first_pair(request: Mapping[str, Any]) -> ColdStart:
    """Runs the cold start in this process, which must be fresh; see `measure_cold_start`."""
    clock = time.perf_counter
    started = clock()  # Before any import: all of them count.
    from runtime.telemetry import import_quietly

    for module in _modules(request):
        import_quietly(module)
    imported = clock() - started

    from bench.runs.frames import noise_frames
    from runtime import Interpolator

    height, width = request["size"]
    frames = noise_frames((height, width))
    started = clock()
    # This creates the CUDA context: its time counts, its memory does not.
    free = _free_device_bytes(request)
    with Interpolator(_open(request)) as vfi:
        loaded = clock() - started
        started = clock()
        vfi.interpolate(*frames, timesteps=vfi.steps_for_factor(request["factor"]))
        interpolated = clock() - started
        left = _free_device_bytes(request)
    return {
        "import_seconds": imported,
        "load_seconds": loaded,
        "first_pair_seconds": interpolated,
        "peak_host_bytes": peak_host_bytes(),
        "device_bytes": None if free is None or left is None else free - left,
    }


def _modules(request: Mapping[str, Any]) -> list[str]:
    """The modules that a program imports to open the model of the request."""
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
    from bench.runs.case import Case
    from bench.runs.pytorch import PyTorchRun
    from runtime.backends.base import OpenOptions
    from runtime.backends.registry import open_backend

    if "pytorch" not in request:
        options = OpenOptions(**request["options"])
        return open_backend(request["model"], options, backend=request.get("backend"))
    from bench.runs.authors import load_reference

    of_pytorch = request["pytorch"]
    height, width = request["size"]
    case = Case(None, (height, width), request["factor"], request["flow_scale"])
    return PyTorchRun(checkpoint=load_reference(of_pytorch["weights"]), **of_pytorch).open(case)


def _free_device_bytes(request: Mapping[str, Any]) -> int | None:
    """Free memory of the engine's GPU, as the driver reports it; None if it is not an engine."""
    if not _is_engine(request):
        return None
    from runtime.backends.base import OpenOptions
    from runtime.backends.cuda.runtime import Cuda

    device = OpenOptions(**request["options"]).cuda_device()
    if device is None:
        return None  # device="cpu": opening the engine raises the error for it.
    cuda = Cuda(device)
    with cuda.current():
        free, _ = cuda.call("cudaMemGetInfo")
    return int(free)


def peak_host_bytes() -> int | None:
    """Peak resident memory of this process in bytes; None where the system does not report it.

    On Linux it is VmHWM. The ru_maxrss of getrusage is inherited across exec there, so it may be
    the peak of the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    if sys.platform == "darwin":
        import resource

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # In bytes on macOS.
    return None


def main() -> None:
    """Prints the figures as one JSON object; errors are not caught."""
    print(json.dumps(first_pair(json.loads(sys.argv[1]))))


if __name__ == "__main__":
    main()
