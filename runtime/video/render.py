"""Decodes, interpolates and encodes the frames that a schedule chooses, in four threads."""

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
from runtime.errors import counted
from runtime.interpolator import Interpolator
from runtime.model_info import ModelInfo
from runtime.timesteps import MAXIMUM_DEPTH
from runtime.video.colour import ColourConverter
from runtime.video.layers import LayerConverter, Layers, NewLayers, mixed, with_alpha
from runtime.video.mask import Mask, MaskedFrames
from runtime.video.planes import has_alpha, is_coarse, is_transparent
from runtime.video.prefetch import Prefetcher, prefetch
from runtime.video.reading.info import DecodedFrame, SourceInfo
from runtime.video.scenes import SceneDetector
from runtime.video.timing.schedule import FrameFacts, Schedule
from runtime.video.timing.timeline import Blended, Shown
from runtime.video.transparency import AlphaConverter, AlphaMode
from runtime.video.writing.sink import Sink

_AHEAD = 4
"""Limit of the frames that wait between two threads."""


_STEPS_PER_REQUEST = 16
"""New frames in one request: a long gap has thousands, which do not fit into memory."""


FrameProgress = Callable[[int, int | None], None]
"""Called with the number of frames written, and the number expected or None."""


class _PreparedFrame(NamedTuple):
    """A frame to write, its facts for the schedule, and its RGB image (H, W, 3) for the model.

    Layers are None where the output has no alpha; then the frame has none either.
    """

    frame: VideoFrame
    facts: FrameFacts
    image: NDArray[Any]
    layers: Layers | None


class _SourceFrame(NamedTuple):
    """A real frame, its RGB image and layers, in memory while the schedule may refer to it."""

    frame: VideoFrame
    image: NDArray[Any]
    layers: Layers | None


class _OutputRequest(NamedTuple):
    """The next entry for the encoder: new frames, a real frame, or a packet of another track.

    Attributes:
        times: When the frames are shown, in seconds on the source's clock; empty for a packet.
        like: The real frame, or the one before the new frames; None for a packet.
        between: Request for the new frames; None for a real frame and for a packet.
        packet: The packet of another track; None for frames.
        after: The real frame after the new ones; None for a real frame and for a packet.
        layers: Those of the real frames before and after the new ones; None without alpha.
        mix: Images of the real frames before and after one new frame that mixes them, and its
            position in (0, 1); None otherwise.
    """

    times: list[Fraction]
    like: VideoFrame | None
    between: PairRequest | None
    packet: Packet[Any] | None = None
    after: VideoFrame | None = None
    layers: tuple[Layers, Layers] | None = None
    mix: tuple[NDArray[Any], NDArray[Any], float] | None = None


class _OutputFrame(NamedTuple):
    """A frame for the encoder.

    Attributes:
        time: When it is shown, in seconds on the source's clock.
        like: A real frame; or the one before a new frame, whose format the new one gets.
        image: For a new frame its RGB image, or its layers where it gets alpha; otherwise None.
        nearest: The real frame that a mask shows; None for a real frame.
    """

    time: Fraction
    like: VideoFrame
    image: NDArray[Any] | NewLayers | None = None
    nearest: VideoFrame | None = None


