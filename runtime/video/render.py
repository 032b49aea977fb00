"""Frames from a source through the model to a sink: decode, interpolate and encode in threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from runtime.batching import PairRequest
from runtime.interpolator import Interpolator
from runtime.video.colour import ColourConverter
from runtime.video.prefetch import Prefetcher, prefetch
from runtime.video.reading.info import DecodedFrame, SourceInfo
from runtime.video.scenes import SceneDetector
from runtime.video.schedule import FrameFacts, Schedule
from runtime.video.timeline import Shown
from runtime.video.writing.alpha import opaque
from runtime.video.writing.sink import Sink

_AHEAD = 4
"""Frames that wait between two threads, at most."""


Progress = Callable[[int, int | None], None]
"""Called with the frames written and, where it is known, how many there will be."""


class _Seen(NamedTuple):
    """A decoded frame with what is known of it before it is used."""

    frame: VideoFrame
    facts: FrameFacts
    picture: NDArray[Any]


class _Known(NamedTuple):
    """A real frame for as long as the schedule may ask for it."""

    frame: VideoFrame
    picture: NDArray[Any]


class _Request(NamedTuple):
    """What goes to the encoder next: new frames, a real one, or a packet of another track."""

    times: list[Fraction]
    like: VideoFrame | None
    between: PairRequest | None
    packet: Packet[Any] | None = None


class Rendering:
    """Frames on their way from a source through the model to a sink, as a schedule says.

    Attributes:
        frames_new: Made so far.
        idle: Share of the time in which the model waited for frames.
        notes: What the user should know.
    """

    def __init__(
        self,
        vfi: Interpolator,
        info: SourceInfo,
        schedule: Schedule,
        detector: SceneDetector | None = None,
    ) -> None:
        """Prepares.

        Args:
            vfi: What makes the new frames.
            info: Of the source.
            schedule: Says what is shown; it is used up.
            detector: Looks for the cuts and repeats that the schedule is told; None: for none.

        Raises:
            FrameError: If the frames do not fit the model.
        """
        self.vfi = vfi
        self.info = info
        self.frames_new = 0
        self.idle = 0.0
        self.notes: list[str] = []
        self._schedule = schedule
        self._detector = detector
        self._converter = ColourConverter()
        self._depth = self._depth_of_pictures()
        vfi.check_takes(
            info.height, info.width, np.dtype(np.uint8 if self._depth == 8 else np.uint16)
        )

    def run(
        self,
        items: Iterable[DecodedFrame | Packet[Any]],
        sink: Sink,
        progress: Progress | None = None,
        total: int | None = None,
    ) -> None:
        """Everything, from the first packet to the last.

        Args:
            items: Of the source: its frames, and the packets of its other tracks.
            sink: Takes both.
            progress: Called after each frame that is written, with `total`.
            total: How many are expected.
        """
        started = time.perf_counter()
        with prefetch(self._seen(items), ahead=_AHEAD, name="decode", weight=_weight) as seen:
            made = self._made(seen)
            with prefetch(made, ahead=_AHEAD, name="interpolate", weight=_weight) as shown:
                for item in shown:
                    if isinstance(item, Packet):
                        sink.write_packet(item)
                        continue
                    moment, frame, picture = item
                    if picture is not None:
                        frame = self._converter.frame_from_rgb(picture, like=frame)
                    sink.write(frame, moment)
                    if progress is not None:
                        progress(sink.written, total)
            self.idle = seen.waited / (time.perf_counter() - started)

    def _seen(self, items: Iterable[DecodedFrame | Packet[Any]]) -> Iterator[_Seen | Packet[Any]]:
        """Decodes, looks for cuts, and converts: the work of the first thread."""
        for item in items:
            if isinstance(item, DecodedFrame):
                shown = opaque(item.picture, self._converter)
                picture = self._converter.rgb_from_frame(shown, self._depth)
                yield _Seen(shown, frame_facts(item, self._detector), picture)
            else:
                yield item

    def _made(
        self, seen: Prefetcher[_Seen | Packet[Any]]
    ) -> Iterator[tuple[Fraction, VideoFrame, NDArray[Any] | None] | Packet[Any]]:
        """Runs the model: the work of the second thread."""
        requests = ((request, request.between) for request in self._requests(seen))
        for request, pictures in self.vfi.interpolate_tagged(requests):
            if request.packet is not None:
                yield request.packet
                continue
            assert request.like is not None
            if request.between is None:
                yield request.times[0], request.like, None
                continue
            for moment, picture in zip(request.times, pictures, strict=True):
                self.frames_new += 1
                yield moment, request.like, picture

    def _requests(self, seen: Prefetcher[_Seen | Packet[Any]]) -> Iterator[_Request]:
        """What is shown when, in order; frames are held for as long as they may be asked for."""
        known: dict[int, _Known] = {}
        number = 0
        for item in seen:
            if isinstance(item, Packet):
                yield _Request([], None, None, item)
                continue
            known[number] = _Known(item.frame, item.picture)
            number += 1
            yield from _asked(self._schedule.push(item.facts), known)
            for old in [n for n in known if n < self._schedule.oldest]:
                del known[old]
        yield from _asked(self._schedule.finish(), known)

    def _depth_of_pictures(self) -> int:
        """Bits of the RGB that the model sees: 16 where source and model have more than 8."""
        if self.info.bits <= 8:
            return 8
        if self.vfi.info.io == "float":
            return 16
        self.notes.append(
            f"the new frames were made from 8 of {self.info.bits} bits: use a model exported with "
            "--io float to keep them all"
        )
        return 8


def frame_facts(frame: DecodedFrame, detector: SceneDetector | None) -> FrameFacts:
    """What a schedule is told of a frame; the detector sees the frames in order, each once."""
    flags = None if detector is None else detector.flags(frame.picture)
    return FrameFacts(
        frame.pts,
        frame.time_base,
        _duration(frame),
        cut=flags is not None and flags.cut,
        repeat=flags is not None and flags.repeat,
    )


def _asked(shown: list[Shown], known: dict[int, _Known]) -> Iterator[_Request]:
    """Neighbours between the same two frames become one request."""
    request: _Request | None = None
    pair: tuple[int, int] | None = None
    steps: list[float] = []
    for one in shown:
        if one.second is not None and pair == (one.first, one.second) and request is not None:
            request.times.append(one.time)
            steps.append(float(one.t))
            continue
        if request is not None:
            yield request
        first = known[one.first]
        if one.second is None:
            pair, request = None, _Request([one.time], first.frame, None)
        else:
            pair, steps = (one.first, one.second), [float(one.t)]
            between = PairRequest(first.picture, known[one.second].picture, steps)
            request = _Request([one.time], first.frame, between)
    if request is not None:
        yield request


def _weight(item: object) -> int:
    """Packets of other tracks are small and wait for nobody."""
    return 0 if isinstance(item, Packet) else 1


def _duration(frame: DecodedFrame) -> Fraction | None:
    """Of a decoded frame, in seconds, where the file says it."""
    ticks = getattr(frame.picture, "duration", None)
    return ticks * frame.time_base if ticks else None
