"""Peak performance of a GPU: a float16 matrix product in PyTorch."""

from __future__ import annotations

import statistics

import torch

from bench.harness.interleave import summary
from bench.records.latency import CeilingsRecord
from bench.runs.torch_gpu import TorchGpu

_MATRIX = 8192
_SAMPLES = 100
_WARM_UP = 10


def matmul_peak(gpu: TorchGpu, *, matrix: int = _MATRIX, samples: int = _SAMPLES) -> CeilingsRecord:
    """Measures the product of two square float16 matrices.

    Args:
        gpu: The GPU.
        matrix: Rows and columns of the matrices.
        samples: Number of timed products; 10 precede them as warm-up.

    Returns:
        The evidence's "ceilings": name of the GPU, median and best TFLOP/s, all samples, versions.
    """
    ms = _matmul_milliseconds(gpu, matrix, samples)
    gpu.release()  # The runs that follow may need the memory.
    tflops = [2 * matrix**3 / (1e9 * one) for one in ms]
    details = gpu.record()
    return {
        "gpu": details["gpu"],
        "matmul_fp16_tflops": {"p50": statistics.median(tflops), "best": max(tflops)},
        "matrix": matrix,
        "milliseconds": {**summary([one / 1e3 for one in ms]), "samples": ms},
        "measured_with": f"torch {details['torch']}, CUDA {details['cuda']}",
    }


def _matmul_milliseconds(gpu: TorchGpu, matrix: int, samples: int) -> list[float]:
    a, b = (
        torch.rand(matrix, matrix, device=gpu.device, dtype=torch.float16) - 0.5 for _ in range(2)
    )
    with torch.inference_mode():
        for _ in range(_WARM_UP):
            torch.matmul(a, b)
        return [gpu.milliseconds(lambda: torch.matmul(a, b)) for _ in range(samples)]