class Rendering:
    """Renders the frames that a schedule chooses: from a source, through the model, to a sink.

    Attributes:
        frames_new: Number of frames that the model computed so far.
        idle: Share of the time, in [0, 1], in which the model waited for frames; 0 before the end.
        notes: Notes for the user.
    """

    def __init__(
        self,
        vfi: Interpolator,
        info: SourceInfo,
        schedule: Schedule,
        detector: SceneDetector | None = None,
        alpha: AlphaMode = "interpolate",
        mask: Mask | None = None,
    ) -> None:
        """Checks that the frames fit the model.

        Args:
            vfi: The model that computes the new frames.
            info: Properties of the source.
            schedule: Chooses the frames to show; it cannot be used again.
            detector: Detects cuts and repeats for the schedule; None: neither is detected.
            alpha: How the alpha of new frames is made, where the output has an alpha channel.
            mask: Where new frames show the nearest real frame; None for nowhere.

        Raises:
            FrameError: If the frames do not fit the model.
        """
        self.vfi = vfi.with_channels("rgb")  # The order of `ColourConverter`.
        self.info = info
        self.frames_new = 0
        self.idle = 0.0
        self.notes: list[str] = []
        self._schedule = schedule
        self._detector = detector
        self._converter = ColourConverter()
        self._alpha = AlphaConverter()
        self._coarse = ColourConverter()
        self._mode = alpha
        self._masked = None if mask is None else MaskedFrames(mask, info.rotation)
        self._layers: LayerConverter | None = None
        self._transparent = 0
        self._depth = self._image_depth()
        vfi.check_takes(
            info.height, info.width, np.dtype(np.uint8 if self._depth == 8 else np.uint16)
        )

    def run(
        self,
        items: Iterable[DecodedFrame | Packet[Any]],
        sink: Sink,
        progress: FrameProgress | None = None,
        total: int | None = None,
    ) -> None:
        """Processes all items of a source; call it once.

        Args:
            items: Frames of the source, and packets of its other tracks, in order.
            sink: Receives the output frames and the packets.
            progress: Called after each frame that is written, with `total`.
            total: Number of output frames expected; None where it is not known.

        Raises:
            VideoError: If the source cannot be read or the sink not written.
            BackendError: If the inference fails.
        """
        started = time.perf_counter()
        if sink.alpha:
            self._layers = LayerConverter(
                self._converter, self._depth, self.info.pixel_format, self._mode
            )
        prepared = self._prepared(items)
        with prefetch(prepared, ahead=_AHEAD, name="decode", weight=_weight) as decoded:
            output = self._interpolated(decoded)
            with (
                prefetch(output, ahead=_AHEAD, name="interpolate", weight=_weight) as new,
                prefetch(self._converted(new), ahead=_AHEAD, name="convert", weight=_weight) as out,
            ):
                for item in out:
                    if isinstance(item, Packet):
                        sink.write_packet(item)
                        continue
                    moment, frame = item
                    sink.write(frame, moment)
                    if progress is not None:
                        progress(sink.written, total)
            if self._schedule.end is not None:
                sink.end_at(self._schedule.end)
            self.idle = decoded.waited / (time.perf_counter() - started)
        if self._transparent and not has_alpha(self.info.pixel_format):
            self.notes.append(
                f"{counted(self._transparent, 'frame')} with an alpha channel, which the first one "
                "does not have: it is not carried over"
            )

    def _prepared(
        self, items: Iterable[DecodedFrame | Packet[Any]]
    ) -> Iterator[_PreparedFrame | Packet[Any]]:
        """Decodes, detects cuts and converts to RGB; runs in the first thread."""
        for item in items:
            if isinstance(item, DecodedFrame):
                facts = frame_facts(item, self._detector)
                if self._layers is not None:
                    layers = self._layers.taken_apart(item.frame)
                    yield _PreparedFrame(item.frame, facts, layers.image, layers)
                    continue
                self._transparent += is_transparent(item.frame)
                frame = self._alpha.without_alpha(item.frame)
                if is_coarse(frame.format.name):
                    # New frames of the source's format would be dithered.
                    frame = self._coarse.reformatted(frame, "rgb24", frame)
                image = self._converter.rgb_from_frame(frame, self._depth)
                yield _PreparedFrame(frame, facts, image, None)
            else:
                yield item

    def _interpolated(
        self, prepared: Prefetcher[_PreparedFrame | Packet[Any]]
    ) -> Iterator[_OutputFrame | Packet[Any]]:
        """Runs the model; runs in the second thread."""
        requests = (
            (request, request.between, self._alpha_request(request))
            for request in self._requests(prepared)
        )
        for request, images, alphas in with_alpha(self.vfi, requests):
            if request.packet is not None:
                yield request.packet
                continue
            like, after, pair = request.like, request.after, request.layers
            assert like is not None
            if request.mix is not None:
                image, t = mixed(*request.mix), request.mix[2]
                new = image if pair is None else NewLayers(image, None, pair, t)
                yield _OutputFrame(request.times[0], like, new, like if t <= 1 / 2 else after)
                continue
            if request.between is None:
                yield _OutputFrame(request.times[0], like)
                continue
            for n, (moment, image) in enumerate(zip(request.times, images, strict=True)):
                self.frames_new += 1
                t = request.between.timesteps[n]
                new = (
                    image
                    if pair is None
                    else NewLayers(image, alphas[n] if alphas else None, pair, t)
                )
                yield _OutputFrame(moment, like, new, like if t <= 1 / 2 else after)

    def _converted(
        self, output: Iterable[_OutputFrame | Packet[Any]]
    ) -> Iterator[tuple[Fraction, VideoFrame] | Packet[Any]]:
        """Converts new frames to the source's format; runs in the third thread.

        Encoders have threads of their own, which would wait for frames if the thread that calls the
        encoder also converted them.

        Yields:
            Packets, and frames with the time when they are shown.
        """
        for item in output:
            if isinstance(item, Packet):
                yield item
                continue
            frame = item.like
            if isinstance(item.image, NewLayers):
                assert self._layers is not None
                frame = self._layers.put_together(item.image)
            elif item.image is not None:
                frame = self._converter.frame_from_rgb(item.image, like=frame)
            if self._masked is not None and item.nearest is not None:
                self._masked.cover(frame, item.nearest)
            yield item.time, frame

    def _alpha_request(self, request: _OutputRequest) -> PairRequest | None:
        """The request for the alpha of new frames; None where there is nothing to compute."""
        if self._layers is None or request.layers is None or request.between is None:
            return None
        return self._layers.alpha_request(request.layers, request.between.timesteps)

    def _requests(
        self, prepared: Prefetcher[_PreparedFrame | Packet[Any]]
    ) -> Iterator[_OutputRequest]:
        """Requests for all output, in order; keeps real frames while the schedule may need them."""
        frames: dict[int, _SourceFrame] = {}
        number = 0
        most = most_steps(self.vfi.info)
        for item in prepared:
            if isinstance(item, Packet):
                yield _OutputRequest([], None, None, item)
                continue
            frames[number] = _SourceFrame(item.frame, item.image, item.layers)
            number += 1
            yield from _grouped_requests(self._schedule.push(item.facts), frames, most)
            for old in [n for n in frames if n < self._schedule.oldest]:
                del frames[old]
        yield from _grouped_requests(self._schedule.finish(), frames, most)

    def _image_depth(self) -> int:
        """Bits of the model's RGB images: 16 where source and model have more than 8, else 8."""
        if self.info.bits <= 8:
            return 8
        if self.vfi.info.io == "float":
            return 16
        self.notes.append(
            f"the new frames have 8 of the {self.info.bits} bits of the source: use a model "
            "exported with --io float to keep all bits"
        )
        return 8


