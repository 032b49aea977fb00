"""What tools/gpu_check.py does with PyTorch: random weights, the plain export, baselines on CUDA.

python tools/gpu_check_torch.py weights --variant base --output base.pth
python tools/gpu_check_torch.py export --weights base.pth --size 720x1280 --output plain.onnx
python tools/gpu_check_torch.py time --weights base.pth --run authors_fp32 --json times.json
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import onnx
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.environment import MeasurementError, write_evidence  # noqa: E402
from bench.reference import authors_forward, load_reference, random_network  # noqa: E402
from bench.turns import summary  # noqa: E402
from export.errors import ExportError  # noqa: E402
from export.graph import OPSET, lower_opset  # noqa: E402
from export.verify import compare, moving_frames  # noqa: E402
from export.wrapper import ExportOptions, wrap  # noqa: E402
from ifrnet_model import VARIANTS, IFRNet, IFRNetConfig  # noqa: E402
from runtime.cli import command_parser, parse_size, run_command  # noqa: E402
from runtime.files import written_beside  # noqa: E402
from runtime.frames import to_planes  # noqa: E402
from runtime.manifest import file_sha256  # noqa: E402

RUNS = (
    "authors_fp32",
    "authors_tf32",
    "authors_half",
    "authors_half_channels_last",
    "authors_autocast",
    "ours_fp16",
    "ours_fp16_channels_last",
    "ours_fp16_compiled",
    "authors_autocast_compiled",
    "matmul_peak",
)
"""half: `model.half()`, grid and all; autocast: float16 convolutions and a float32 grid."""

_WARM_UP = 10
_MATRIX = 8192

Forward = Callable[[Tensor, Tensor, Tensor], Tensor]


class Authors(nn.Module):
    """The authors' formulation as a module, which exporters and compilers want."""

    def __init__(self, weights: dict[str, Tensor], config: IFRNetConfig) -> None:
        super().__init__()
        self.names = {name: name.replace(".", "_") for name in weights}
        self.config = config
        for name, tensor in weights.items():
            self.register_buffer(self.names[name], tensor.detach().clone())

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
        """See `authors_forward`."""
        weights = {name: getattr(self, buffer) for name, buffer in self.names.items()}
        return authors_forward(weights, self.config, img0, img1, timestep)


def _weights(args: argparse.Namespace) -> None:
    with written_beside(args.output) as beside:
        torch.save(random_network(args.variant).state_dict(), beside)
    print(f"{args.output}: {args.variant}, random, sha256 {file_sha256(args.output)}")


