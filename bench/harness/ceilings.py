"""What a machine reaches at best, where PyTorch is there to measure it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.environment import MeasurementError
from runtime.errors import first_line

if TYPE_CHECKING:
    from bench.harness.roofline import Ceilings


def cpu_ceilings(threads: int) -> tuple[Ceilings | None, dict[str, Any]]:
    """What the CPU of this machine reaches, and the evidence's "ceilings"; prints it."""
    try:
        from bench.harness.roofline import measured_ceilings
    except ModuleNotFoundError as error:
        return None, _no_ceilings(error)
    ceilings = measured_ceilings(threads)
    print(
        f"this machine, {ceilings.measured_with}: matmul of float32 "
        f"{ceilings.matmul_flops_per_second / 1e9:.0f} GFLOP/s, copy "
        f"{ceilings.copy_bytes_per_second / 1e9:.1f} GB/s"
    )
    return ceilings, ceilings.record()


def gpu_ceilings(device: str | None) -> tuple[None, dict[str, Any]]:
    """The evidence's "ceilings" of a GPU, by its name in PyTorch (default "cuda"); prints it.

    It is measured with PyTorch. The Python that runs engines often has none that can use the GPU.
    """
    try:
        from bench.harness.gpu_peak import matmul_peak
        from bench.runs.torch_gpu import torch_gpu
    except ModuleNotFoundError as error:
        return None, _no_ceilings(error)
    try:
        peak = matmul_peak(torch_gpu(device or "cuda"))
    except (MeasurementError, RuntimeError) as error:  # The latter are PyTorch's own.
        why = first_line(error)
        if isinstance(error, MeasurementError):
            why = why.partition(": ")[0]  # The remedy is that of --compare.
        problem = f"the peak of the GPU is measured with PyTorch, and {why}"
        print(f"{problem}: it was not measured")
        return None, {"problem": problem}
    print(
        f"{peak['gpu']}, {peak['measured_with']}: matmul of float16 "
        f"{peak['matmul_fp16_tflops']['p50']:.4g} TFLOP/s"
    )
    return None, peak


def _no_ceilings(error: ModuleNotFoundError) -> dict[str, Any]:
    problem = f"the package {error.name} is not installed"
    print(f"{problem}: operations are not counted, and ceilings of the machine not measured")
    return {"problem": problem}
