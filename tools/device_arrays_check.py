"""GPU arrays between this project and a real PyTorch, in both directions, without TensorRT.

python3 tools/device_arrays_check.py --json device_arrays.json

For a machine where TensorRT and PyTorch are installed in two Pythons: it runs in the one with
PyTorch, which also needs NumPy and cuda-bindings (PyTorch 2.10 and later brings the latter).
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
from runtime.cli import command_parser, run_command  # noqa: E402
from runtime.errors import FrameError  # noqa: E402

SHAPE = (130, 190, 3)
DTYPES = ("uint8", "uint16", "float16", "float32")
BUSY_CYCLES = 200_000_000
"""How long the stream that writes is kept busy before it writes: about 0.1 s on a GPU of today."""
TRIES = 3
"""The first use of a kernel loads it, which may wait for all streams; later ones do not."""


class Check(NamedTuple):
    """One line of the result; `problem` is empty where it passed."""

    name: str
    problem: str


class Machine:
    """PyTorch's CUDA and ours in one process, each with a stream of its own."""

    def __init__(self, torch: Any) -> None:
        self.torch, self.cuda = torch, Cuda(0)
        self.theirs, self.stream = torch.cuda.Stream(), Stream(self.cuda)
        self.ours = torch.cuda.ExternalStream(int(self.stream.handle))
        self._device, self._pinned = (BufferPool(self.cuda, pinned=p) for p in (False, True))
        self.frames, self.released = 0, 0

    def frame(self, values: NDArray[Any]) -> DeviceFrame:
        """A frame that our stream writes, once it is done with what it is busy with."""
        source, memory = (p.take(values.nbytes) for p in (self._pinned, self._device))
        np.copyto(host_view(source, values.shape, values.dtype), values)
        # The pool's memory may hold the same values: a reader that is too early must see others.
        self.cuda.call("cudaMemsetAsync", memory.pointer, 0, memory.size, self.stream.handle)
        self.stream.synchronize()
        self.keep_busy(self.ours)
        self.cuda.copy(self.stream, memory.pointer, source.pointer, values.nbytes, "HostToDevice")
        ready = self.stream.record()
        self.frames += 1

        def wait(other: int) -> None:
            self.cuda.call("cudaStreamWaitEvent", other, ready.handle, 0)

        def release() -> None:  # Its readers have been waited for.
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
        """A tensor that `stream` writes, once it is done with what it is busy with."""
        self._source = self.torch.from_numpy(values).cuda()  # Must outlive the copy.
        tensor = self.zeros(values)
        self.torch.cuda.synchronize()
        self.keep_busy(stream)
        with self.torch.cuda.stream(stream):
            return tensor.copy_(self._source, non_blocking=True)

    def zeros(self, like: NDArray[Any]) -> Any:
        """A tensor on the GPU, made by a copy, for PyTorch has few kernels for uint16."""
        return self.torch.from_numpy(np.zeros_like(like)).cuda()

    def keep_busy(self, stream: Any) -> None:
        """Delays what is queued on `stream` from now on."""
        with self.torch.cuda.stream(stream):
            self.torch.cuda._sleep(BUSY_CYCLES)

    def copied(self, view: DeviceView) -> NDArray[Any]:
        """What our stream reads from an array of PyTorch."""
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
    """A tensor without its `__cuda_array_interface__`."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **asked: Any) -> Any:
        return self._tensor.__dlpack__(**asked)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


def picture(dtype: str) -> NDArray[Any]:
    """Values that differ from element to element and are exact in each type."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 251).astype(dtype)


