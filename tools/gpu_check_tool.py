"""The steps of tools/gpu_check.py for which the project has no command; each runs in a process.

python tools/gpu_check_tool.py weights --variant base --output base.pth
python tools/gpu_check_tool.py frames --weights small.pth base.pth --size 720x1280 --output p.npz
python tools/gpu_check_tool.py pair --model model.engine --pair p.npz --json psnr.json
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.environment import MeasurementError, write_evidence  # noqa: E402
from bench.quality.metrics import psnr  # noqa: E402
from runtime import Interpolator  # noqa: E402
from runtime.backends.base import OpenOptions  # noqa: E402
from runtime.backends.registry import open_backend  # noqa: E402
from runtime.cli.arguments import parse_size  # noqa: E402
from runtime.cli.command import command_parser, run_command  # noqa: E402
from runtime.errors import InterpolationError  # noqa: E402
from runtime.files import written_beside  # noqa: E402

CLIP, FRAME = ROOT / "export" / "gate" / "frames" / "walk.mkv", 14
"""The demo's clip, and the frame after which both hands move fast."""

ENGINE_MODES: dict[str, dict[str, Any]] = {
    "CUDA graph": {}, "no CUDA graph": {"cuda_graph": False}, "two streams": {"streams": 2},
}  # fmt: skip
"""Name -> options of `Interpolator.open`."""


def weights(args: argparse.Namespace) -> None:
    """Writes the demo weights for small, and random weights for other variants."""
    import torch

    from bench.runs.authors import load_reference, random_network

    demo = args.variant == "small"
    network = load_reference("demo").network if demo else random_network(args.variant)
    with written_beside(args.output) as temporary:
        torch.save(network.state_dict(), temporary)
    print(f"{args.output.name}: {'the demo weights' if demo else 'RANDOM weights, for speed only'}")


def frames(args: argparse.Namespace) -> None:
    """Writes two frames of a video, scaled to --size, and the frame of each network between them.

    PyTorch computes it on the CPU in float32; it is rounded to uint8 (H, W, 3).
    """
    import torch

    from bench.runs.authors import load_reference
    from runtime.frames import from_planes, to_planes
    from runtime.video.reading.tags import open_for_reading

    height, width = args.size
    with open_for_reading(str(CLIP)) as container:
        read = itertools.islice(container.decode(video=0), FRAME, FRAME + 2)
        scaled = [frame.reformat(width=width, height=height, format="rgb24") for frame in read]
    images = [frame.to_ndarray() for frame in scaled]
    planes = [torch.from_numpy(to_planes(image, 16)) for image in images]
    arrays = {"img0": images[0], "img1": images[1]}
    for network in (load_reference(path).network for path in args.weights):
        with torch.inference_mode():
            middle = network(*planes, torch.full((1, 1, 1, 1), 0.5))[0].numpy()
        arrays[network.config.variant] = from_planes(middle, images[0], 16)
    with written_beside(args.output) as temporary:
        np.savez(temporary, **arrays)


def pair(args: argparse.Namespace) -> None:
    """Measures the PSNR of each model's frame to that of PyTorch, both as uint8; null if equal.

    Engines run with and without a CUDA graph and with two streams, and must make equal frames.

    Raises:
        MeasurementError: If a model fails or its frames differ; the evidence is written before.
    """
    arrays, reports, problems = np.load(args.pair), {}, []
    for path in args.model:
        engine = path.suffix == ".engine"
        frames: list[Any] = []
        report = reports[path.name] = {"layers": layers_by_type(path) if engine else None}
        for mode, options in ENGINE_MODES.items() if engine else [("session", {})]:
            try:
                with Interpolator.open(path, device=args.device, **options) as vfi:
                    frames += [vfi.interpolate(arrays["img0"], arrays["img1"]) for _ in range(3)]
                    report |= {"backend": vfi.backend, mode: "equal"}
                if not all(np.array_equal(frame, frames[0]) for frame in frames):
                    report[mode] = "frames of one pair differ"
            except InterpolationError as error:
                report[mode] = str(error)
            if report[mode] != "equal":
                problems.append(f"{path.name}, {mode}: {report[mode]}")
        if frames:
            db = psnr(frames[0] / 255, arrays[vfi.info.variant] / 255)
            report["psnr_db"] = db if math.isfinite(db) else None
            print(f"{path.name}: {db:.2f} dB to float32 PyTorch")
    write_evidence(args.json, {"models": reports})
    if problems:
        raise MeasurementError(problems[0])


def layers_by_type(path: Path) -> dict[str, int] | str:
    """The number of layers of each type in an engine, or why the engine inspector has none."""
    from export.trt.inspector import InspectorError, count_layer_types, parse_layers

    backend: Any = open_backend(path, OpenOptions())
    with backend:
        try:
            return count_layer_types(parse_layers(backend.engine.layers()))
        except InspectorError as error:
            return str(error)


def main() -> None:
    """The command line."""
    parser = command_parser(
        "python tools/gpu_check_tool.py", "Steps of tools/gpu_check.py: weights, frames and pair."
    )
    commands = {command.__name__: command for command in (weights, frames, pair)}
    parser.add_argument("command", choices=tuple(commands))
    parser.add_argument("--variant", help="weights: small, base or large")
    parser.add_argument(
        "--weights", nargs="+", metavar="FILE", help="frames: checkpoints to compute a frame with"
    )
    parser.add_argument("--size", type=parse_size, metavar="HxW", help="frames: size of the frames")
    parser.add_argument(
        "--model", nargs="+", type=Path, metavar="FILE", help="pair: models to measure"
    )
    parser.add_argument("--pair", type=Path, metavar="FILE.npz", help="pair: the output of frames")
    parser.add_argument("--device", metavar="NAME", help="pair: device (default: the backend's)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="weights, frames: the file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="pair: the results")
    run_command(parser, lambda args: commands[args.command](args), extra="export")


if __name__ == "__main__":
    main()
