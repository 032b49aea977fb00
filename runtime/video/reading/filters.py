"""Deinterlaces decoded frames with FFmpeg's bwdif."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Literal

import av
from av.filter import Graph
from av.video.frame import VideoFrame

from runtime.errors import VideoError

Deinterlace = Literal["frame", "field"]
"""One progressive frame for each interlaced one, or one for each of its two fields."""


class Deinterlacer:
    """Converts interlaced frames to progressive ones; other frames pass unchanged.

    The order of the fields is the one that each frame declares. With "field" the second field of a
    frame is shown half-way to the next frame; the last one half of the previous gap after the
    first field. At a gap of more than two nominal frames, where frames are missing, it is shown
    half a nominal frame after the first.

    Attributes:
        factor: Frames for each interlaced frame: 1 or 2. The tick of the stamps is that of the
            source divided by it.
    """

    def __init__(self, mode: Deinterlace, rate: Fraction) -> None:
        """Starts before the first frame.

        Args:
            mode: "frame" or "field".
            rate: Nominal frames a second of the source.

        Raises:
            VideoError: If this FFmpeg has no bwdif.
        """
        if "bwdif" not in av.filter.filters_available:
            raise VideoError(
                "this FFmpeg has no filter bwdif: install PyAV from PyPI, or leave deinterlace out"
            )
        self.factor = 2 if mode == "field" else 1
        self._options = f"mode=send_{mode}:parity=auto:deint=interlaced"
        self._rate = rate
        self._graph: Graph | None = None
        self._key: tuple[str, int, int] | None = None
        self._stamps: deque[int] = deque()  # Of the frames in the filter, in half ticks.
        self._shown: int | None = None
        self._to_drop = 0

    def restart(self) -> None:
        """Starts again after a seek; the next frame is used as the one before its successor only.

        A deinterlaced frame depends on the frame before it, which the first one after a seek lacks.
        """
        self._graph = None
        self._stamps.clear()
        self._shown = None
        self._to_drop = 2  # bwdif returns a frame when its successor comes.

    def filtered(self, frames: Iterable[VideoFrame], *, last: bool) -> Iterator[VideoFrame]:
        """Yields the frames that are complete after these.

        Args:
            frames: The next frames, in order of presentation; not changed.
            last: Whether the source ends with them.
        """
        for frame in frames:
            yield from self._after(frame)
        if last:
            yield from self._flushed()

    def _after(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        key = frame.format.name, frame.width, frame.height
        if self._graph is not None and key != self._key:
            yield from self._flushed()
        if self._graph is None:
            self._graph, self._key = self._created(frame), key
        if frame.pts is not None:
            self._stamps.append(2 * frame.pts)
        self._graph.push(frame)
        yield from self._pulled()

    def _flushed(self) -> Iterator[VideoFrame]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pulled()
        self._graph = None

    def _created(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=Fraction(frame.time_base or 1),
        )
        graph.link_nodes(
            source, graph.add("bwdif", self._options), graph.add("buffersink")
        ).configure()
        return graph

    def _pulled(self) -> Iterator[VideoFrame]:
        assert self._graph is not None
        keep = self._to_drop == 0
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                break
            assert isinstance(frame, VideoFrame)
            self._set_times(frame)
            if keep:
                yield frame
        self._to_drop -= not keep

    def _set_times(self, frame: VideoFrame) -> None:
        """Corrects the times of a frame of bwdif, which counts in half ticks of the source."""
        tick = Fraction(frame.time_base or 1)
        if self.factor == 1:
            frame.pts = None if frame.pts is None else frame.pts // 2
            frame.duration //= 2
            frame.time_base = 2 * tick
        elif frame.pts is not None and self._stamps and frame.pts == self._stamps[0]:
            self._shown = self._stamps.popleft()
        elif frame.pts is not None and self._shown is not None:  # A second field.
            frames_missing = (frame.pts - self._shown) * tick > 1 / self._rate
            if frames_missing:
                frame.pts = self._shown + round(1 / (2 * self._rate) / tick)
