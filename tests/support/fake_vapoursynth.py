"""A fake of VapourSynth for bench.alternatives.mlrt_worker; ONNX Runtime replaces vs-mlrt.

A test copies this file as vapoursynth.py into a folder of PYTHONPATH.
"""

from types import SimpleNamespace

import numpy as np

from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")

__version__ = "R0"
RGBS, GRAYS = 3, 1


class Frame(list):
    """Planes of float32."""

    def copy(self):
        return Frame(plane.copy() for plane in self)


class Clip:
    """A clip whose frames are computed when they are read."""

    def __init__(self, length, frame_of):
        self._length, self.frame_of = length, frame_of
        self.cached, self.read = True, False

    def __len__(self):
        return self._length

    def frames(self, close):
        assert close
        assert not (self.cached and self.read), "a second pass would come from the cache"
        self.read = True
        return (self.frame_of(n) for n in range(self._length))


def blank_clip(*, width, height, format, length, fpsnum, fpsden, color=0.0, keep=False):  # noqa: A002
    del fpsnum, fpsden, keep
    planes = Frame(np.full((height, width), color, np.float32) for _ in range(format))
    return Clip(length, lambda _: planes)


def modify_frame(clip, clips, selector):
    return Clip(len(clip), lambda n: selector(n, clips.frame_of(n)))


def model(clips, network_path):
    session = onnxruntime.InferenceSession(network_path)

    def made(n):
        planes = np.stack([plane for clip in clips for plane in clip.frame_of(n)])[np.newaxis]
        return Frame(session.run(None, {session.get_inputs()[0].name: planes})[0][0])

    return Clip(len(clips[0]), made)


def set_video_cache(clip, mode):
    clip.cached = mode != 0


plugin = SimpleNamespace(Model=model, Version=lambda: {"version": b"v0", "path": b"/secret"})
core = SimpleNamespace(
    ov=plugin,
    ort=plugin,
    num_threads=0,
    std=SimpleNamespace(
        BlankClip=blank_clip, ModifyFrame=modify_frame, SetVideoCache=set_video_cache
    ),
)
