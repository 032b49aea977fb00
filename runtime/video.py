"""A video file at a multiple of its frame rate: decode, interpolate, encode, two frames at a time.

Frames that exist pass from decoder to encoder as they are; only new frames go through RGB.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from runtime.backends.base import BackendName
from runtime.colour import frame_from_rgb, matrix_of, range_of, reformatted, rgb_from_frame
from runtime.errors import VideoError
from runtime.files import written_beside
from runtime.interpolator import Interpolator
from runtime.timeline import on_grid, output_time_base, times_between

_CODECS = {".webm": "libvpx-vp9"}
_DEFAULT_CODEC = "libx264"
_SUFFIXES = (".mp4", ".mkv", ".mov", ".m4v", ".webm")
_CRF = 16
Progress = Callable[[int, int | None], None]
"""Called with the input frames done and, where it is known, how many there are."""


@dataclass(frozen=True)
class VideoReport:
    """What was done.

    Attributes:
        frames_in: Frames decoded.
        frames_out: Frames written.
        rate: Nominal frames a second of the output.
        seconds: How long it took.
        backend: What ran the model.
        notes: What the user should know: what was dropped, skipped or changed.
    """

    frames_in: int
    frames_out: int
    rate: Fraction
    seconds: float
    backend: str
    notes: list[str] = field(default_factory=list)


def interpolate_video(
    source: str | Path,
    destination: str | Path,
    *,
    model: str | Path | Interpolator,
    factor: int = 2,
    backend: BackendName | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> VideoReport:
    """Writes `source` to `destination` at `factor` times its frame rate and the same speed.

    The video track alone is written. Variable gaps are cut evenly, each at its own times; the
    last frame is held for as long as it was shown. Memory does not grow with the clip.

    Args:
        source: Any video file that FFmpeg reads.
        destination: .mp4, .mkv, .mov, .m4v or .webm; written beside and renamed.
        model: A model file, or an Interpolator that stays open.
        factor: New frame rate over old, 2 or more; 2^k with weights that know the midpoint only.
        backend: See `Interpolator.open`.
        device: See `Interpolator.open`.
        threads: See `Interpolator.open`.
        progress: Called after each input frame.

    Raises:
        VideoError: If the source has no frames or the destination cannot be written.
        FrameError: If the factor is not possible or the frames do not fit the model.
        ModelError: If the model cannot be opened.
        BackendError: If the backend is not available or fails.
    """
    source, destination = Path(source), Path(destination)
    _check_paths(source, destination)
    started = time.perf_counter()
    with ExitStack() as stack:
        if isinstance(model, Interpolator):
            vfi = model
        else:
            opened = Interpolator.open(model, backend=backend, device=device, threads=threads)
            vfi = stack.enter_context(opened)
        if not vfi.steps_for_factor(factor):
            raise VideoError(f"factor is {factor}: it is 2 or more")
        job = _Job(vfi, factor, progress)
        container = stack.enter_context(_open_source(source))
        beside = stack.enter_context(written_beside(destination))
        job.run(container, beside, source)
    return VideoReport(
        job.frames_in,
        job.frames_out,
        job.rate,
        time.perf_counter() - started,
        vfi.backend,
        job.notes,
    )


def _check_paths(source: Path, destination: Path) -> None:
    if not source.is_file():
        raise VideoError(f"{source} does not exist: give a video file")
    if not destination.parent.is_dir():
        raise VideoError(f"{destination.parent} is no folder: create it first")
    if destination.suffix.lower() not in _SUFFIXES:
        raise VideoError(
            f"{destination.name} has no suffix of a video: use one of {', '.join(_SUFFIXES)}"
        )
    if destination.exists() and destination.samefile(source):
        raise VideoError(f"{destination} is the input itself: write to another file")


def _open_source(source: Path) -> Any:
    try:
        return av.open(str(source))
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(
            f"{source} cannot be read as a video ({_reason(error)}): "
            "it is damaged or of a kind that FFmpeg does not know"
        ) from error


class _Job:
    """One conversion: its counters and what the frames need on their way."""

    def __init__(self, vfi: Interpolator, factor: int, progress: Progress | None) -> None:
        self.vfi = vfi
        self.factor = factor
        self.progress = progress
        self.frames_in = 0
        self.frames_out = 0
        self.rate = Fraction(0)
        self.notes: list[str] = []

    def run(self, container: Any, destination: Path, source: Path) -> None:
        stream = _video_stream(container, source)
        rate = Fraction(stream.guessed_rate or stream.average_rate or 25)
        self.rate = rate * self.factor
        if others := [s.type for s in container.streams if s.type in ("audio", "subtitle")]:
            self.notes.append(f"not carried over: {', '.join(others)}")
        shown = self._interpolated(self._timed(stream, container, rate))
        first = next(shown, None)
        if first is None:
            raise VideoError(f"{source} has no frame that can be decoded: it is damaged or empty")
        try:
            with av.open(str(destination), "w") as output:
                encoder = _Encoder(output, first[1], self, stream.sample_aspect_ratio)
                encoder.write(*first)
                for moment, frame in shown:
                    encoder.write(moment, frame)
                encoder.flush()
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(
                f"{destination.name} could not be written ({_reason(error)}): check free space, "
                "and whether the container takes this size and format"
            ) from error

    def _timed(
        self, stream: Any, container: Any, rate: Fraction
    ) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Decoded frames with exact, rising times; what cannot be decoded is counted and noted."""
        tick = Fraction(stream.time_base)
        start: Fraction | None = None
        last: Fraction | None = None
        skipped = 0
        total = stream.frames or None
        for frame in _decoded(container, stream):
            if frame is None:
                skipped += 1
                continue
            moment = None if frame.pts is None else frame.pts * tick
            if moment is None or (last is not None and moment <= last):
                moment = Fraction(0) if last is None else last + 1 / rate
            start = moment if start is None else start
            exact = on_grid(moment, start=start, rate=rate, tick=tick)
            moment = exact if last is None or exact > last else moment
            self.frames_in += 1
            yield moment, frame
            if self.progress is not None:
                self.progress(self.frames_in, total)
            last = moment
        if skipped:
            self.notes.append(f"skipped as damaged: {skipped} packets")

    def _interpolated(
        self, frames: Iterator[tuple[Fraction, VideoFrame]]
    ) -> Iterator[tuple[Fraction, VideoFrame]]:
        """The frames with new ones between them; the last is held until its time is over."""
        steps = self.vfi.steps_for_factor(self.factor)
        previous: tuple[Fraction, VideoFrame, NDArray[Any]] | None = None
        gap = 1 / (self.rate / self.factor)
        for moment, frame in frames:
            picture = rgb_from_frame(frame, self._depth(frame))
            if previous is not None:
                before, _, picture0 = previous
                if picture0.shape != picture.shape:
                    raise VideoError(
                        f"the frame size changes from {picture0.shape[1]}x{picture0.shape[0]} to "
                        f"{picture.shape[1]}x{picture.shape[0]}: cut the file there first"
                    )
                made = self.vfi.interpolate(picture0, picture, timesteps=steps)
                moments = times_between(before, moment, self.factor)
                for at, new in zip(moments, made, strict=True):
                    yield at, frame_from_rgb(new, like=frame)
                gap = moment - before
            yield moment, frame
            previous = moment, frame, picture
        if previous is not None:
            moment, frame, _ = previous
            for at in times_between(moment, moment + gap, self.factor):
                yield at, frame

    def _depth(self, frame: VideoFrame) -> int:
        """Bits of the RGB that the model sees: 16 where source and model have more than 8."""
        bits = frame.format.components[0].bits
        if bits <= 8 or self.vfi.info.io == "float":
            return 8 if bits <= 8 else 16
        note = (
            f"the new frames were made from 8 of {bits} bit: use a model exported with --io float "
            "to keep them all"
        )
        if note not in self.notes:
            self.notes.append(note)
        return 8


