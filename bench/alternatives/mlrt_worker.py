"""Runs a model in VapourSynth with a filter of vs-mlrt, in an interpreter that has both.

Imports nothing of this project. Reads frames and answers on standard input and output, see
`bench.alternatives.mlrt`:

    python mlrt_worker.py ov|ort MODEL.onnx FRAMES.npy OUTPUT.npy THREADS
"""

import json
import sys
import time
from typing import Any

import numpy as np
import vapoursynth as vs


def rgb_clip(planes: Any, rate: int) -> Any:
    """A clip of float frames.

    Args:
        planes: float32 (N, 3, H, W) in [0, 1].
        rate: Frame rate in frames per second.

    Returns:
        A vapoursynth.VideoNode in RGBS.
    """
    count, _, height, width = planes.shape
    blank = vs.core.std.BlankClip(
        width=width, height=height, format=vs.RGBS, length=count, fpsnum=rate, fpsden=1
    )

    def filled(n: int, f: Any) -> Any:
        frame = f.copy()
        for plane in range(3):
            np.asarray(frame[plane])[:] = planes[n, plane]
        return frame

    return vs.core.std.ModifyFrame(blank, blank, filled)


def main() -> None:
    """Answers each line of standard input with the time of one pass."""
    name, model, frames, output, threads = sys.argv[1:]
    vs.core.num_threads = int(threads)
    given = np.load(frames).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    height, width = given.shape[2:]
    first, second = rgb_clip(given[:-1], 30), rgb_clip(given[1:], 30)
    timestep = vs.core.std.BlankClip(
        width=width, height=height, format=vs.GRAYS, length=len(first), fpsnum=30, fpsden=1,
        color=0.5, keep=True,
    )  # fmt: skip
    plugin = getattr(vs.core, name)
    new = plugin.Model([first, second, timestep], network_path=model)
    vs.core.std.SetVideoCache(new, mode=0)  # A second pass would take its frames from the cache.
    version = {
        key: value.decode() if isinstance(value, bytes) else value
        for key, value in plugin.Version().items()
        if key != "path"
    }
    print(json.dumps({"vapoursynth": str(vs.__version__), **version}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        images = [
            np.stack([np.asarray(frame[plane]) for plane in range(3)], -1)
            for frame in new.frames(close=True)
        ]
        seconds = time.perf_counter() - started
        np.save(output, np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8))
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
