"""Checks GPU arrays between this project and a real PyTorch, in both directions.

python3 tools/device_arrays_check.py --json device_arrays.json

It needs no TensorRT: where TensorRT and PyTorch are in two Pythons, run it in the one with PyTorch,
which also needs NumPy and cuda-bindings (PyTorch 2.10 and later installs the latter).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.environment import MeasurementError, check_writable, write_evidence  # noqa: E402
from runtime.backends.cuda.arrays import DeviceFrame, DeviceView, device_view  # noqa: E402
from runtime.backends.cuda.runtime import BufferPool, Cuda, Stream, host_view  # noqa: E402
from runtime.cli.command import command_parser, run_command  # noqa: E402
from runtime.errors import FrameError  # noqa: E402

SHAPE = (130, 190, 3)
DTYPES = ("uint8", "uint16", "float16", "float32")
BUSY_CYCLES = 200_000_000
"""GPU cycles for which the writing stream is busy before it writes: about 0.1 s in 2026."""
TRIES = 3
"""A transfer is repeated, since the first use of a kernel loads it and may wait for all streams."""


class Check(NamedTuple):
    """The result of one check.

    Attributes:
        name: What was checked.
        problem: Why it failed; "" if it passed.
    """

    name: str
    problem: str


class CudaStreams:
    """PyTorch's CUDA and this project's in one process, each with a stream.

    Attributes:
        torch: The module.
        cuda: This project's device.
        theirs: A stream of PyTorch.
        stream: A stream of this project.
        ours: `stream` as a stream of PyTorch.
        frames: Number of frames that were made.
        released: Number of frames that were released.
    """

    def __init__(self, torch: Any) -> None:
        self.torch, self.cuda = torch, Cuda(0)
        self.theirs, self.stream = torch.cuda.Stream(), Stream(self.cuda)
        self.ours = torch.cuda.ExternalStream(int(self.stream.handle))
        self._device, self._pinned = (BufferPool(self.cuda, pinned=p) for p in (False, True))
        self.frames, self.released = 0, 0

    def frame(self, values: NDArray[Any]) -> DeviceFrame:
        """Makes a frame whose content our stream writes late: it is kept busy first."""
        source, memory = (p.take(values.nbytes) for p in (self._pinned, self._device))
        np.copyto(host_view(source, values.shape, values.dtype), values)
        # The memory may hold the same values from before. Cleared, it shows whether a reader
        # waited.
        self.cuda.call("cudaMemsetAsync", memory.pointer, 0, memory.size, self.stream.handle)
        self.stream.synchronize()
        self.keep_busy(self.ours)
        self.cuda.copy(self.stream, memory.pointer, source.pointer, values.nbytes, "HostToDevice")
        ready = self.stream.record()
        self.frames += 1

        def wait(other: int) -> None:
            self.cuda.call("cudaStreamWaitEvent", other, ready.handle, 0)

        def release() -> None:  # The caller has waited for the readers.
            self._pinned.give_back(source)
            self._device.give_back(memory)
            self.released += 1

        return DeviceFrame(
            memory.pointer,
            values.shape,
            values.dtype,
            device=0,
            stream=int(self.stream.handle),
            release=release,
            wait=wait,
        )

    def tensor(self, values: NDArray[Any], stream: Any) -> Any:
        """Makes a tensor whose content `stream` writes late: it is kept busy first."""
        self._source = self.torch.from_numpy(values).cuda()  # Must outlive the copy.
        tensor = self.zeros(values)
        self.torch.cuda.synchronize()
        self.keep_busy(stream)
        with self.torch.cuda.stream(stream):
            return tensor.copy_(self._source, non_blocking=True)

    def zeros(self, like: NDArray[Any]) -> Any:
        """Makes a tensor on the GPU by a copy, since PyTorch has few kernels for uint16."""
        return self.torch.from_numpy(np.zeros_like(like)).cuda()

    def keep_busy(self, stream: Any) -> None:
        """Delays later work of `stream` by BUSY_CYCLES."""
        with self.torch.cuda.stream(stream):
            self.torch.cuda._sleep(BUSY_CYCLES)

    def copied(self, view: DeviceView) -> NDArray[Any]:
        """Reads an array of PyTorch on our stream; returns a host array."""
        size = view.dtype.itemsize * int(np.prod(view.shape))
        buffer = self._pinned.take(size)
        self.cuda.copy(self.stream, buffer.pointer, view.pointer, size, "DeviceToHost")
        self.stream.synchronize()
        values = host_view(buffer, view.shape, view.dtype).copy()
        self._pinned.give_back(buffer)
        return values

    def close(self) -> None:
        """Frees memory and stream."""
        self.torch.cuda.synchronize()
        self._pinned.close()
        self._device.close()
        self.stream.close()


class DLPackOnly:
    """A tensor that exports DLPack but no `__cuda_array_interface__`."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


