"""Roofline: the counted work of a run compared with the measured peak of its machine.

Work is counted on PyTorch's meta device, which computes nothing and takes any size. Needs PyTorch.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench.harness.interleave import Clock, warm_up
from bench.records.latency import CeilingsRecord, RooflineRecord, WorkRecord
from bench.runs.torch_backend import authors_loop, our_forward
from ifrnet_model import VARIANTS, IFRNet
from runtime.errors import counted
from runtime.frames import padding
from runtime.model_info import ModelInfo

_MATRIX = 2048
_COPIED_BYTES = 256 * 2**20
_BEST_OF = 5
_MOVES_NOTHING = (
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.empty.memory_format,
)
"""Operators that move no memory, in addition to those that PyTorch declares as views."""


@dataclass(frozen=True)
class Work:
    """Operations and memory traffic of the network for one pair, without conversion of frames.

    Attributes:
        operations: Floating-point operations of convolutions and transposed convolutions; a
            multiply-add counts as two. Other operators are not counted.
        bytes_moved: Bytes of the inputs and outputs of every operator that is not a view: the
            memory traffic without fusion and without caches.
        bytes_least: Bytes of the weights and of the uint8 frames, each counted once: a lower bound
            of the memory traffic.
    """

    operations: float
    bytes_moved: float
    bytes_least: float

    def record(self) -> WorkRecord:
        """The evidence's "work"."""
        return {
            "operations": self.operations,
            "bytes_moved": self.bytes_moved,
            "bytes_least": self.bytes_least,
        }


@dataclass(frozen=True)
class Ceilings:
    """Measured peak performance of the CPU.

    Attributes:
        matmul_flops_per_second: FLOP/s of a float32 matrix product in PyTorch.
        copy_bytes_per_second: Bytes read plus bytes written per second of a copy in memory.
        measured_with: Version of PyTorch and number of threads.
    """

    matmul_flops_per_second: float
    copy_bytes_per_second: float
    measured_with: str

    def record(self) -> CeilingsRecord:
        """The evidence's "ceilings"."""
        return {
            "matmul_flops_per_second": self.matmul_flops_per_second,
            "copy_bytes_per_second": self.copy_bytes_per_second,
            "measured_with": self.measured_with,
        }


def work_of_a_pair(
    info: ModelInfo,
    size: tuple[int, int],
    calls: Sequence[tuple[int, int]],
    *,
    new_frames: int,
    authors: bool = False,
) -> Work:
    """Counts the work of one pair: all calls of the model, on padded frames.

    Args:
        info: Variant, precision, flow scale and divisor of the model.
        size: (height, width) of the frames before padding.
        calls: (pairs, time steps) of each call, as `calls_of_a_pair` returns them.
        new_frames: Number of new frames.
        authors: Whether the authors' formulation is counted and not the module of
            `ifrnet_model`. In half precision its sampling grids are float16, as after
            `model.half()`.
    """
    height, width = (n + sum(padding(n, info.divisor)) for n in size)
    half = info.precision == "fp16"
    copies = 2 if info.tta else 1  # The frames, and the flipped frames.
    work = [
        _work_of_a_call(
            info.variant, half, authors, (pairs * copies, steps * copies), (height, width),
            info.flow_scale,
        )
        for pairs, steps in calls
    ]  # fmt: skip
    network = _network(info.variant, half)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    frames = (2 + new_frames) * size[0] * size[1] * 3
    return Work(
        operations=sum(operations for operations, _ in work),
        bytes_moved=sum(moved for _, moved in work),
        bytes_least=float(weights + frames),
    )


@functools.cache
def _network(variant: str, half: bool) -> IFRNet:
    with torch.device("meta"):
        network = IFRNet(VARIANTS[variant])
        return network.half() if half else network


# Counting takes up to a second; the runs of a case, and its calls, have mostly the same work.
@functools.cache
def _work_of_a_call(
    variant: str,
    half: bool,
    authors: bool,
    call: tuple[int, int],
    size: tuple[int, int],
    flow_scale: float,
) -> tuple[float, float]:
    """Operations and bytes moved of one call with (pairs, time steps) on the meta device."""
    network = _network(variant, half)
    kind = torch.float16 if half and authors else torch.float32
    pairs, steps = call
    with torch.device("meta"), torch.no_grad():
        forward = authors_loop(network, kind) if authors else our_forward(network)
        image = torch.empty(pairs, 3, *size, dtype=kind)
        timestep = torch.empty(steps, 1, 1, 1, dtype=kind)
        # Not inference mode, which would pass composite operators to the counters undecomposed.
        with FlopCounterMode(display=False) as flops, MovedBytes() as moved:
            forward(image, image, timestep, flow_scale)
    return float(flops.get_total_flops()), float(moved.bytes)


class MovedBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its base has no types
    """A context that sums the bytes of the inputs and outputs of operators, views excluded.

    Attributes:
        bytes: The sum so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operator and adds its bytes."""
        del types
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func not in _MOVES_NOTHING:
            leaves = tree_leaves((args, kwargs, result))
            self.bytes += sum(x.numel() * x.element_size() for x in leaves if isinstance(x, Tensor))
        return result


def measured_ceilings(threads: int, *, clock: Clock = time.perf_counter) -> Ceilings:
    """Measures the peak performance of the CPU, as the best of five calls after warm-up.

    It takes a few seconds and 512 MB of memory.

    Args:
        threads: Number of threads, the same as those of the runs to compare.
        clock: Returns the time in seconds.
    """
    torch.set_num_threads(threads)
    a, b = torch.rand(2, _MATRIX, _MATRIX)
    product = torch.empty(_MATRIX, _MATRIX)
    source = torch.ones(_COPIED_BYTES // 4)  # Not zeros: the system may map them to one page.
    target = torch.empty_like(source)
    with torch.inference_mode():
        matmul = _best_seconds(lambda: torch.matmul(a, b, out=product), clock)
        copy = _best_seconds(lambda: target.copy_(source), clock)
    return Ceilings(
        matmul_flops_per_second=2 * _MATRIX**3 / matmul,
        copy_bytes_per_second=2 * _COPIED_BYTES / copy,
        measured_with=f"torch {torch.__version__}, {counted(threads, 'thread')}",
    )


def _best_seconds(call: Callable[[], object], clock: Clock) -> float:
    warm_up(call, clock=clock)
    seconds = []
    for _ in range(_BEST_OF):
        started = clock()
        call()
        seconds.append(clock() - started)
    return min(seconds)


def share_of_ceilings(work: Work, seconds: float, ceilings: Ceilings) -> RooflineRecord:
    """The evidence's "roofline" of a run: its rates and their shares of the ceilings.

    "share_of_copy" is above 1 where fused operators or caches reduced the memory traffic.

    Args:
        work: Counted work of a pair.
        seconds: Measured time of a pair.
        ceilings: Peak performance of the CPU.
    """
    flops, moved = work.operations / seconds, work.bytes_moved / seconds
    return {
        "flops_per_second": flops,
        "share_of_matmul": flops / ceilings.matmul_flops_per_second,
        "bytes_per_second": moved,
        "share_of_copy": moved / ceilings.copy_bytes_per_second,
    }