class _Encoder:
    """The output's video stream; made when the first frame is known."""

    def __init__(self, output: Any, frame: VideoFrame, job: _Job, aspect: Fraction | None) -> None:
        suffix = Path(output.name).suffix.lower()
        codec = _CODECS.get(suffix, _DEFAULT_CODEC)
        self.job = job
        self.output = output
        self.tick = output_time_base(job.rate / job.factor, job.factor)
        self.start: Fraction | None = None
        self.stream = output.add_stream(codec, rate=job.rate, options={"crf": str(_CRF)})
        context = self.stream.codec_context
        context.width, context.height = frame.width, frame.height
        context.time_base = self.stream.time_base = self.tick
        self.format = context.pix_fmt = _encoded_format(frame, codec)
        context.color_range = range_of(frame) if frame.format.is_rgb else frame.color_range
        context.colorspace = matrix_of(frame) if frame.format.is_rgb else frame.colorspace
        context.color_primaries = frame.color_primaries
        context.color_trc = frame.color_trc
        if aspect:
            context.sample_aspect_ratio = aspect
        if codec == "libvpx-vp9":
            context.bit_rate = 0  # or crf is only an upper bound
        if frame.rotation:
            self.stream.set_display_rotation(frame.rotation)
        if self.format != frame.format.name:
            job.notes.append(f"written as {self.format}, the source is {frame.format.name}")

    def write(self, moment: Fraction, frame: VideoFrame) -> None:
        if self.start is None:
            self.start = moment
        if frame.format.name != self.format:
            frame = reformatted(frame, self.format, frame)
        frame.pts = round((moment - self.start) / self.tick)
        frame.time_base = self.tick
        frame.pict_type = 0  # the encoder decides, not the source
        for packet in self.stream.encode(frame):
            self.output.mux(packet)
        self.job.frames_out += 1

    def flush(self) -> None:
        for packet in self.stream.encode(None):
            self.output.mux(packet)


def _video_stream(container: Any, source: Path) -> Any:
    if not container.streams.video:
        raise VideoError(f"{source} has no video track: give a file with moving pictures")
    stream = container.streams.best("video")
    stream.thread_type = "SLICE"  # frame threads lose good frames behind a damaged packet
    return stream


def _decoded(container: Any, stream: Any) -> Iterator[VideoFrame | None]:
    """Frames in order; None for a packet that cannot be decoded."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except av.error.FFmpegError:
            yield None
            continue
        yield from frames


def _encoded_format(frame: VideoFrame, codec: str) -> str:
    """The pixel format to write: the source's, where the encoder and the size allow it."""
    name = str(frame.format.name)
    offered = {f.name for f in av.Codec(codec, "w").video_formats or []}
    if name not in offered:
        name = "yuv420p"
    if codec == _DEFAULT_CODEC and "420" in name and (frame.width % 2 or frame.height % 2):
        name = name.replace("420", "444")  # H.264 has no odd sizes with halved chroma
    return name


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
