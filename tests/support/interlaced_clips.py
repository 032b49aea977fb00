"""Writes small interlaced clips of a scene that moves, also telecined, and the original."""

from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame

SIZE = HEIGHT, WIDTH = 64, 96
RATE = Fraction(25)
FLAGS = {"flags": "+ildct+ilme"}


def scene(count, *, speed=4):
    """The luma of `count` progressive frames, which move `speed` pixels a frame."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return [
        (126 + 80 * np.sin((x + speed * k) / 7) * np.cos(y / 9)).astype(np.uint8)
        for k in range(count)
    ]


def luma(frame):
    plane = frame.planes[0]
    view = np.ndarray(
        (plane.height, plane.width), np.uint8, memoryview(plane), strides=(plane.line_size, 1)
    )
    return view.astype(int)


def psnr(one, other):
    return float(10 * np.log10(255**2 / max(np.mean((one - other.astype(int)) ** 2), 1e-9)))


def woven(count, *, top_first=True):
    """Luma of `count` frames, whose fields are the frames of a `scene` of twice as many."""
    frames = []
    for first, second in zip(scene(2 * count)[::2], scene(2 * count)[1::2], strict=True):
        frame = first.copy()
        frame[int(top_first) :: 2] = second[int(top_first) :: 2]
        frames.append(frame)
    return frames


def write_interlaced(
    path,
    count=12,
    *,
    codec="ffv1",
    options=None,
    top_first=True,
    progressive=(),
    stamps=None,
    rate=RATE,
    tick=None,
    tags=(),
    sound=False,
):
    """Writes a clip of interlaced frames; returns its path.

    `stamps` are the times of the frames in ticks of `tick`, by default 1 / `rate`. The frames with
    a number in `progressive` are those of the scene, and are marked so.
    """
    tick = tick or 1 / rate
    pictures = woven(count, top_first=top_first)
    whole = scene(2 * count)[::2]
    marks = {mark: _marking(mark) for mark in ("tff", "bff", "prog")}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options={**FLAGS, **(options or {})})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = tick
        for name, value in dict(tags).items():
            setattr(stream.codec_context, name, value)
        audio = out.add_stream("pcm_s16le", rate=48000) if sound else None
        for k in range(count):
            frame = _frame(whole[k] if k in progressive else pictures[k])
            order = "tff" if top_first else "bff"
            frame = marks["prog" if k in progressive else order](frame)
            frame.pts, frame.time_base = k if stamps is None else stamps[k], tick
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if audio is not None:
            silence = np.zeros((1, 2 * 48000 * count // int(rate)), np.int16)
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="stereo")
            frame.sample_rate, frame.pts = 48000, 0
            out.mux(audio.encode(frame))
    return path


def write_telecined(
    path, count=24, *, codec="ffv1", options=None, top_first=True, lost=(), form="yuv420p"
):
    """Writes `count` film frames of the `scene` as video with 3:2 pulldown; returns its path.

    The video has 30000/1001 frames a second, five for four film frames; those with a number in
    `lost` are left out.
    """
    graph = Graph()
    film, video = Fraction(24000, 1001), Fraction(30000, 1001)
    source = graph.add(
        "buffer",
        f"video_size={WIDTH}x{HEIGHT}:pix_fmt=yuv420p:time_base={1 / film}:frame_rate={film}",
    )
    first, order = ("top", "tff") if top_first else ("bottom", "bff")
    telecine = graph.add("telecine", f"pattern=23:first_field={first}")
    marked = graph.add("setfield", order)
    graph.link_nodes(source, telecine, marked, graph.add("buffersink")).configure()
    frames = []
    for k, picture in enumerate([*scene(count), None]):
        frame = None if picture is None else _frame(picture)
        if frame is not None:
            frame.pts, frame.time_base = k, 1 / film
        graph.push(frame)
        while True:
            try:
                frames.append(graph.pull())
            except (av.error.BlockingIOError, av.error.EOFError):
                break
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=video, options={**FLAGS, **(options or {})})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, form
        stream.codec_context.time_base = 1 / video
        for k, frame in enumerate(frames):
            if k not in lost:
                stored = frame.reformat(format=form)
                stored.pts, stored.time_base = k, 1 / video
                out.mux(stream.encode(stored))
        out.mux(stream.encode(None))
    return path


def _frame(luminance):
    """A gray frame."""
    frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
    for plane, samples in zip(frame.planes, (luminance, 128, 128), strict=True):
        np.ndarray(
            (plane.height, plane.width), np.uint8, memoryview(plane), strides=(plane.line_size, 1)
        )[:] = samples
    return frame


def _marking(order):
    """A function that marks frames as top field first, bottom field first or progressive."""
    graph = Graph()
    source = graph.add_buffer(
        width=WIDTH, height=HEIGHT, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 1000)
    )
    graph.link_nodes(source, graph.add("setfield", order), graph.add("buffersink")).configure()

    def marked(frame):
        graph.push(frame)
        return graph.pull()

    return marked
