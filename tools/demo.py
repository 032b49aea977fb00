"""The program of `make demo`: builds a model, interpolates a clip, and reports the parity.

Weights and clip are shipped. It uses the public commands and the public API, as a user's program.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from export.gate.compare import compare
from runtime import Interpolator
from runtime.frames import to_planes
from runtime.manifest import EngineManifest
from runtime.video.reading.tags import open_for_reading

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "tests" / "data" / "walk.mkv"
SHOWN = 14
"""Number of the first frame of the still; both hands move fast there."""


def run(*arguments: object) -> None:
    """Runs `python ARGUMENTS` in the checkout and shows its output."""
    print("$ python", *arguments, flush=True)
    subprocess.run([sys.executable, *map(str, arguments)], check=True, cwd=ROOT)


def shown_frames() -> list[NDArray[np.uint8]]:
    """The two frames of the clip for the still, uint8 RGB (480, 640, 3)."""
    with open_for_reading(str(CLIP)) as container:
        frames = itertools.islice(container.decode(video=0), SHOWN, SHOWN + 2)
        return [frame.to_ndarray(format="rgb24") for frame in frames]


def middle_of_pytorch(frame0: NDArray[np.uint8], frame1: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Makes the middle frame in PyTorch: uint8 RGB (H, W, 3)."""
    import torch

    from ifrnet_model import load_checkpoint

    planes = (torch.from_numpy(to_planes(frame, 16)) for frame in (frame0, frame1))
    with torch.inference_mode():
        middle = load_checkpoint("demo").network(*planes, torch.full((1, 1, 1, 1), 0.5))
    return np.rint(middle[0].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)


def psnr_of_uint8(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """PSNR in dB of two uint8 images."""
    decibels, _ = compare(image / np.float32(255), other / np.float32(255))
    return decibels


def main() -> None:
    """Builds, interpolates, measures and prints."""
    out = ROOT / "demo"
    out.mkdir(exist_ok=True)
    model, video, still = out / "ifrnet_small.onnx", out / "walk_60fps.mp4", out / "still.png"
    relative = [path.relative_to(ROOT) for path in (model, video, still, CLIP)]

    run(
        "-m", "export.build_engine", "--weights", "demo", "--backend", "onnxruntime",
        "--size", "480x640", "--output", relative[0],
    )  # fmt: skip
    run("-m", "runtime", relative[3], relative[1], "--model", relative[0], "--factor", "2")

    frame0, frame1 = shown_frames()
    with Interpolator.open(model) as vfi:
        middle = vfi.interpolate(frame0, frame1)
    image = np.concatenate((frame0, middle, frame1), axis=1)
    VideoFrame.from_ndarray(image, format="rgb24").save(str(still))

    rounded_db = psnr_of_uint8(middle_of_pytorch(frame0, frame1), middle)
    gate = EngineManifest.read(model).gate

    print()
    print(f"video   {relative[1]}: the clip at twice its frame rate")
    print(f"still   {relative[2]}: frame {SHOWN}, the new frame, frame {SHOWN + 1}")
    print(f"model   {relative[0]}, manifest beside it")
    print(
        f"parity  {gate.psnr_db:.1f} dB to PyTorch before rounding (lowest of the gate's cases), "
        f"{rounded_db:.1f} dB for the uint8 frame of the still"
    )


if __name__ == "__main__":
    main()
