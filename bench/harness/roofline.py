"""How far a run is from what its machine can do: work that is counted, ceilings that are measured.

Work is counted on the meta device, which computes nothing: any size, in a moment. Needs PyTorch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench.harness.interleave import Clock, warm_up
from bench.runs.torch_backend import Forward, authors_loop, our_forward
from ifrnet_model import VARIANTS, IFRNet
from runtime.frames import padding
from runtime.model_info import ModelInfo

_MATRIX = 2048
_COPIED_BYTES = 256 * 2**20
_BEST_OF = 5
_MOVES_NOTHING = (
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.empty.memory_format,
)
"""Beside what PyTorch itself calls a view."""


@dataclass(frozen=True)
class Work:
    """What the frames of one pair cost the network; converting frames is not counted.

    Attributes:
        operations: Of convolutions and transposed convolutions, a multiplication with an addition
            as two. Other operators are not counted.
        bytes_moved: Inputs and outputs of every operator that is no view: what the memory carries
            where nothing is fused and no cache helps.
        bytes_least: The weights and the frames in bytes, each once: what no fusion can save.
    """

    operations: float
    bytes_moved: float
    bytes_least: float

    def record(self) -> dict[str, float]:
        """The evidence's "work"."""
        return asdict(self)


@dataclass(frozen=True)
class Ceilings:
    """What the machine reaches where nothing stands in the way.

    Attributes:
        matmul_flops_per_second: Of a float32 product of two matrices in PyTorch.
        copy_bytes_per_second: Of a copy within memory, bytes read and bytes written.
        measured_with: Version and threads.
    """

    matmul_flops_per_second: float
    copy_bytes_per_second: float
    measured_with: str

    def record(self) -> dict[str, float | str]:
        """The evidence's "ceilings"."""
        return asdict(self)


def work_of_a_pair(
    info: ModelInfo,
    size: tuple[int, int],
    calls: Sequence[tuple[int, int]],
    *,
    new_frames: int,
    authors: bool = False,
) -> Work:
    """Counts the work of one pair: that of every call of the model, its padding included.

    Args:
        info: What runs: its variant, precision, flow scale and divisor.
        size: (height, width) of the frames.
        calls: (pairs, time steps) of each call; see `calls_of_a_pair`.
        new_frames: That the pair becomes.
        authors: Count the authors' formulation instead of our module; in half precision with
            sampling grids in it, as after `model.half()`.
    """
    height, width = (n + sum(padding(n, info.divisor)) for n in size)
    half = info.precision == "fp16"
    with torch.device("meta"):
        network = IFRNet(VARIANTS[info.variant])
        network = network.half() if half else network
        kind = torch.float16 if half and authors else torch.float32
        forward = authors_loop(network, kind) if authors else our_forward(network)
        counted: dict[tuple[int, int], tuple[float, float]] = {}
        for call in set(calls):
            counted[call] = _work_of_a_call(forward, call, (height, width), info.flow_scale, kind)
    weights = sum(parameter.numel() for parameter in network.parameters()) * (2 if half else 4)
    frames = (2 + new_frames) * size[0] * size[1] * 3
    return Work(
        operations=sum(counted[call][0] for call in calls),
        bytes_moved=sum(counted[call][1] for call in calls),
        bytes_least=float(weights + frames),
    )


def _work_of_a_call(
    forward: Forward,
    call: tuple[int, int],
    size: tuple[int, int],
    flow_scale: float,
    kind: torch.dtype,
) -> tuple[float, float]:
    """Operations and bytes moved of one call on the meta device, with inputs of type `kind`."""
    pairs, steps = call
    image = torch.empty(pairs, 3, *size, dtype=kind)
    # Without gradients and not in inference mode: there, composite operators come as they are.
    with torch.no_grad(), FlopCounterMode(display=False) as flops, MovedBytes() as moved:
        forward(image, image, torch.empty(steps, 1, 1, 1, dtype=kind), flow_scale)
    return float(flops.get_total_flops()), float(moved.bytes)


class MovedBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its base has no types
    """Adds up the bytes of inputs and outputs of every operator inside that is no view.

    Attributes:
        bytes: So far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operator and counts."""
        del types
        made = func(*args, **(kwargs or {}))
        if not func.is_view and func not in _MOVES_NOTHING:
            leaves = tree_leaves((args, kwargs, made))
            self.bytes += sum(x.numel() * x.element_size() for x in leaves if isinstance(x, Tensor))
        return made


def measured_ceilings(threads: int, *, clock: Clock = time.perf_counter) -> Ceilings:
    """Measures this machine, with as many threads as what it is held against.

    Takes 512 MB of memory and a few seconds. The best of several calls counts, once their time
    stays: a ceiling is what nothing disturbed.
    """
    torch.set_num_threads(threads)
    a, b = torch.rand(2, _MATRIX, _MATRIX)
    product = torch.empty(_MATRIX, _MATRIX)
    source = torch.ones(_COPIED_BYTES // 4)  # Of zeros the system keeps a single page.
    target = torch.empty_like(source)
    with torch.inference_mode():
        matmul = _best_seconds(lambda: torch.matmul(a, b, out=product), clock)
        copy = _best_seconds(lambda: target.copy_(source), clock)
    plural = "" if threads == 1 else "s"
    return Ceilings(
        matmul_flops_per_second=2 * _MATRIX**3 / matmul,
        copy_bytes_per_second=2 * _COPIED_BYTES / copy,
        measured_with=f"torch {torch.__version__}, {threads} thread{plural}",
    )


def _best_seconds(call: Callable[[], object], clock: Clock) -> float:
    warm_up(call, clock=clock)
    found = []
    for _ in range(_BEST_OF):
        started = clock()
        call()
        found.append(clock() - started)
    return min(found)


def share_of_ceilings(work: Work, seconds: float, ceilings: Ceilings) -> dict[str, float]:
    """The evidence's "roofline" of a run whose pair takes `seconds`.

    A share of the copy above one means that operators were fused, or that caches helped.
    """
    flops, moved = work.operations / seconds, work.bytes_moved / seconds
    return {
        "flops_per_second": flops,
        "share_of_matmul": flops / ceilings.matmul_flops_per_second,
        "bytes_per_second": moved,
        "share_of_copy": moved / ceilings.copy_bytes_per_second,
    }
