"""Writes small clips for the tests of reading and writing videos, and decodes clips."""

import contextlib
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame

RATE = Fraction(25)
SUBTITLES = ((0, 200, "one"), (300, 400, "two"))


def pictures(count, *, size=(48, 64), fmt="yuv420p", seed=0):
    """Frames of coarse noise, each different from the others."""
    height, width = size
    rng = np.random.default_rng(seed)
    ground = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2 + count, 3), dtype=np.uint8)
    for k in range(count):
        part = np.repeat(np.repeat(ground[:, k : k + width // 8 + 2], 8, 0), 8, 1)
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(part[:height, :width]), format="rgb24")
        yield frame.reformat(format=fmt)


def write(
    path,
    count=12,
    *,
    size=(48, 64),
    fmt="yuv420p",
    seed=0,
    codec=None,
    options=None,
    rate=RATE,
    stamps=None,
    audio=None,
    audio_start=0,
    audio_first=False,
    audio_seconds=None,
    subtitles=None,
    cues=SUBTITLES,
    tags=(),
    sar=None,
    rotation=0,
    metadata=(),
    languages=(),
    titles=(),
    chapters=(),
    video_tracks=1,
    cover=False,
    container_options=None,
    format=None,  # noqa: A002
):
    """Writes a clip with the given tracks and tags; returns its path.

    `stamps` are the times of the frames in milliseconds; without them the frames follow `rate`.
    """
    default = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
    with av.open(str(path), "w", format=format, container_options=container_options or {}) as out:
        videos = []
        sound = _sound_stream(out, audio) if audio and audio_first else None
        for number in range(video_tracks):
            stream = out.add_stream(codec or default, rate=rate, options=options or {})
            stream.width, stream.height, stream.pix_fmt = size[1] + 16 * number, size[0], fmt
            stream.codec_context.time_base = Fraction(1, 1000) if stamps else 1 / rate
            for name, value in dict(tags).items():
                setattr(stream.codec_context, name, value)
            if sar:
                stream.codec_context.sample_aspect_ratio = sar
            if rotation:
                stream.set_display_rotation(rotation)
            if titles:
                stream.metadata["title"] = titles[0]
            videos.append(stream)
        if audio and not audio_first:
            sound = _sound_stream(out, audio)
        if sound is not None and languages:
            sound.metadata["language"] = languages[0]
        if sound is not None and titles:
            sound.metadata["title"] = titles[1]
        words = None
        if subtitles:
            words = out.add_mux_stream(subtitles)
            words.time_base = Fraction(1, 1000)
            if languages:
                words.metadata["language"] = languages[1]
        if cover:
            out.add_attachment("cover.png", "image/png", png())
        out.metadata.update(dict(metadata))
        if chapters:
            out.set_chapters(
                [
                    {"id": n, "start": a, "end": b, "time_base": Fraction(1, 1000),
                     "metadata": {"title": title}}
                    for n, (a, b, title) in enumerate(chapters, 1)
                ]
            )  # fmt: skip
        for number, stream in enumerate(videos):
            frames = pictures(count, size=(size[0], size[1] + 16 * number), fmt=fmt, seed=seed)
            for k, frame in enumerate(frames):
                frame.pts = stamps[k] if stamps else k
                frame.time_base = stream.codec_context.time_base
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        if sound is not None:
            seconds = count / rate if audio_seconds is None else audio_seconds
            _sound(out, sound, seconds, audio_start)
        if words is not None:
            for start, end, text in cues:
                packet = av.Packet(text.encode())
                packet.pts = packet.dts = start
                packet.duration = end - start
                packet.time_base = Fraction(1, 1000)
                packet.stream = words
                out.mux(packet)
    return path


def _sound_stream(out, audio):
    # FFmpeg's own encoder of Vorbis counts as experimental; wmav2 does not open without a rate.
    options = {"strict": "experimental"} if audio == "vorbis" else {}
    sound = out.add_stream(audio, rate=48000, options=options)
    if audio == "wmav2":
        sound.bit_rate = 128000
    return sound


def _sound(out, sound, seconds, start):
    resampler = av.AudioResampler(
        format=sound.codec_context.format.name, layout="stereo", rate=48000
    )
    total, at = round(seconds * 48000), 0
    while at < total:
        n = min(1024, total - at)
        wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(at, at + n) / 48000)
        frame = av.AudioFrame.from_ndarray(
            np.stack([wave, wave]).astype(np.float32), format="fltp", layout="stereo"
        )
        frame.sample_rate, frame.pts = 48000, at + round(start * 48000)
        frame.time_base = Fraction(1, 48000)
        for made in resampler.resample(frame):
            out.mux(sound.encode(made))
        at += n
    out.mux(sound.encode(None))


def copied(path, out, change, *, kind="video"):
    """Copies the packets of a clip to another file; returns its path.

    `change(number, packet)` returns the packets of one kind of track as they are written, or None.
    """
    with av.open(str(path)) as read, av.open(str(out), "w") as written:
        streams = {s.index: written.add_stream_from_template(s) for s in read.streams}
        number = 0
        for packet in read.demux():
            if not packet.size:
                continue
            target = streams[packet.stream.index]
            if packet.stream.type == kind:
                packet = change(number, packet)
                number += 1
            if packet is not None:
                packet.stream = target
                written.mux(packet)
    return out


def noisy(packet):
    """A packet with the stamps of another one and noise in place of its content."""
    noise = np.random.default_rng(packet.size).integers(0, 256, packet.size, dtype=np.uint8)
    broken = av.Packet(noise.tobytes())
    broken.pts, broken.dts, broken.duration = packet.pts, packet.dts, packet.duration
    broken.time_base = packet.time_base
    return broken


def write_changing_aspect(path, aspects, each=6):
    """Writes `each` frames for each pixel aspect ratio, which only the codec declares."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg2video", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspects[0]
        for number, aspect in enumerate(aspects):
            coder = av.CodecContext.create("mpeg2video", "w")
            coder.width, coder.height, coder.pix_fmt = 64, 48, "yuv420p"
            coder.time_base, coder.framerate = 1 / RATE, RATE
            coder.sample_aspect_ratio = aspect
            frames = list(pictures(each, seed=number))
            for k, frame in enumerate(frames):
                frame.pts, frame.time_base = number * each + k, 1 / RATE
            for packet in [p for frame in [*frames, None] for p in coder.encode(frame)]:
                packet.stream = stream
                out.mux(packet)
    return path


def png():
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = 16, 16, "rgb24"
    context.time_base = Fraction(1, 25)
    context.thread_type = "SLICE"
    picture = VideoFrame.from_ndarray(np.full((16, 16, 3), 90, np.uint8), format="rgb24")
    return b"".join(map(bytes, context.encode(picture)))


def frames_of(path):
    with av.open(str(path)) as clip:
        return list(clip.decode(video=0))


def times_of(path):
    return [frame.pts * Fraction(frame.time_base) for frame in frames_of(path)]


def planes(frame):
    """All samples of a frame. Works for every format; PyAV's `to_ndarray` does not."""
    wide = 2 if frame.format.components[0].bits > 8 else 1
    return np.concatenate(
        [
            np.frombuffer(plane, np.uint8)
            .reshape(-1, plane.line_size)[: plane.height, : plane.width * wide]
            .copy()
            .view(np.uint16 if wide == 2 else np.uint8)
            .ravel()
            for plane in frame.planes
        ]
    )


def arrays_of(path):
    return [planes(frame) for frame in frames_of(path)]


def packets_of(path, index):
    """(time in seconds, bytes) of each packet of a track."""
    with av.open(str(path)) as clip:
        return [
            (p.pts * Fraction(p.time_base), bytes(p))
            for p in clip.demux(clip.streams[index])
            if p.size
        ]


def samples_of(path):
    """(time of the first sample in seconds, samples) of the first audio track."""
    with av.open(str(path)) as clip:
        frames = []
        with contextlib.suppress(av.error.EOFError):
            frames = list(clip.decode(audio=0))
        step = 1 if frames[0].format.is_planar else len(frames[0].layout.channels)
        sound = np.concatenate([frame.to_ndarray()[0, ::step] for frame in frames])
        return frames[0].pts * Fraction(frames[0].time_base), sound
