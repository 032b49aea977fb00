"""Measures the peak performance of the machine, for comparison with runs. Needs PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.environment import MeasurementError
from bench.records.latency import CeilingsRecord
from runtime.errors import first_line

if TYPE_CHECKING:
    from bench.harness.roofline import Ceilings


def cpu_ceilings(threads: int) -> tuple[Ceilings | None, CeilingsRecord]:
    """Measures the CPU's peak performance (`measured_ceilings`) and prints it.

    Returns:
        The ceilings and the evidence's "ceilings". Without PyTorch, None and {"problem": reason}.
    """
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


def gpu_ceilings(device: str | None) -> tuple[None, CeilingsRecord]:
    """Measures the GPU's peak performance (`matmul_peak`) and prints it.

    Args:
        device: PyTorch's name of the GPU; None stands for "cuda".

    Returns:
        None, and the evidence's "ceilings". If PyTorch is missing or cannot use the GPU, which is
        common where engines run, the evidence is {"problem": reason}.
    """
    try:
        from bench.harness.gpu_peak import matmul_peak
        from bench.runs.torch_gpu import torch_gpu
    except ModuleNotFoundError as error:
        return None, _no_ceilings(error)
    try:
        peak = matmul_peak(torch_gpu(device or "cuda"))
    except (MeasurementError, RuntimeError) as error:  # RuntimeError: raised by PyTorch.
        why = first_line(error)
        if isinstance(error, MeasurementError):
            why = why.partition(": ")[0]  # Its remedy is for --compare.
        print(f"the peak performance of the GPU was not measured: {why}")
        return None, {"problem": why}
    print(
        f"{peak['gpu']}, {peak['measured_with']}: matmul of float16 "
        f"{peak['matmul_fp16_tflops']['p50']:.4g} TFLOP/s"
    )
    return None, peak


def _no_ceilings(error: ModuleNotFoundError) -> CeilingsRecord:
    problem = f"the package {error.name} is not installed"
    print(
        f"{problem}: operations are not counted, and the peak performance of the machine is not "
        "measured"
    )
    return {"problem": problem}