def frame_facts(decoded: DecodedFrame, detector: SceneDetector | None) -> FrameFacts:
    """The facts of a frame for a schedule; call it once for each frame, in order."""
    flags = None if detector is None else detector.flags(decoded.frame)
    return FrameFacts(
        decoded.pts,
        decoded.time_base,
        _duration(decoded),
        cut=flags is not None and flags.cut,
        repeat=flags is not None and flags.repeat,
    )


def most_steps(info: ModelInfo) -> int:
    """Limit of the new frames in one request, which are in memory together.

    Weights that know the midpoint only compute the frames of a pair from one another, so that
    parts would compute some of them again; there are at most 63 different ones.
    """
    if info.time_steps == "midpoint":
        return (1 << MAXIMUM_DEPTH) - 1
    calls = -(-_STEPS_PER_REQUEST // info.frames_per_call)  # Whole calls of the model.
    return calls * info.frames_per_call


def _grouped_requests(
    shown: list[Shown], frames: dict[int, _SourceFrame], most: int
) -> Iterator[_OutputRequest]:
    """Requests for output frames; up to `most` consecutive new frames of one pair become one."""
    request: _OutputRequest | None = None
    pair: tuple[int, int] | None = None
    steps: list[float] = []
    for one in shown:
        same_pair = one.second is not None and pair == (one.first, one.second)
        if same_pair and request is not None and len(steps) < most:
            request.times.append(one.time)
            steps.append(float(one.t))
            continue
        if request is not None:
            yield request
        first, pair = frames[one.first], None
        if one.second is None:
            request = _OutputRequest([one.time], first.frame, None)
            continue
        second = frames[one.second]
        layers = None
        if first.layers is not None and second.layers is not None:
            layers = first.layers, second.layers
        if isinstance(one, Blended):
            mix = first.image, second.image, float(one.t)
            request = _OutputRequest(
                [one.time], first.frame, None, after=second.frame, layers=layers, mix=mix
            )
        else:
            pair, steps = (one.first, one.second), [float(one.t)]
            between = PairRequest(first.image, second.image, steps)
            request = _OutputRequest(
                [one.time], first.frame, between, after=second.frame, layers=layers
            )
    if request is not None:
        yield request


def _weight(item: object) -> int:
    """The weight of an item in a `Prefetcher`: 0 for packets, which are small, 1 for frames."""
    return 0 if isinstance(item, Packet) else 1


def _duration(decoded: DecodedFrame) -> Fraction | None:
    """The duration of a frame, in seconds; None where the file does not declare it."""
    ticks = getattr(decoded.frame, "duration", None)
    return ticks * decoded.time_base if ticks else None
