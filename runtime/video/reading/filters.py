"""Makes progressive frames of interlaced ones while a video is decoded, with FFmpeg's filters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Literal

import av
from av.filter import Graph
from av.video.frame import VideoFrame

from runtime.errors import VideoError
from runtime.video.reading.rate import FilmRate, NominalRate

Deinterlace = Literal["frame", "field", "film"]
"""One progressive frame for each interlaced one, one for each of its two fields, or the film frames
of telecined video."""

_CYCLE = 5
"""Frames of video that 3:2 pulldown makes of four film frames."""

_FILM = _CYCLE - 1


def deinterlacer(mode: Deinterlace, nominal: NominalRate) -> FrameFilter:
    """The filter for a mode, before the first frame.

    Args:
        mode: See `Deinterlace`.
        nominal: The nominal rate of the source.

    Raises:
        VideoError: If this FFmpeg lacks a filter, or the rate is not that of telecined film.
    """
    if mode != "film":
        return Deinterlacer(mode, nominal.rate)
    return (
        FilmRetimer(nominal.rate) if isinstance(nominal, FilmRate) else FilmRestorer(nominal.rate)
    )


class FrameFilter(ABC):
    """Makes progressive frames at the right times.

    Attributes:
        factor: Frames for each frame of the source.
        ticks: The tick of the stamps is that of the source divided by this number.
    """

    factor: Fraction
    ticks: int

    @abstractmethod
    def restart(self) -> None:
        """Starts again after a seek."""

    @abstractmethod
    def filtered(self, frames: Iterable[VideoFrame], *, last: bool) -> Iterator[VideoFrame]:
        """Yields the frames that are complete after these.

        Args:
            frames: The next frames, in order of presentation.
            last: Whether the source ends with them.

        Raises:
            VideoError: If a filter does not take the pixel format.
        """


class _GraphFilter(FrameFilter):
    """Passes frames through a filter graph, which is created again where their format changes."""

    def __init__(self, filters: tuple[tuple[str, str], ...], rate: Fraction) -> None:
        """Sets the filters.

        Args:
            filters: Names and options of the filters, in order.
            rate: Nominal frames a second of the source.

        Raises:
            VideoError: If this FFmpeg lacks a filter.
        """
        for name, _ in filters:
            if name not in av.filter.filters_available:
                raise VideoError(
                    f"this FFmpeg has no filter {name}: install PyAV from PyPI, or leave "
                    "deinterlace out"
                )
        self._filters = filters
        self._rate = rate
        self._graph: Graph | None = None
        self._key: tuple[str, int, int] | None = None

    def restart(self) -> None:
        """Starts again after a seek."""
        self._graph = None

    def filtered(self, frames: Iterable[VideoFrame], *, last: bool) -> Iterator[VideoFrame]:
        """Yields the frames that are complete after these, which are not changed."""
        for frame in frames:
            yield from self._after(frame)
        if last:
            yield from self._flushed()

    @abstractmethod
    def _entered(self, frame: VideoFrame) -> None:
        """Notes a frame that enters the graph."""

    @abstractmethod
    def _pulled(self) -> Iterator[VideoFrame]:
        """Yields the frames that the graph has ready, with the times of the source."""

    def _after(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        key = frame.format.name, frame.width, frame.height
        if self._graph is not None and key != self._key:
            yield from self._flushed()
        if self._graph is None:
            self._graph, self._key = self._created(frame), key
        self._entered(frame)
        self._graph.push(frame)
        yield from self._pulled()

    def _flushed(self) -> Iterator[VideoFrame]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pulled()
        self._graph = None

    def _created(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        # `decimate` needs the frame rate, which `Graph.add_buffer` does not take.
        source = graph.add(
            "buffer",
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:"
            f"time_base={Fraction(frame.time_base or 1)}:frame_rate={self._rate}",
        )
        steps = [graph.add(name, options) for name, options in self._filters]
        graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
        return graph

    def _ready(self) -> Iterator[VideoFrame]:
        """Yields the frames that the graph has ready, as they are."""
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(frame, VideoFrame)
            yield frame


class Deinterlacer(_GraphFilter):
    """Deinterlaces with FFmpeg's bwdif; frames that are not interlaced pass unchanged.

    The order of the fields is the one that each frame declares. With "field" the second field of a
    frame is shown half-way to the next frame; the last one half of the previous gap after the
    first field. At a gap of more than two nominal frames, where frames are missing, it is shown
    half a nominal frame after the first.
    """

    def __init__(self, mode: Literal["frame", "field"], rate: Fraction) -> None:
        """Starts before the first frame.

        Args:
            mode: "frame" or "field".
            rate: Nominal frames a second of the source.

        Raises:
            VideoError: If this FFmpeg has no bwdif.
        """
        self.ticks = 2 if mode == "field" else 1
        self.factor = Fraction(self.ticks)
        super().__init__((("bwdif", f"mode=send_{mode}:parity=auto:deint=interlaced"),), rate)
        self._stamps: deque[int] = deque()  # Of the frames in the filter, in half ticks.
        self._shown: int | None = None
        self._to_drop = 0

    def restart(self) -> None:
        """Starts again after a seek; the next frame is used as the one before its successor only.

        A deinterlaced frame depends on the frame before it, which the first one after a seek lacks.
        """
        super().restart()
        self._stamps.clear()
        self._shown = None
        self._to_drop = 2  # bwdif returns a frame when its successor comes.

    def _entered(self, frame: VideoFrame) -> None:
        if frame.pts is not None:
            self._stamps.append(2 * frame.pts)

    def _pulled(self) -> Iterator[VideoFrame]:
        keep = self._to_drop == 0
        for frame in self._ready():
            self._set_times(frame)
            if keep:
                yield frame
        self._to_drop -= not keep

    def _set_times(self, frame: VideoFrame) -> None:
        """Corrects the times of a frame of bwdif, which counts in half ticks of the source."""
        tick = Fraction(frame.time_base or 1)
        if self.ticks == 1:
            frame.pts = None if frame.pts is None else frame.pts // 2
            frame.duration //= 2
            frame.time_base = 2 * tick
        elif frame.pts is not None and self._stamps and frame.pts == self._stamps[0]:
            self._shown = self._stamps.popleft()
        elif frame.pts is not None and self._shown is not None:  # A second field.
            frames_missing = (frame.pts - self._shown) * tick > 1 / self._rate
            if frames_missing:
                frame.pts = self._shown + round(1 / (2 * self._rate) / tick)


class FilmRestorer(_GraphFilter):
    """Restores the frames of film that 3:2 pulldown turned into interlaced video (telecine).

    FFmpeg's fieldmatch puts the fields of each film frame together again, bwdif deinterlaces the
    frames that remain combed, as at an edit of the video, and decimate drops the most similar of
    five frames. The four others are shown at equal distances.
    """

    def __init__(self, rate: Fraction) -> None:
        """Starts before the first frame.

        Args:
            rate: Nominal frames a second of the source.

        Raises:
            VideoError: If the rate is not 29.97 or 30, or this FFmpeg lacks a filter.
        """
        if not 29 <= rate <= 31:
            raise VideoError(
                f"telecined film has 29.97 or 30 frames a second, and this video {float(rate):g}: "
                "use --deinterlace frame or field, or leave it out"
            )
        self.ticks = _FILM
        self.factor = Fraction(_FILM, _CYCLE)
        filters = (
            ("fieldmatch", "order=auto"),
            ("bwdif", "mode=send_frame:deint=interlaced"),
            ("decimate", f"cycle={_CYCLE}"),
        )
        super().__init__(filters, rate)
        self._stamps: deque[int | None] = deque()  # Of the frames in the graph, in ticks.
        self._number = 0
        self._tick = Fraction(1)

    def restart(self) -> None:
        """Starts again after a seek."""
        super().restart()
        self._stamps.clear()
        self._number = 0

    def _flushed(self) -> Iterator[VideoFrame]:
        yield from super()._flushed()
        self._stamps.clear()
        self._number = 0

    def _entered(self, frame: VideoFrame) -> None:
        self._stamps.append(frame.pts)
        self._tick = Fraction(frame.time_base or 1)

    def _pulled(self) -> Iterator[VideoFrame]:
        for frame in self._ready():
            assert self._key is not None
            if frame.format.name != self._key[0]:  # The graph converts for a filter by itself.
                raise VideoError(
                    f"telecined film cannot be restored in the pixel format {self._key[0]}: "
                    "convert the video to yuv420p or yuv422p first"
                )
            self._set_times(frame)
            yield frame

    def _set_times(self, frame: VideoFrame) -> None:
        """Sets the time of a frame: stamp and number of its place in the cycle.

        `decimate` counts frames instead, so that all after a gap in the source would be too early.
        Frame k of four is shown k/4 of a frame of the video after the stamp of frame k of five.
        """
        place = self._number % _FILM
        stamp = self._stamps.popleft()
        if place == _FILM - 1 and self._stamps:
            self._stamps.popleft()
        self._number += 1
        late = Fraction(place, _FILM) / self._rate
        tick = self._tick / _FILM
        frame.pts = None if stamp is None else stamp * _FILM + round(late / tick)
        frame.duration = round(1 / (self.factor * self._rate) / tick)
        frame.time_base = tick


class FilmRetimer(FrameFilter):
    """Shows film frames at equal distances that have the times of 3:2 pulldown (soft telecine).

    MPEG-2 can store the frames of film and let the player repeat fields, so that the frames are
    shown for two and three fields in turn. A frame that is more than a field away from its time
    begins a new count, since frames are missing before it. Only stamps and durations are changed.
    """

    factor = Fraction(1)
    ticks = _FILM

    def __init__(self, rate: Fraction) -> None:
        """Starts before the first frame.

        Args:
            rate: Frames a second of the film.
        """
        self._rate = rate
        self._next: Fraction | None = None

    def restart(self) -> None:
        """Starts again after a seek."""
        self._next = None

    def filtered(self, frames: Iterable[VideoFrame], *, last: bool) -> Iterator[VideoFrame]:
        """Yields each frame with its new time."""
        del last
        frame_lasts = 1 / self._rate
        field = frame_lasts * Fraction(2, _CYCLE)
        for frame in frames:
            tick = Fraction(frame.time_base or 1)
            stamp = None if frame.pts is None else frame.pts * tick
            time = self._next
            if stamp is not None and (time is None or abs(stamp - time) > field):
                time = stamp
            if time is not None:
                frame.pts = None if stamp is None else round(time / tick * self.ticks)
                self._next = time + frame_lasts
            frame.time_base = tick / self.ticks
            frame.duration = round(frame_lasts / frame.time_base)
            yield frame
