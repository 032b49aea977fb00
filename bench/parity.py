"""How far an artefact is from PyTorch on the frames of a real clip.

python -m bench.parity --model model.onnx --weights demo --clip in.mp4
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bench.environment import MeasurementError, write_evidence
from runtime import Interpolator
from runtime.cli import command_parser, parse_size, run_command
from runtime.frames import from_planes, to_planes
from runtime.manifest import ModelInfo, file_sha256

Pair = tuple[NDArray[Any], NDArray[Any]]


def psnr(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """PSNR in dB, of uint8 in 0..255 or of float in [0, 1]; inf where they are identical."""
    peak = 255.0 if reference.dtype == np.uint8 else 1.0
    error = float(np.square((reference.astype(np.float64) - candidate) / peak).mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def clip_pairs(clip: Path, size: tuple[int, int], limit: int) -> Iterator[Pair]:
    """The first `limit` pairs of consecutive frames, resized to (height, width), uint8 RGB."""
    import av

    with av.open(str(clip)) as container:
        frames = (
            frame.reformat(width=size[1], height=size[0], format="rgb24").to_ndarray()
            for frame in container.decode(video=0)
        )
        yield from itertools.islice(itertools.pairwise(frames), limit)


def _reference(network: Any, info: ModelInfo) -> Callable[[NDArray[Any], NDArray[Any]], Any]:
    """float32 PyTorch as a function of two frames, rounded where the frames are bytes."""
    import torch

    middle = torch.full((1, 1, 1, 1), 0.5)

    def interpolate(frame0: NDArray[Any], frame1: NDArray[Any]) -> NDArray[Any]:
        planes = (torch.from_numpy(to_planes(f, info.divisor)) for f in (frame0, frame1))
        with torch.inference_mode():
            imgt = network(*planes, middle, info.flow_scale)
        return from_planes(imgt[0].numpy(), frame0, info.divisor)

    return interpolate


def _check_weights(found: str, info: ModelInfo, *, force: bool) -> None:
    if found != info.weights_sha256 and not force:
        raise MeasurementError(
            f"the model was made from weights {info.weights_sha256[:12]}, --weights are "
            f"{found[:12]}: give the same file, or --force to compare all the same"
        )


def _measure(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from bench.reference import load_reference

    checkpoint = load_reference(args.weights)
    records = []
    for path in args.model:
        with Interpolator.open(path) as vfi:
            size = vfi.info.size or args.size
            _check_weights(checkpoint.sha256, vfi.info, force=args.force)
            reference = _reference(checkpoint.network, vfi.info)
            as_float = vfi.info.io == "float"
            found = []
            pairs = clip_pairs(args.clip, size, args.limit)
            for pair in tqdm(pairs, total=args.limit, unit="pair", disable=None, leave=False):
                frame0, frame1 = ((f / np.float32(255)) if as_float else f for f in pair)
                made = vfi.interpolate(frame0, frame1)
                found.append(psnr(reference(frame0, frame1), made))
            if not found:
                raise MeasurementError(f"{args.clip} has no two frames: give a longer clip")
            worst = int(np.argmin(found))
            kind = "floats" if as_float else "bytes"
            print(
                f"{path.name}: {len(found)} pairs at {size[0]}x{size[1]}, {kind}: "
                f"mean {np.mean(found):.1f} dB, worst {found[worst]:.1f} dB (pair {worst})"
            )
            records.append(
                {
                    "artefact": path.name,
                    "sha256": file_sha256(path),
                    "variant": vfi.info.variant,
                    "precision": vfi.info.precision,
                    "io": vfi.info.io,
                    "tuned_for": vfi.info.tuned_for,
                    "size": f"{size[0]}x{size[1]}",
                    "compared": kind,
                    "mean_db": float(np.mean(found)),
                    "worst_db": found[worst],
                    "psnr_db": found,
                }
            )
    if args.json is not None:
        record = {
            "what": "artefact against float32 PyTorch, middle frames of consecutive frames",
            "clip": {"name": args.clip.name, "sha256": file_sha256(args.clip)},
            "weights": str(args.weights),
            "artefacts": records,
        }
        write_evidence(args.json, record)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m bench.parity",
        "Compares artefacts with float32 PyTorch on the frames of a clip.",
        "python -m bench.parity --model model.onnx --weights demo --clip in.mp4",
    )
    parser.add_argument("--model", required=True, nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint, or demo")
    parser.add_argument("--clip", required=True, type=Path, metavar="VIDEO")
    parser.add_argument(
        "--size",
        type=parse_size,
        default=(256, 448),
        metavar="HxW",
        help="where the model's is free",
    )
    parser.add_argument("--limit", type=int, default=10, metavar="N", help="pairs (default 10)")
    parser.add_argument("--force", action="store_true", help="compare with other weights too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence")
    run_command(parser, _measure, extra="export", argv=argv)


if __name__ == "__main__":
    main()