def frame_to_torch(machine: Machine, values: NDArray[Any], stream: Any, take: Any) -> bool:
    """Our frame, read by PyTorch on `stream`; whether that had to wait for the content.

    Raises:
        MeasurementError: If PyTorch sees another array than ours.
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


def tensor_to_us(machine: Machine, values: NDArray[Any], stream: Any, given: Any) -> bool:
    """PyTorch's tensor, written on `stream`, read on ours; whether ours had to wait for it.

    Raises:
        MeasurementError: If we see another array than PyTorch's.
    """
    tensor = machine.tensor(values, stream)
    with machine.torch.cuda.stream(stream):
        view = device_view(given(tensor), stream=int(machine.stream.handle), name="tensor")
    waited = not stream.query()
    made = machine.copied(view)
    expect("pointer", view.pointer, tensor.data_ptr())
    expect("shape", view.shape, tuple(tensor.shape))
    expect("type", f"torch.{view.dtype}", str(tensor.dtype))
    expect("device", view.device, 0 if given is DLPackOnly else None)
    expect("stream", view.stream, None)  # PyTorch names none.
    expect("number of wrong values", np.count_nonzero(made != values), 0)
    return waited


def expect(what: str, found: object, expected: object) -> None:
    """Compares.

    Raises:
        MeasurementError: If the two differ.
    """
    if found != expected:
        raise MeasurementError(f"the {what} is {found}, not {expected}")


def transfers(machine: Machine) -> Iterator[Check]:
    """Each type, each protocol, each direction, while the stream that writes is busy."""
    torch, ours = machine.torch, machine.ours
    theirs, default = machine.theirs, torch.cuda.default_stream()

    def by_interface(frame: DeviceFrame) -> Any:
        return torch.as_tensor(frame, device="cuda")

    # With __cuda_array_interface__ PyTorch neither names a stream nor waits for the one that is
    # named: both sides must use the same.
    ways: tuple[tuple[str, Any, Any, Any], ...] = (
        ("from_dlpack, another stream", frame_to_torch, theirs, torch.from_dlpack),
        ("from_dlpack, default stream", frame_to_torch, default, torch.from_dlpack),
        ("from_dlpack, the same stream", frame_to_torch, ours, torch.from_dlpack),
        ("as_tensor, the same stream", frame_to_torch, ours, by_interface),
        ("device_view by DLPack, another stream", tensor_to_us, theirs, DLPackOnly),
        ("device_view by DLPack, default stream", tensor_to_us, default, DLPackOnly),
        ("device_view by interface, the same stream", tensor_to_us, ours, lambda tensor: tensor),
    )
    for name, transfer, stream, way in ways:
        for dtype in DTYPES:
            yield Check(f"{name}, {dtype}", problem(transfer, machine, dtype, stream, way))


def problem(transfer: Any, machine: Machine, dtype: str, stream: Any, way: Any) -> str:
    """Why a transfer failed; empty if it was right and had to wait for the stream that writes."""
    try:
        for _ in range(TRIES):
            if transfer(machine, picture(dtype), stream, way):
                return ""
    except Exception as error:  # Whatever one check raises, the others are of use.
        return f"{type(error).__name__}: {error}"
    return f"the content was complete at once in {TRIES} tries: no order was shown"


def refusals(machine: Machine) -> Iterator[Check]:
    """Tensors that are no frames are refused with a reason."""
    plain = machine.torch.from_numpy(picture("float32"))
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
        for protocol, given in (("interface", tensor), ("DLPack", DLPackOnly(tensor))):
            found = "it was taken"
            try:
                device_view(given, stream=int(machine.stream.handle), name="frame0")
            except Exception as error:  # As above.
                expected = isinstance(error, FrameError) and reason in str(error)
                found = "" if expected else f"{type(error).__name__}: {error}"
            yield Check(f"refused by {protocol}: {name}", found)


def releases(machine: Machine) -> Iterator[Check]:
    """After the other checks no frame is in use any more."""
    made, released = machine.frames, machine.released
    found = "" if made == released else f"{released} of {made} frames were released"
    yield Check("memory is released", found)


def run_checks(torch: Any) -> list[Check]:
    """All checks, each printed as soon as it is known.

    Raises:
        MeasurementError: If this PyTorch has no GPU.
    """
    if not torch.cuda.is_available():
        raise MeasurementError(
            f"PyTorch {torch.__version__} finds no CUDA GPU here: "
            "run this with a PyTorch built for CUDA on a machine with a GPU"
        )
    machine = Machine(torch)
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
        "Frames of this project given to PyTorch, and tensors of PyTorch taken by it, through\n"
        "DLPack and __cuda_array_interface__, on two CUDA streams; needs no TensorRT.",
        "python3 tools/device_arrays_check.py --json device_arrays.json",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the checks here")
    run_command(parser, _run, extra="export", argv=argv)


if __name__ == "__main__":
    main()
