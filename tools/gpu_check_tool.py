"""What tools/gpu_check.py runs besides the project's commands; each in a process of its own.

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
from runtime.cli import command_parser, parse_size, run_command  # noqa: E402
from runtime.errors import InterpolationError  # noqa: E402
from runtime.files import written_beside  # noqa: E402

CLIP, FRAME = ROOT / "tests" / "data" / "walk.mkv", 14
"""The demo's clip; both hands move fast between this frame and the next."""

OF_ENGINES: dict[str, dict[str, Any]] = {
    "CUDA graph": {}, "no CUDA graph": {"cuda_graph": False}, "two streams": {"streams": 2},
}  # fmt: skip


def weights(args: argparse.Namespace) -> None:
    """The demo weights of small; of another variant random ones, for speed and parity alone."""
    import torch

    from bench.runs.authors import load_reference, random_network

    demo = args.variant == "small"
    network = load_reference("demo").network if demo else random_network(args.variant)
    with written_beside(args.output) as beside:
        torch.save(network.state_dict(), beside)
    print(f"{args.output.name}: {'the demo weights' if demo else 'RANDOM weights, for speed only'}")


def frames(args: argparse.Namespace) -> None:
    """Two frames of a video scaled to the size, and what each network makes between them.

    PyTorch computes it on the CPU in float32; the new frame is rounded to bytes.
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
    found = {"img0": images[0], "img1": images[1]}
    for network in (load_reference(path).network for path in args.weights):
        with torch.inference_mode():
            made = network(*planes, torch.full((1, 1, 1, 1), 0.5))[0].numpy()
        found[network.config.variant] = from_planes(made, images[0], 16)
    with written_beside(args.output) as beside:
        np.savez(beside, **found)


def pair(args: argparse.Namespace) -> None:
    """PSNR of each model's frame to that of PyTorch, both as bytes; null where they are equal.

    Engines run with and without a CUDA graph and with two streams, and must make equal frames.
    """
    given, found, wrong = np.load(args.pair), {}, []
    for path in args.model:
        engine = path.suffix == ".engine"
        made: list[Any] = []
        said = found[path.name] = {"layers": layers_by_type(path) if engine else None}
        for name, options in OF_ENGINES.items() if engine else [("session", {})]:
            try:
                with Interpolator.open(path, device=args.device, **options) as vfi:
                    made += [vfi.interpolate(given["img0"], given["img1"]) for _ in range(3)]
                    said |= {"backend": vfi.backend, name: "equal"}
                if not all(np.array_equal(frame, made[0]) for frame in made):
                    said[name] = "frames of one pair differ"
            except InterpolationError as error:
                said[name] = str(error)
            wrong += [f"{path.name}, {name}: {said[name]}"] if said[name] != "equal" else []
        if made:
            db = psnr(made[0] / 255, given[vfi.info.variant] / 255)
            said["psnr_db"] = db if math.isfinite(db) else None
            print(f"{path.name}: {db:.2f} dB to float32 PyTorch")
    write_evidence(args.json, {"models": found})
    if wrong:
        raise MeasurementError(wrong[0])


def layers_by_type(path: Path) -> dict[str, int] | str:
    """How many layers of each type an engine has, or why the engine inspector does not tell."""
    from export.trt.inspector import InspectorError, layer_types, layers_of

    backend: Any = open_backend(path, OpenOptions())
    with backend:
        try:
            return layer_types(layers_of(backend.engine.layers()))
        except InspectorError as error:
            return str(error)


def main() -> None:
    """The command line."""
    parser = command_parser("python tools/gpu_check_tool.py", "Parts of tools/gpu_check.py.")
    commands = {command.__name__: command for command in (weights, frames, pair)}
    parser.add_argument("command", choices=tuple(commands))
    parser.add_argument("--variant", help="weights: small, base or large")
    parser.add_argument("--weights", nargs="+", metavar="FILE", help="frames: checkpoints")
    parser.add_argument("--size", type=parse_size, metavar="HxW", help="frames: their size")
    parser.add_argument("--model", nargs="+", type=Path, metavar="FILE", help="pair: models")
    parser.add_argument("--pair", type=Path, metavar="FILE.npz", help="pair: made by frames")
    parser.add_argument("--device", metavar="NAME", help="pair: default is the backend's own")
    parser.add_argument("--output", type=Path, metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    run_command(parser, lambda args: commands[args.command](args), extra="export")


if __name__ == "__main__":
    main()
