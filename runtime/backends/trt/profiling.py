"""GPU times of the parts of a pair and of the layers of an engine, for benchmarks and builds."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.backends.cuda.runtime import CudaError
from runtime.backends.trt.backend import TensorRTBackend
from runtime.backends.trt.engine import import_tensorrt
from runtime.backends.trt.execution import ExecutionSlot


def time_parts(
    backend: TensorRTBackend,
    img0: NDArray[Any],
    img1: NDArray[Any],
    timestep: NDArray[np.float32],
) -> dict[str, float]:
    """Times the parts of one call on the GPU, one after the other.

    Args:
        backend: The opened engine. Calls from other threads wait.
        img0: A batch of one image, C-contiguous, in the layout of the model.
        img1: The second image.
        timestep: float32 (B, 1, 1, 1) in (0, 1), B = `info.frames_per_call`.

    Returns:
        Times in ms: "h2d" of uploading both images, "compute" of the network, "d2h" of downloading
        the B results.

    Raises:
        BackendError: If the device fails; the model is then closed.
    """
    with backend.guarded():
        cuda, transfers, slot = backend.cuda, backend.transfers, backend.slots[0]
        upload, download = transfers.streams
        images = [backend.put(image) for image in (img0, img1)]
        sources = [transfers.staged(image) for image in (img0, img1)]
        times = [upload.record(timed=True)]
        for source, target in zip(sources, images, strict=True):
            cuda.copy(upload, target.pointer, source.pointer, source.size, "HostToDevice")
        times.append(upload.record(timed=True))
        upload.synchronize()
        pairs = [(images[0], images[1])] * backend.info.pairs_per_call
        # The first call keeps the GPU busy until the host has queued the second and its events.
        backend.submit_on(slot, pairs, timestep)
        times.append(slot.stream.record(timed=True))
        results = backend.submit_on(slot, pairs, timestep)
        times.append(slot.stream.record(timed=True))
        slot.stream.synchronize()
        times.append(download.record(timed=True))
        for image in results:
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
    """Times each layer of an engine, without a CUDA graph.

    Each layer is timed on its own, so that their sum exceeds the "compute" of `time_parts`.

    Args:
        backend: The opened engine. Calls from other threads wait.
        img0: A batch of one image, C-contiguous, in the layout of the model.
        img1: The second image.
        timestep: float32 (B, 1, 1, 1) in (0, 1), B = `info.frames_per_call`.
        runs: Number of inferences that are averaged, after one warm-up.

    Returns:
        Name and mean time in ms of each layer, in execution order.

    Raises:
        BackendError: If the device fails; the model is then closed.
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
        # A separate slot, so that the backend's contexts stay without a profiler.
        slot = ExecutionSlot(backend.cuda, backend.engine)
        try:
            slot.report_to(profiler)
            # Marked as external images, with which no graph is used.
            first, second = (
                replace(image, memory=[image.memory])
                for image in (backend.put(img0), backend.put(img1))
            )
            for number in range(runs + 1):
                pairs = [(first, second)] * backend.info.pairs_per_call
                backend.submit_on(slot, pairs, timestep)
                slot.stream.synchronize()
                if number == 0:
                    total.clear()
        finally:
            with contextlib.suppress(CudaError):
                slot.stream.synchronize()
            slot.close()
        return [(name, ms / runs) for name, ms in total.items()]
