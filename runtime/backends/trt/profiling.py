"""Times on the GPU: of the parts of a pair, and of the layers of an engine.

Nothing of this runs in `TensorRTBackend` itself: benchmarks and `export.trt` ask for it.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda.runtime import CudaError
from runtime.backends.trt.backend import TensorRTBackend
from runtime.backends.trt.engine import import_tensorrt
from runtime.backends.trt.execution import Lane


def time_parts(
    backend: TensorRTBackend,
    img0: NDArray[Any],
    img1: NDArray[Any],
    timestep: NDArray[np.float32],
) -> dict[str, float]:
    """Milliseconds on the GPU of the parts of one pair. No two parts run at the same time.

    Args:
        backend: The engine. Calls from other threads wait.
        img0: As of `Backend.put`.
        img1: As of `Backend.put`.
        timestep: As of `Backend.submit`.

    Returns:
        "h2d": upload of both frames; "compute": the network; "d2h": download of the result.

    Raises:
        BackendError: If the device fails; the model is closed then.
    """
    with backend.guarded():
        cuda, transfers, lane = backend.cuda, backend.transfers, backend.lanes[0]
        upload, download = transfers.streams
        images = [backend.put(image) for image in (img0, img1)]
        sources = [transfers.staged(image) for image in (img0, img1)]
        times = [upload.record(timed=True)]
        for source, target in zip(sources, images, strict=True):
            cuda.copy(upload, target.pointer, source.pointer, source.size, "HostToDevice")
        times.append(upload.record(timed=True))
        upload.synchronize()
        pairs = [(images[0], images[1])] * backend.info.pairs_per_call
        # The first keeps the GPU busy until the host has queued the second with its events.
        backend.submit_on(lane, pairs, timestep)
        times.append(lane.stream.record(timed=True))
        made = backend.submit_on(lane, pairs, timestep)
        times.append(lane.stream.record(timed=True))
        lane.stream.synchronize()
        times.append(download.record(timed=True))
        for image in made:
            transfers.download(image)
        times.append(download.record(timed=True))
        download.synchronize()
        parts = zip(("h2d", "compute", "d2h"), times[::2], times[1::2], strict=True)
        return {name: end.milliseconds_since(start) for name, start, end in parts}


def profile_layers(
    backend: TensorRTBackend,
    img0: NDArray[Any],
    img1: NDArray[Any],
    timestep: NDArray[np.float32],
    *,
    runs: int,
) -> list[tuple[str, float]]:
    """Name and mean milliseconds of each layer, in execution order, without a CUDA graph.

    Each layer is timed on its own, so their sum is more than the "compute" of `time_parts`.

    Args:
        backend: The engine. Calls from other threads wait.
        img0: As of `Backend.put`.
        img1: As of `Backend.put`.
        timestep: As of `Backend.submit`.
        runs: Inferences that are averaged, after one that is not counted.

    Raises:
        BackendError: If the device fails; the model is closed then.
    """
    total: dict[str, float] = {}
    trt = import_tensorrt()

    class Profiler(trt.IProfiler):  # type: ignore[misc, name-defined]  # loaded just now
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            total[layer_name] = total.get(layer_name, 0.0) + ms

    with backend.guarded():
        profiler = Profiler()
        lane = Lane(backend.cuda, backend.engine)  # The backend's own contexts report nothing.
        try:
            lane.report_to(profiler)
            # Held as a caller's images are: with those there is no graph.
            first, second = (
                replace(image, memory=[image.memory])
                for image in (backend.put(img0), backend.put(img1))
            )
            for number in range(runs + 1):
                pairs = [(first, second)] * backend.info.pairs_per_call
                backend.submit_on(lane, pairs, timestep)
                lane.stream.synchronize()
                if number == 0:
                    total.clear()
        finally:
            with contextlib.suppress(CudaError):
                lane.stream.synchronize()
            lane.close()
        return [(name, ms / runs) for name, ms in total.items()]
