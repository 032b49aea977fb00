"""PyTorch on a GPU: times by CUDA events, memory, versions."""

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
from runtime.errors import counted
from runtime.model_info import ModelInfo


class TorchGpu:
    """One GPU in PyTorch.

    Attributes:
        device: Name of the GPU in PyTorch, for example "cuda:0".
    """

    def __init__(self, device: str) -> None:
        self.device = device

    def milliseconds(self, call: Callable[[], object]) -> float:
        """Time of a call on the GPU, measured on the second of two calls queued back to back."""
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
        """Bytes of memory that tensors take now; resets `peak_bytes`."""
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def peak_bytes(self) -> int:
        """Peak of the bytes that tensors took since the last call of `allocated_bytes`."""
        return torch.cuda.max_memory_allocated(self.device)

    def release(self) -> None:
        """Returns unused cached memory to the driver."""
        torch.cuda.empty_cache()

    def record(self) -> dict[str, Any]:
        """Name of the GPU and versions of PyTorch, CUDA and cuDNN, for the evidence."""
        return {
            "gpu": torch.cuda.get_device_name(self.device),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }


def torch_gpu(device: str) -> TorchGpu:
    """The GPU with the name "cuda" or "cuda:N".

    Raises:
        MeasurementError: If PyTorch cannot use the GPU.
    """
    index = int(device.partition(":")[2] or 0)
    if not torch.cuda.is_available():
        raise MeasurementError(
            f"PyTorch {torch.__version__} sees no GPU: run --compare with --device {device} in a "
            "Python whose PyTorch was built for CUDA, on a machine with an NVIDIA GPU, or leave "
            "--device out to measure PyTorch on the CPU"
        )
    if index >= (count := torch.cuda.device_count()):
        raise MeasurementError(
            f"--device is {device}, PyTorch sees {counted(count, 'GPU')}: use "
            f"cuda:0{'' if count == 1 else f' to cuda:{count - 1}'}"
        )
    return TorchGpu(f"cuda:{index}")


class TorchGpuBackend(TorchBackend):
    """A network on a GPU as a `Backend` that can time its forward function.

    Args:
        gpu: The GPU.
        computation: The computation of the network.
        info: Metadata of the network.
        name: Name of the backend.
        started: `time.perf_counter()` before the network was copied to the GPU.
        held: Bytes that tensors took on the GPU at that time.

    Attributes:
        first_result: Empty until the first result; then "seconds_to_first_result" since `started`
            and "gpu_memory_bytes", the peak of the memory until then minus `held`.
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
        imgt = super().run(img0, img1, timestep)
        if not self.first_result:
            self.first_result = {
                "seconds_to_first_result": time.perf_counter() - self._started,
                "gpu_memory_bytes": self._gpu.peak_bytes() - self._held,
            }
        return imgt

    def time_parts(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> dict[str, float]:
        """Times one call without the copies of inputs and result.

        Args:
            img0: First frames, as `HostBackend.run` takes them.
            img1: Second frames, like `img0`.
            timestep: (T, 1, 1, 1) in (0, 1).

        Returns:
            "compute": milliseconds from inputs on the GPU to the result on the GPU.
        """
        forward, scale = self.computation.forward, self.info.flow_scale
        with torch.inference_mode():
            inputs = self.prepared(img0, img1, timestep)
            return {"compute": self._gpu.milliseconds(lambda: forward(*inputs, scale))}


def open_on_gpu(
    network: IFRNet, form: Form, gpu: TorchGpu, info: ModelInfo, *, name: str
) -> TorchGpuBackend:
    """Copies a network to a GPU and returns it as a backend.

    Args:
        network: The network in float32 on the CPU; it is not changed.
        form: Formulation, precision, memory format and compiler.
        gpu: The GPU.
        info: Metadata of the backend.
        name: Name of the backend.
    """
    started, held = time.perf_counter(), gpu.allocated_bytes()
    computation = computation_of(network, form, gpu.device)
    forward = _with_cudnn(computation.forward, tf32=form.precision == "tf32")
    computation = replace(computation, forward=forward)
    return TorchGpuBackend(gpu, computation, info, name=name, started=started, held=held)


def _with_cudnn(forward: Forward, *, tf32: bool) -> Forward:
    """Sets the options of cuDNN for each call, since interleaved runs have different options.

    With `benchmark`, cuDNN times its algorithms at the first call of a size and uses the fastest.
    """

    def call(img0: Tensor, img1: Tensor, timestep: Tensor, flow_scale: float) -> Tensor:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=tf32):
            return forward(img0, img1, timestep, flow_scale)

    return call
