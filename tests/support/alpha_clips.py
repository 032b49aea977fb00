"""Writes clips with an alpha channel, and decodes them without the code under test."""

from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame

SIZE = 48, 64
VP9 = {"auto-alt-ref": "0", "g": "10", "lossless": "1"}
LIBVPX = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def noise(fmt, seed, size=SIZE):
    """A frame of noise, also in its alpha; luma is within the limited range."""
    frame = VideoFrame(size[1], size[0], fmt)
    source = np.random.default_rng(seed)
    bits = frame.format.components[0].bits
    order = ">" if frame.format.is_big_endian else "<"
    for number, plane in enumerate(frame.planes):
        dtype = np.uint8 if bits <= 8 else np.uint16
        count = plane.buffer_size // dtype().itemsize
        low, high = (16, 236) if number == 0 and fmt.startswith("yuv") else (0, 256)
        values = source.integers(low << (bits - 8), high << (bits - 8), count, dtype)
        plane.update(values.astype(f"{order}u{values.itemsize}").tobytes())
    return frame


def layered(colour, alpha, fmt="rgba"):
    """A frame of RGB (H, W, 3) and alpha (H, W), uint8."""
    frame = VideoFrame.from_ndarray(np.dstack([colour, alpha]).astype(np.uint8), format="rgba")
    return frame if fmt == "rgba" else frame.reformat(format=fmt)


def write(path, frames, codec="ffv1", *, options=None, tags=(), rotation=0, **properties):
    """Writes frames at 25 a second; returns the path."""
    frames = list(frames)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt = frames[0].format.name
        for name, value in properties.items():
            setattr(stream.codec_context, name, value)
        stream.metadata.update(dict(tags))
        if rotation:
            stream.set_display_rotation(rotation)
        for number, frame in enumerate(frames):
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def write_noise(path, fmt="yuva420p", codec="ffv1", *, count=4, size=SIZE, **how):
    return write(path, [noise(fmt, number, size) for number in range(count)], codec, **how)


def coarse(seed, size=SIZE):
    """A yuva420p frame of coarse noise, which is small enough for libvpx's buffers."""
    frame = VideoFrame(size[1], size[0], "yuva420p")
    source = np.random.default_rng(seed)
    for number, plane in enumerate(frame.planes):
        low, high = (16, 236) if number == 0 else (0, 256)
        blocks = source.integers(
            low, high, (plane.height // 8 + 1, plane.line_size // 8 + 1), np.uint8
        )
        rows = blocks.repeat(8, 0).repeat(8, 1)[: plane.height, : plane.line_size]
        plane.update(np.ascontiguousarray(rows).tobytes())
    return frame


def write_vp9(path, count=4, *, size=SIZE, codec="libvpx-vp9", options=VP9, **how):
    """Writes a WebM with alpha, by default without loss."""
    frames = [coarse(number, size) for number in range(count)]
    return write(path, frames, codec, options=options, **how)


def write_pngs(folder, frames):
    """Writes PNG files of the format of each frame; returns the folder."""
    folder.mkdir()
    for number, frame in enumerate(frames):
        context = av.CodecContext.create("png", "w")
        context.width, context.height = frame.width, frame.height
        context.pix_fmt = frame.format.name
        context.time_base = Fraction(1, 25)
        context.thread_type = "SLICE"
        data = b"".join(map(bytes, [*context.encode(frame), *context.encode(None)]))
        (folder / f"{number:03}.png").write_bytes(data)
    return folder


def frames_of(path):
    """Decodes a video or an image, with alpha too."""
    with av.open(str(path)) as clip:
        stream = clip.streams.video[0]
        tags = {name.lower(): value for name, value in stream.metadata.items()}
        name = LIBVPX.get(stream.codec_context.name)
        if name is None or tags.get("alpha_mode") != "1":
            return list(clip.decode(stream))
        decoder = av.CodecContext.create(name, "r")
        return [frame for packet in clip.demux(stream) for frame in decoder.decode(packet)]


def samples(frame):
    """The bytes of each plane without its padding, as arrays."""
    wide = 2 if frame.format.components[0].bits > 8 else 1
    count = len(frame.format.components) if len(frame.planes) == 1 else 1
    return [
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[
            :, : plane.width * wide * count
        ]
        for plane in frame.planes
    ]


def colours(frame):
    """Samples without alpha: R, G, B or Y, U, V as arrays."""
    form = frame.format
    dtype = np.uint8 if form.components[0].bits <= 8 else np.uint16
    if form.is_planar or len(frame.planes) > 1:
        arrays = [
            np.frombuffer(p, dtype).reshape(p.height, -1)[:, : p.width] for p in frame.planes[:3]
        ]
        return [arrays[k] for k in (2, 0, 1)] if form.is_rgb else arrays
    order = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "ya": (0,), "gray": (0,)}
    (plane,) = frame.planes
    rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)
    picked = next(place for name, place in order.items() if form.name.startswith(name))
    count = form.padded_bits_per_pixel // (8 * dtype().itemsize)
    pixels = rows[:, : plane.width * count].reshape(plane.height, plane.width, count)
    return [pixels[..., k] for k in picked]


def alpha_of(frame):
    """The alpha samples (H, W) of a planar format, of 8 or 16 bits rgba, bgra or argb, or ya8."""
    dtype = np.dtype(np.uint8 if frame.format.components[0].bits <= 8 else np.uint16)
    dtype = dtype.newbyteorder(">" if frame.format.is_big_endian else "<")
    plane = frame.planes[-1]
    rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
    if len(frame.planes) > 1:
        return rows[:, : frame.width]
    count = len(frame.format.components)
    pixels = rows[:, : frame.width * count].reshape(frame.height, frame.width, count)
    return pixels[..., 0 if frame.format.name == "argb" else -1]


def metadata(path):
    """The tags of a file and of its video track, in lower case."""
    with av.open(str(path)) as clip:
        tags = {**clip.metadata, **clip.streams.video[0].metadata}
    return {name.lower(): value for name, value in tags.items()}
