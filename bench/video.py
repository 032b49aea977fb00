"""What the video pipeline reaches of its slower stage, with a model that costs nothing.

python -m bench.video --clip in.mp4
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from bench.environment import MeasurementError, write_evidence
from runtime import Interpolator, interpolate_video
from runtime.backends.base import HostBackend
from runtime.cli import command_parser, run_command
from runtime.manifest import ModelInfo
from runtime.media import Frame
from runtime.sink import open_sink
from runtime.source import open_source

_ROUNDS = 3
_FACTOR = 2


class PassThrough(HostBackend):
    """Gives the first frame back."""

    name = "pass-through"

    def __init__(self) -> None:
        self.info = ModelInfo(
            variant="none", weights_sha256="", precision="fp32", io="frames", divisor=16,
            flow_scale=1.0, time_steps="arbitrary", steps_per_call=1, pairs_per_call=1,
            height=None, width=None, warp="gridsample", tuned_for="any", tool_version="0",
        )  # fmt: skip

    def run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """See `HostBackend.run`."""
        del img1, timestep
        return img0.copy()

    def close(self) -> None:
        """See `Backend.close`."""


def decode(clip: Path) -> list[Frame]:
    """All frames of a clip; they are held, for `encode`."""
    with open_source(clip) as source:
        return [item for item in source if isinstance(item, Frame)]


def encode(clip: Path, frames: Sequence[Frame], out: Path) -> None:
    """Writes each frame twice, as the pipeline does, without any conversion."""
    with open_source(clip) as source:
        info = source.info
    with open_sink(out, like=info, rate=_FACTOR * info.rate, audio="none") as sink:
        for number in range(_FACTOR * len(frames)):
            sink.write(frames[number // _FACTOR].picture, number / (_FACTOR * info.rate))


def measure(clip: Path) -> dict[str, Any]:
    """Each stage alone and the whole, in turns.

    Args:
        clip: A video of which all frames fit into memory.

    Returns:
        "seconds" of each round of each, "frames" written, "new_frames_per_second" of medians,
        and "share": the whole's speed over that of its slower stage alone.

    Raises:
        VideoError: If the clip cannot be used.
    """
    frames = decode(clip)
    with tempfile.TemporaryDirectory() as folder, Interpolator(PassThrough()) as vfi:
        out = Path(folder) / f"out{clip.suffix}"
        stages: dict[str, Callable[[], object]] = {
            "decode": lambda: decode(clip),
            "encode": lambda: encode(clip, frames, out),
            "pipeline": lambda: interpolate_video(clip, out, model=vfi, factor=_FACTOR),
        }
        seconds: dict[str, list[float]] = {name: [] for name in stages}
        for number in range(1 + _ROUNDS):
            for name, stage in stages.items():
                started = time.perf_counter()
                stage()
                if number:  # The first round fills caches.
                    seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(rounds) for name, rounds in seconds.items()}
    written = _FACTOR * len(frames)
    first = frames[0].picture
    return {
        "clip": clip.name,
        "size": f"{first.height}x{first.width}",
        "pixel_format": first.format.name,
        "frames": written,
        "seconds": seconds,
        "frames_per_second": {name: written / value for name, value in median.items()},
        "share": max(median["decode"], median["encode"]) / median["pipeline"],
    }


def _measure(args: argparse.Namespace) -> None:
    record: dict[str, Any] = {
        "kind": "video",
        "format_version": 1,
        "what": "decoding, encoding and the whole pipeline with a model that costs nothing; "
        "frames a second are those written",
        "clips": [],
    }
    for clip in args.clip:
        if not clip.is_file():
            raise MeasurementError(f"{clip} does not exist: give a video file")
        measured = measure(clip)
        record["clips"].append(measured)
        speeds = ", ".join(
            f"{name} {fps:.1f}" for name, fps in measured["frames_per_second"].items()
        )
        print(
            f"{clip.name}, {measured['size']}: frames a second: {speeds}; "
            f"{measured['share']:.0%} of the slower stage alone"
        )
    if args.json is not None:
        write_evidence(args.json, record)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "python -m bench.video",
        "Measures the video pipeline against its stages, with a model that costs nothing.",
        "python -m bench.video --clip in.mp4 --json video.json",
    )
    parser.add_argument("--clip", nargs="+", required=True, type=Path, metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the evidence")
    run_command(parser, _measure, extra="video", argv=argv)


if __name__ == "__main__":
    main()