def sample_image(dtype: str) -> NDArray[Any]:
    """An image of SHAPE with values in 0..250 that are exact in each type."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 251).astype(dtype)


def frame_to_torch(machine: CudaStreams, values: NDArray[Any], stream: Any, take: Any) -> bool:
    """Makes a frame and lets PyTorch read it on `stream`.

    Args:
        machine: The streams.
        values: Content of the frame.
        stream: The stream of PyTorch that reads.
        take: Function of PyTorch that converts the frame to a tensor.

    Returns:
        Whether the reader had to wait for the content.

    Raises:
        MeasurementError: If PyTorch sees an array that differs from ours.
    """
    torch = machine.torch
    copy = machine.zeros(values)
    torch.cuda.synchronize()
    frame = machine.frame(values)
    with torch.cuda.stream(stream):
        tensor = take(frame)
        copy.copy_(tensor, non_blocking=True)
    waited = not machine.ours.query()
    stream.synchronize()
    expect("pointer", tensor.data_ptr(), frame.pointer)
    expect("shape", tuple(tensor.shape), frame.shape)
    expect("type", str(tensor.dtype), f"torch.{frame.dtype}")
    expect("number of wrong values", np.count_nonzero(copy.cpu().numpy() != values), 0)
    return waited


def tensor_to_us(machine: CudaStreams, values: NDArray[Any], stream: Any, export: Any) -> bool:
    """Makes a tensor of PyTorch and reads it on our stream.

    Args:
        machine: The streams.
        values: Content of the tensor.
        stream: The stream of PyTorch that writes.
        export: Converts the tensor to the object that `device_view` gets.

    Returns:
        Whether our stream had to wait for the content.

    Raises:
        MeasurementError: If we see an array that differs from PyTorch's.
    """
    tensor = machine.tensor(values, stream)
    with machine.torch.cuda.stream(stream):
        view = device_view(export(tensor), stream=int(machine.stream.handle), name="tensor")
    waited = not stream.query()
    copy = machine.copied(view)
    expect("pointer", view.pointer, tensor.data_ptr())
    expect("shape", view.shape, tuple(tensor.shape))
    expect("type", f"torch.{view.dtype}", str(tensor.dtype))
    expect("device", view.device, 0 if export is DLPackOnly else None)
    expect("stream", view.stream, None)  # PyTorch names none.
    expect("number of wrong values", np.count_nonzero(copy != values), 0)
    return waited


def expect(name: str, actual: object, expected: object) -> None:
    """Checks that a value is the expected one.

    Raises:
        MeasurementError: If it is not.
    """
    if actual != expected:
        raise MeasurementError(f"the {name} is {actual}, not {expected}")


def transfers(machine: CudaStreams) -> Iterator[Check]:
    """Checks each type, protocol and direction, while the stream that writes is busy."""
    torch, ours = machine.torch, machine.ours
    theirs, default = machine.theirs, torch.cuda.default_stream()

    def by_interface(frame: DeviceFrame) -> Any:
        return torch.as_tensor(frame, device="cuda")

    # With __cuda_array_interface__ PyTorch names no stream and waits for none: both sides must use
    # the same.
    ways: tuple[tuple[str, Any, Any, Any], ...] = (
        ("from_dlpack, another stream", frame_to_torch, theirs, torch.from_dlpack),
        ("from_dlpack, default stream", frame_to_torch, default, torch.from_dlpack),
        ("from_dlpack, the same stream", frame_to_torch, ours, torch.from_dlpack),
        ("as_tensor, the same stream", frame_to_torch, ours, by_interface),
        ("device_view by DLPack, another stream", tensor_to_us, theirs, DLPackOnly),
        ("device_view by DLPack, default stream", tensor_to_us, default, DLPackOnly),
        ("device_view by interface, the same stream", tensor_to_us, ours, lambda tensor: tensor),
    )
    for name, transfer, stream, convert in ways:
        for dtype in DTYPES:
            yield Check(
                f"{name}, {dtype}", transfer_problem(transfer, machine, dtype, stream, convert)
            )


def transfer_problem(
    transfer: Any, machine: CudaStreams, dtype: str, stream: Any, convert: Any
) -> str:
    """Why a transfer failed; "" if its content was right and its reader had to wait."""
    try:
        for _ in range(TRIES):
            if transfer(machine, sample_image(dtype), stream, convert):
                return ""
    except Exception as error:  # Any error fails one check; the others are run.
        return f"{type(error).__name__}: {error}"
    return f"the content was complete at once in {TRIES} tries: the order was not tested"


def refusals(machine: CudaStreams) -> Iterator[Check]:
    """Checks that tensors which are not frames are refused with a reason."""
    plain = machine.torch.from_numpy(sample_image("float32"))
    for name, tensor, reason in (
        ("every other column", plain.cuda()[:, ::2], "make it contiguous"),
        ("planes", plain.cuda().permute(2, 0, 1), "make it contiguous"),
        ("int64", plain.cuda().long(), "frames on the GPU are"),
        ("float64", plain.cuda().double(), "frames on the GPU are"),
        ("bfloat16", plain.cuda().bfloat16(), "frames on the GPU are"),
        ("an empty tensor", plain.cuda()[:0], "every side is 1 or more"),
        ("a tensor that requires grad", plain.cuda().requires_grad_(), "call detach()"),
        ("a tensor on the host", plain, "not on a GPU"),
    ):
        for protocol, array in (("interface", tensor), ("DLPack", DLPackOnly(tensor))):
            problem = "it was accepted"
            try:
                device_view(array, stream=int(machine.stream.handle), name="frame0")
            except Exception as error:  # Any error fails one check; the others are run.
                expected = isinstance(error, FrameError) and reason in str(error)
                problem = "" if expected else f"{type(error).__name__}: {error}"
            yield Check(f"refused by {protocol}: {name}", problem)


def releases(machine: CudaStreams) -> Iterator[Check]:
    """Checks that no frame is in use after the other checks."""
    made, released = machine.frames, machine.released
    problem = "" if made == released else f"{released} of {made} frames were released"
    yield Check("memory is released", problem)


def run_checks(torch: Any) -> list[Check]:
    """Runs all checks and prints each result at once.

    Raises:
        MeasurementError: If this PyTorch has no GPU.
    """
    if not torch.cuda.is_available():
        raise MeasurementError(
            f"PyTorch {torch.__version__} finds no CUDA GPU here: "
            "run this with a PyTorch built for CUDA on a machine with a GPU"
        )
    machine = CudaStreams(torch)
    checks = []
    for part in (transfers, refusals, releases):
        for check in part(machine):
            print(
                f"{'FAILED' if check.problem else 'passed'}  {check.name}  {check.problem}".strip()
            )
            checks.append(check)
    machine.close()
    return checks


def _run(args: argparse.Namespace) -> int:
    import torch

    if args.json:
        check_writable(args.json, "--json")
    checks = run_checks(torch)
    if args.json:
        write_evidence(
            args.json, {"pytorch": torch.__version__, "checks": [c._asdict() for c in checks]}
        )
    failed = sum(bool(check.problem) for check in checks)
    print(f"{len(checks)} checks, {failed} failed")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "device_arrays_check.py",
        "Checks frames of this project in PyTorch, and tensors of PyTorch in this project,\n"
        "through DLPack and __cuda_array_interface__, on two CUDA streams; needs no TensorRT.",
        "python3 tools/device_arrays_check.py --json device_arrays.json",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results of the checks")
    run_command(parser, _run, extra="export", argv=argv)


if __name__ == "__main__":
    main()
