"""PyTorch on a GPU: times by CUDA events, memory, versions, and the peak of a matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.environment import MeasurementError
from bench.runs.torch_backend import Computation, Forward, TorchBackend, computation_of
from bench.runs.torch_forms import Form
from ifrnet_model import IFRNet
from runtime.model_info import ModelInfo


class TorchGpu:
    """One GPU as PyTorch sees it.

    Attributes:
        device: Its name in PyTorch, for example "cuda:0".
    """

    def __init__(self, device: str) -> None:
        self.device = device

    def milliseconds(self, call: Callable[[], object]) -> float:
        """Time on the GPU of the second of two calls that are queued one behind the other."""
        stream = torch.cuda.current_stream(self.device)
        start, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        call()  # Keeps the GPU busy while the host queues the second call.
        start.record(stream)
        call()
        end.record(stream)
        end.synchronize()
        return float(start.elapsed_time(end))

    def allocated_bytes(self) -> int:
        """Memory that tensors take now; starts the search for the peak again."""
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def peak_bytes(self) -> int:
        """Most memory that tensors took since `allocated_bytes` was called."""
        return torch.cuda.max_memory_allocated(self.device)

    def release(self) -> None:
        """Gives memory that no tensor takes back to the driver."""
        torch.cuda.empty_cache()

    def record(self) -> dict[str, Any]:
        """Name of the GPU and versions, for the evidence."""
        return {
            "gpu": torch.cuda.get_device_name(self.device),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }


def torch_gpu(device: str) -> TorchGpu:
    """The GPU `cuda` or `cuda:N`.

    Raises:
        MeasurementError: If PyTorch cannot use it.
    """
    index = int(device.partition(":")[2] or 0)
    if not torch.cuda.is_available():
        raise MeasurementError(
            f"PyTorch {torch.__version__} sees no GPU: run --compare with --device {device} in a "
            "Python whose PyTorch was built for CUDA, on a machine with an NVIDIA GPU, or leave "
            "--device out to measure PyTorch on the processor"
        )
    if index >= (count := torch.cuda.device_count()):
        raise MeasurementError(
            f"--device is {device}, PyTorch sees {count} GPU{'' if count == 1 else 's'}: use "
            f"cuda:0{'' if count == 1 else f' to cuda:{count - 1}'}"
        )
    return TorchGpu(f"cuda:{index}")


class TorchGpuBackend(TorchBackend):
    """A network on a GPU, which can time itself.

    Args:
        gpu: Where.
        computation: How.
        info: See `Backend`.
        name: See `Backend`.
        started: Of `time.perf_counter`, before the network was copied to the GPU.
        held: Bytes that were allocated there before.

    Attributes:
        first_result: "seconds_to_first_result" since `started`, and "gpu_memory_bytes", the peak
            until then without `held`; empty until there is a result.
    """

    def __init__(
        self,
        gpu: TorchGpu,
        computation: Computation,
        info: ModelInfo,
        *,
        name: str,
        started: float,
        held: int,
    ) -> None:
        super().__init__(computation, info, name=name, device=gpu.device)
        self._gpu, self._started, self._held = gpu, started, held
        self.first_result: dict[str, float] = {}

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """See `HostBackend.run`."""
        made = super().run(img0, img1, timestep)
        if not self.first_result:
            self.first_result = {
                "seconds_to_first_result": time.perf_counter() - self._started,
                "gpu_memory_bytes": self._gpu.peak_bytes() - self._held,
            }
        return made

    def time_parts(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> dict[str, float]:
        """Milliseconds of one call from inputs on the GPU to its result on the GPU: "compute".

        Args:
            img0: As of `run`.
            img1: As of `run`.
            timestep: As of `run`.
        """
        forward, scale = self.computation.forward, self.info.flow_scale
        with torch.inference_mode():
            inputs = self.prepared(img0, img1, timestep)
            return {"compute": self._gpu.milliseconds(lambda: forward(*inputs, scale))}


def open_on_gpu(
    network: IFRNet, form: Form, gpu: TorchGpu, info: ModelInfo, *, name: str
) -> TorchGpuBackend:
    """Copies a network to a GPU.

    Args:
        network: In float32 on the processor; not changed.
        form: How it is computed.
        gpu: Where.
        info: What the backend says about itself.
        name: Of the backend.
    """
    started, held = time.perf_counter(), gpu.allocated_bytes()
    computation = computation_of(network, form, gpu.device)
    forward = _with_cudnn(computation.forward, tf32=form.precision == "tf32")
    computation = replace(computation, forward=forward)
    return TorchGpuBackend(gpu, computation, info, name=name, started=started, held=held)


def _with_cudnn(forward: Forward, *, tf32: bool) -> Forward:
    """Sets cuDNN for each call, as runs with different settings are measured in turns.

    cuDNN times its algorithms at the first call of a size, and takes the fastest.
    """

    def call(img0: Tensor, img1: Tensor, timestep: Tensor, flow_scale: float) -> Tensor:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
            return forward(img0, img1, timestep, flow_scale)

    return call