def _export(args: argparse.Namespace) -> None:
    """As anyone would: torch.onnx.export of the published formulation.

    By the dynamo exporter, for the older one says sizes in float64, which runtimes refuse. It ends
    at opset 18; the few attributes that TensorRT 8.6 does not know are said as in 17. Nothing else
    is rewritten.
    """
    network = load_reference(args.weights).network
    module = Authors(network.state_dict(), network.config).eval()
    image = torch.zeros(1, 3, *args.size)
    with torch.inference_mode():
        program = torch.onnx.export(
            module,
            (image, image.clone(), torch.full((1, 1, 1, 1), 0.5)),
            input_names=["img0", "img1", "timestep"],
            output_names=["imgt"],
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    lower_opset(model)
    with written_beside(args.output) as beside:
        onnx.save(model, beside)
    print(
        f"{args.output}: torch {torch.__version__}, dynamo exporter, opset {OPSET}, "
        f"{len(model.graph.node)} nodes, sha256 {file_sha256(args.output)}"
    )


def _time(args: argparse.Namespace) -> None:
    if not torch.cuda.is_available():
        raise MeasurementError(f"PyTorch {torch.__version__} sees no GPU: use a build with CUDA")
    record: dict[str, Any] = {
        "what": "one pair from planes to planes on the GPU, CUDA events around each call",
        "run": args.run,
        "gpu": torch.cuda.get_device_name(),
        "torch": {"version": torch.__version__, "cuda": torch.version.cuda},
        "cudnn": torch.backends.cudnn.version(),
    }
    if args.run == "matmul_peak":
        record |= _matmul_peak(args.samples)
    else:
        if args.weights is None:
            raise MeasurementError("--run needs --weights: give the checkpoint, or demo")
        record |= {"size": f"{args.size[0]}x{args.size[1]}", "weights": file_of(args.weights)}
        record |= _pair(args.run, args.weights, args.size, args.samples)
    print(f"{args.run}: p50 {record['milliseconds']['p50']:.3f} ms")
    if args.json is not None:
        write_evidence(args.json, record)


def file_of(weights: str) -> dict[str, str]:
    """Name and hash of a checkpoint."""
    return {"name": Path(weights).name, "sha256": load_reference(weights).sha256}


def _matmul_peak(samples: int) -> dict[str, Any]:
    a, b = (torch.randn(_MATRIX, _MATRIX, device="cuda", dtype=torch.float16) for _ in range(2))
    ms = _event_times(lambda: torch.matmul(a, b), samples)
    tflops = [2 * _MATRIX**3 / (one * 1e9) for one in ms]
    return {
        "milliseconds": summary([one / 1e3 for one in ms]),
        "samples": ms,
        "tflops": {"p50": statistics.median(tflops), "best": max(tflops)},
        "matrix": _MATRIX,
    }


@torch.inference_mode()
def _pair(name: str, weights: str, size: tuple[int, int], samples: int) -> dict[str, Any]:
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    network = load_reference(weights).network
    frames = moving_frames(*size, 16.0)
    planes = [torch.from_numpy(to_planes(frame, 16)).cuda() for frame in frames]
    inputs = (*planes, torch.full((1, 1, 1, 1), 0.5, device="cuda"))
    authors = Authors(network.state_dict(), network.config).eval().cuda()
    with torch.device("cuda"):  # The published grid is made where tensors are made by default.
        expected = authors(*inputs).float().cpu().numpy()
        started = time.perf_counter()
        forward, inputs, made_by = _run(name, network, authors, inputs)
        try:
            made = forward(*inputs).float().cpu().numpy()
            ready = time.perf_counter() - started
            ms = _event_times(lambda: forward(*inputs), samples)
        finally:
            torch.set_default_dtype(torch.float32)
    psnr, _ = compare(expected, made)
    return {
        "milliseconds": summary([one / 1e3 for one in ms]),
        "samples": ms,
        "psnr_db": psnr if math.isfinite(psnr) else None,
        "finite": psnr > -math.inf,
        "reference": "authors' formulation in float32 on the same GPU, without TF32",
        "how": made_by,
        "seconds_to_first_result": ready,
        "gpu_memory_bytes": torch.cuda.max_memory_allocated(),
    }


def _run(
    name: str, network: IFRNet, authors: Authors, inputs: tuple[Tensor, ...]
) -> tuple[Forward, tuple[Tensor, ...], str]:
    """The function to time, its inputs, and how it came about."""
    if name == "authors_fp32":
        return authors, inputs, "as published"
    if name == "authors_tf32":
        torch.backends.cudnn.allow_tf32 = True
        return authors, inputs, "as published, cudnn.allow_tf32, which is PyTorch's default"
    last = torch.channels_last
    if name.startswith("authors_half"):
        # `grid.to(img)` of the published code: the grid is float16 too.
        torch.set_default_dtype(torch.float16)
        authors, inputs = authors.half(), tuple(tensor.half() for tensor in inputs)
        if name.endswith("channels_last"):
            authors = authors.to(memory_format=last)
            inputs = (*(image.to(memory_format=last) for image in inputs[:2]), inputs[2])
        return authors, inputs, "model.half(), the grid in float16 as the published code makes it"
    if name.startswith("authors_autocast"):

        def autocast(img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
            with torch.autocast("cuda", torch.float16):
                return authors(img0, img1, timestep)

        if name.endswith("compiled"):
            return _compiled(autocast), inputs, "torch.autocast, torch.compile(max-autotune)"
        return autocast, inputs, "torch.autocast: float16 convolutions, float32 grid"
    options = ExportOptions(
        height=inputs[0].shape[2], width=inputs[0].shape[3], io="float", precision="fp16"
    )
    ours: Any = wrap(network, options).cuda()
    how = "our module: float16 convolutions, float32 islands"
    if name == "ours_fp16":
        return ours, inputs, how
    # Frames stay as they are: our module makes its own tensors of them.
    ours = ours.to(memory_format=last)
    inputs = (*(image.to(memory_format=last) for image in inputs[:2]), inputs[2])
    how += ", channels_last"
    if name == "ours_fp16_compiled":
        return _compiled(ours), inputs, f"{how}, torch.compile(max-autotune)"
    return ours, inputs, how


def _compiled(function: Any) -> Forward:
    compiled: Forward = torch.compile(function, mode="max-autotune", fullgraph=False)
    return compiled


def _event_times(call: Callable[[], object], samples: int) -> list[float]:
    """Milliseconds of each call on the GPU."""
    for _ in range(_WARM_UP):
        call()
    events = []
    for _ in range(samples):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        events.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python tools/gpu_check_torch.py",
        "What tools/gpu_check.py does with PyTorch.",
        "python tools/gpu_check_torch.py weights --variant base --output base.pth",
    )
    commands = parser.add_subparsers(required=True)
    weights = commands.add_parser("weights", help="random weights from a fixed seed")
    weights.add_argument("--variant", required=True, choices=tuple(VARIANTS))
    weights.add_argument("--output", required=True, type=Path, metavar="FILE.pth")
    weights.set_defaults(command=_weights)
    plain = commands.add_parser("export", help="the authors' formulation, exported as it is")
    plain.add_argument("--output", required=True, type=Path, metavar="FILE.onnx")
    plain.set_defaults(command=_export)
    timed = commands.add_parser("time", help="PyTorch with CUDA")
    timed.add_argument("--run", required=True, choices=RUNS)
    timed.add_argument("--samples", type=int, default=100, metavar="N")
    timed.add_argument("--json", type=Path, metavar="FILE")
    timed.set_defaults(command=_time)
    for each in (plain, timed):
        each.add_argument("--weights", required=each is plain, metavar="FILE")
        each.add_argument("--size", type=parse_size, default=(720, 1280), metavar="HxW")
    run_command(
        parser, lambda args: args.command(args), extra="export", expected=(ExportError,), argv=argv
    )


if __name__ == "__main__":
    main()
