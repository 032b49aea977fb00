"""Times a plain ONNX export in TensorRT beside an engine of ours, in turns in one process.

    python tools/gpu_check_plain.py --onnx plain.onnx --engine model.engine --json plain.json

The plain file goes through TensorRT as anyone would send it: parsed, the FP16 flag set, built. It
is not gated; its PSNR is recorded.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.environment import MeasurementError, write_evidence  # noqa: E402
from bench.turns import flat, parts_in_turns, ratio, summary, warm_up  # noqa: E402
from export.errors import ExportError  # noqa: E402
from export.verify import compare, moving_frames  # noqa: E402
from runtime.backends.base import OpenOptions, open_backend  # noqa: E402
from runtime.backends.cuda import Cuda, Graph, Pool, Stream, host_view  # noqa: E402
from runtime.backends.onnx_file import read_self_contained  # noqa: E402
from runtime.backends.trt import TensorRTBackend  # noqa: E402
from runtime.backends.trt_engine import gpu_at, import_tensorrt, logger_for  # noqa: E402
from runtime.cli import command_parser, run_command  # noqa: E402
from runtime.frames import to_planes  # noqa: E402
from runtime.manifest import file_sha256  # noqa: E402
from runtime.telemetry import import_quietly  # noqa: E402

Array = NDArray[np.float32]


class PlainEngine:
    """An engine from an ONNX file with float32 inputs and one output, all of fixed shapes."""

    def __init__(self, path: Path) -> None:
        content = read_self_contained(path)
        gpu_at(0)  # Before TensorRT, which crashes where there is no driver.
        trt = import_tensorrt()
        self.cuda = Cuda(0)
        self._log = logger_for(trt)
        started = time.perf_counter()
        builder = trt.Builder(self._log)
        flags = trt.NetworkDefinitionCreationFlag
        explicit = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
        network = builder.create_network(explicit)
        parser = trt.OnnxParser(network, self._log)
        if not parser.parse(content):
            said = "; ".join(str(parser.get_error(k)) for k in range(parser.num_errors))
            raise ExportError(f"TensorRT {trt.__version__} cannot parse {path.name}: {said}")
        config = builder.create_builder_config()
        # Gone in TensorRT 11, where a float32 file is computed in float32.
        self.has_float16 = hasattr(trt.BuilderFlag, "FP16")
        if self.has_float16:
            config.set_flag(trt.BuilderFlag.FP16)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise ExportError(f"TensorRT cannot build it: {'; '.join(self._log.errors)}")
        self.build_seconds = time.perf_counter() - started
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(bytes(plan))
        self._context = self._engine.create_execution_context()
        self.stream = Stream(self.cuda)
        self._device = Pool(self.cuda, pinned=False)
        self._pinned = Pool(self.cuda, pinned=True)
        names = [self._engine.get_tensor_name(k) for k in range(self._engine.num_io_tensors)]
        self._shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in names}
        self._buffers = {n: self._device.take(4 * math.prod(s)) for n, s in self._shapes.items()}
        for name, buffer in self._buffers.items():
            self._context.set_tensor_address(name, buffer.pointer)
        self._graph: Graph | None = None

    def infer(self, inputs: dict[str, Array]) -> Array:
        """Runs on `inputs` by name, which stay on the GPU; the output."""
        for name, array in inputs.items():
            if self._shapes.get(name) != array.shape:
                raise MeasurementError(
                    f"{name} of the plain file is {self._shapes.get(name)}, not {array.shape}"
                )
            self._copied(name, array)
        self._enqueue()
        return self._copied("imgt", None)

    def timed(self, *, graph: bool) -> dict[str, float]:
        """Milliseconds of one inference, of two that are queued together the second."""
        queue = self._replay if graph else self._enqueue
        queue()  # Keeps the GPU busy until the host has queued the next with its events.
        start = self.stream.record(timed=True)
        queue()
        end = self.stream.record(timed=True)
        self.stream.synchronize()
        return {"compute": end.milliseconds_since(start)}

    def close(self) -> None:
        """Frees everything."""
        if self._graph is not None:
            self._graph.close()
        self._context = None
        self.stream.close()
        for buffer in self._buffers.values():
            self._device.give_back(buffer)
        self._device.close()
        self._pinned.close()
        self._engine = None
        self._runtime = None

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self.stream.handle):
            raise MeasurementError(f"the plain engine failed: {'; '.join(self._log.errors)}")

    def _replay(self) -> None:
        if self._graph is None:
            self._enqueue()
            self.stream.synchronize()
            with self.cuda.capture(self.stream) as captured:
                self._enqueue()
            (self._graph,) = captured
        self._graph.launch(self.stream)

    def _copied(self, name: str, array: Array | None) -> Array:
        """Sends `array` up or, without one, brings the tensor down; waits."""
        buffer = self._buffers[name]
        staging = self._pinned.take(buffer.size)
        view = host_view(staging, self._shapes[name], np.dtype(np.float32))
        ends, kind = (staging.pointer, buffer.pointer), "DeviceToHost"
        if array is not None:
            np.copyto(view, array)
            ends, kind = (buffer.pointer, staging.pointer), "HostToDevice"
        self.cuda.copy(self.stream, *ends, buffer.size, kind)
        self.stream.synchronize()
        made: Array = view.copy()
        self._pinned.give_back(staging)
        return made


def _reference(path: Path, inputs: dict[str, Array]) -> Array:
    onnxruntime = import_quietly("onnxruntime")
    content = read_self_contained(path)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    made: Array = session.run(["imgt"], inputs)[0]
    return made


def _measure(args: argparse.Namespace) -> None:
    with open_backend(args.engine, OpenOptions()) as ours:
        assert isinstance(ours, TensorRTBackend)
        frames = moving_frames(*ours.best_size, 16.0)
        middle = np.full((1, 1, 1, 1), 0.5, np.float32)
        planes = [to_planes(frame, 16) for frame in frames]
        inputs = {"img0": planes[0], "img1": planes[1], "timestep": middle}
        plain = PlainEngine(args.onnx)
        psnr, largest = compare(_reference(args.onnx, inputs), plain.infer(inputs))
        images = [f[None] for f in frames] if ours.info.io == "frames" else planes
        runs: dict[str, Callable[[], dict[str, float]]] = {
            "ours": lambda: {"compute": ours.timed(images[0], images[1], middle)["compute"]},
            "plain": lambda: plain.timed(graph=False),
            "plain with CUDA graph": lambda: plain.timed(graph=True),
        }
        for run in runs.values():
            warm_up(run)
        measured = parts_in_turns(runs, samples=args.samples)
        plain.close()
    rounds = {name: parts["compute"] for name, parts in measured.items()}
    samples = {name: flat(ms) for name, ms in rounds.items()}
    record: dict[str, Any] = {
        "what": "time of the network on the GPU, without copies to and from the host, in turns; "
        "ours takes and gives frames of bytes, which it pads and converts, the plain one floats",
        "plain": {
            "onnx": args.onnx.name,
            "sha256": file_sha256(args.onnx),
            "fp16_flag": plain.has_float16,
            "build_seconds": plain.build_seconds,
            "psnr_db": psnr if math.isfinite(psnr) else None,
            "finite": psnr > -math.inf,
            "max_difference": largest if math.isfinite(largest) else None,
            "reference": "the same file in ONNX Runtime in float32",
        },
        "ours": {"engine": args.engine.name, "sha256": file_sha256(args.engine)},
        "milliseconds": {n: summary([one / 1e3 for one in ms]) for n, ms in samples.items()},
        "plain_over_ours": {
            name: ratio(ms, rounds["ours"]) for name, ms in rounds.items() if name != "ours"
        },
        "samples": rounds,
    }
    for name, figures in record["milliseconds"].items():
        print(f"{name}: compute p50 {figures['p50']:.3f} ms")
    print(f"the plain engine is {psnr:.1f} dB from float32")
    if args.json is not None:
        write_evidence(args.json, record)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python tools/gpu_check_plain.py",
        "Times a plain ONNX export in TensorRT beside an engine of ours.",
        "python tools/gpu_check_plain.py --onnx plain.onnx --engine model.engine",
    )
    parser.add_argument("--onnx", required=True, type=Path, metavar="FILE")
    parser.add_argument("--engine", required=True, type=Path, metavar="FILE")
    parser.add_argument("--samples", type=int, default=100, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    run_command(parser, _measure, extra="build", expected=(ExportError,), argv=argv)


if __name__ == "__main__":
    main()
