"""Encodes frames to packets of a video track."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.errors import VideoError
from runtime.video.colour import ColourConverter
from runtime.video.reading.info import SourceInfo, reason
from runtime.video.timing.timeline import output_time_base
from runtime.video.transparency import AlphaConverter
from runtime.video.writing.advice import opening_advice
from runtime.video.writing.alpha import without_alpha_tag
from runtime.video.writing.destination import container_of
from runtime.video.writing.encoding import DEFAULT, EncodeOptions, Encoding, encoding_for, tag
from runtime.video.writing.timecode import with_timecode
from runtime.video.writing.tracks import kept_metadata

_OWN_ASPECT = "264|265|hevc|mpeg[24]"
"""Pattern of encoders that store the pixel aspect ratio in their own stream."""


class Encoder:
    """A video track with an open codec.

    It needs a container, which determines whether the codec's header goes into the file or into
    every key frame. A frame is encoded when the next one arrives, since only then its duration is
    known.

    Attributes:
        stream: PyAV's stream of the track, for a muxer.
        tick: The unit of the packets' stamps, in seconds.
        end: When the last frame ends, in seconds on the output's clock; None: one nominal frame
            after it is shown. To be set before `flush`.
        notes: Notes for the user on properties that are not carried over.
    """

    def __init__(
        self, output: Any, like: SourceInfo, rate: Fraction, tick: Fraction, encoding: Encoding
    ) -> None:
        """Adds the track to a container and opens its codec.

        Args:
            output: The container, open for writing, before its header is written.
            like: Properties of the source.
            rate: Nominal frames a second.
            tick: The unit of the packets' stamps, in seconds.
            encoding: Encoder, options and pixel format.

        Raises:
            VideoError: If the container does not accept the codec, or the codec does not open.
        """
        self.tick = tick
        self.end: Fraction | None = None
        self.notes: list[str] = []
        self._like = like
        self._rate = rate
        self._encoding = encoding
        self._converter, self._alpha = ColourConverter(), AlphaConverter()
        self._waiting: tuple[VideoFrame, int] | None = None
        self._durations: dict[int, int] = {}
        self.stream = self._add_stream(output)
        self._set_up(output.format.name)
        tags = without_alpha_tag(kept_metadata(like.video_metadata))
        self.stream.metadata.update(with_timecode(tags, like, rate, self.notes))
        self._rotate()

    @property
    def alpha(self) -> bool:
        """Whether the alpha channel of frames is encoded."""
        return self._encoding.alpha

    @property
    def identity(self) -> tuple[str, bytes]:
        """FFmpeg's name of the encoder, and the header (extradata) that all packets share."""
        return self._encoding.encoder, bytes(self.stream.codec_context.extradata or b"")

    def encode(self, frame: VideoFrame, time: Fraction) -> list[Packet[Any]]:
        """Adds a frame and encodes the one before; returns the packets that are ready, often none.

        Args:
            frame: A frame of the size of the source; its stamp is set.
            time: When it is shown, in seconds on the output's clock.

        Raises:
            VideoError: If the frame has another size.
            FFmpegError: If the codec fails.
        """
        frame, stamp = self._fitted(frame), round(time / self.tick)
        packets = self._encoded_until(stamp)
        self._waiting = frame, stamp
        return packets

    def flush(self) -> list[Packet[Any]]:
        """Encodes the last frame; returns the remaining packets, none if there was no frame.

        Raises:
            FFmpegError: If the codec fails.
        """
        if self._waiting is None:  # Some codecs fail without a frame.
            return []
        last = self._waiting[1]
        end = last + round(1 / self._rate / self.tick)
        if self.end is not None:
            end = max(last + 1, round(self.end / self.tick))
        return [*self._encoded_until(end), *self._timed(self.stream.encode(None))]

    def _encoded_until(self, end: int) -> list[Packet[Any]]:
        """Encodes the frame that waits, which is shown until `end`, in ticks."""
        if self._waiting is None:
            return []
        frame, stamp = self._waiting
        self._waiting = None
        frame.pts, frame.time_base = stamp, self.tick
        frame.duration = self._durations[stamp] = max(1, end - stamp)
        frame.pict_type = 0  # The encoder chooses the type, not the source.
        return self._timed(self.stream.encode(frame))

    def _timed(self, packets: list[Packet[Any]]) -> list[Packet[Any]]:
        """Sets the durations of packets, which not every encoder passes on."""
        for packet in packets:
            if packet.pts in self._durations:
                packet.duration = self._durations.pop(packet.pts)
        return packets

    def _fitted(self, frame: VideoFrame) -> VideoFrame:
        if (frame.width, frame.height) != (self._like.width, self._like.height):
            raise VideoError(
                f"a frame of {frame.width}x{frame.height} was given for a video of "
                f"{self._like.width}x{self._like.height}: give frames of one size"
            )
        return self._converted(frame)

    def _converted(self, frame: VideoFrame) -> VideoFrame:
        """Converts a frame of the right size to the format that is encoded."""
        if self.alpha:
            return self._alpha.fitted(frame, self._encoding.pixel_format)
        frame = self._alpha.without_alpha(frame)
        if frame.format.name == self._encoding.pixel_format:
            return frame
        return self._converter.reformatted(frame, self._encoding.pixel_format, frame)

    def _add_stream(self, output: Any) -> Any:
        encoding = self._encoding
        try:
            return output.add_stream(encoding.encoder, rate=self._rate, options=encoding.options)
        except ValueError as error:
            other = ".mov" if encoding.encoder.startswith("prores") else ".mkv"
            raise VideoError(
                f"{output.format.name} does not support {encoding.encoder}: choose {other} or "
                "another codec"
            ) from error

    def _set_up(self, kind: str) -> None:
        like, encoding, context = self._like, self._encoding, self.stream.codec_context
        context.width, context.height = like.width, like.height
        context.time_base = self.stream.time_base = self.tick
        context.pix_fmt = encoding.pixel_format
        self._tag(context)
        context.bit_rate = 0  # Otherwise the quality of VP9 is only an upper bound.
        self._set_aspect(context, kind, like.sample_aspect_ratio or Fraction(1))
        if encoding.encoder == "libx265" and kind in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # Apple's players accept no other.
        try:
            with _scheduling_restored():
                context.open()
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(
                f"the encoder {encoding.encoder} does not open ({reason(error)}): "
                f"{opening_advice(encoding.encoder, self._rate)}"
            ) from error

    def _set_aspect(self, context: Any, kind: str, aspect: Fraction) -> None:
        if aspect == 1:
            return
        context.sample_aspect_ratio = aspect
        encoder = self._encoding.encoder
        if kind in ("matroska", "webm") and not re.search(_OWN_ASPECT, encoder):
            # PyAV cannot set it in the container.
            self.notes.append(
                f"the pixel aspect ratio, {aspect}, is not carried over by {encoder} in {kind}: "
                "choose .mp4 or .mov"
            )

    def _tag(self, context: Any) -> None:
        tag(context, self._like, self._encoding.pixel_format)

    def _rotate(self) -> None:
        like = self._like
        if like.display_matrix is None:
            return
        if hasattr(self.stream, "set_display_matrix"):
            self.stream.set_display_matrix(like.display_matrix)
        elif like.rotation:
            self.notes.append(
                f"the rotation by {like.rotation} degrees is not carried over: install PyAV 18, "
                "which can write it"
            )


@contextmanager
def open_encoder(
    path: Path, *, like: SourceInfo, rate: Fraction, encode: EncodeOptions = DEFAULT
) -> Iterator[Encoder]:
    """Opens the encoder that `open_sink` opens for `path`, with the same settings, but no file.

    For parts of a video that are encoded separately and joined later.

    Raises:
        VideoError: If there is no such encoder, or it does not open.
    """
    encoding = encoding_for(like, path.suffix.lower(), encode)
    with writing_errors(path.name):
        output = av.open(io.BytesIO(), "w", format=container_of(path))
    try:
        with writing_errors(path.name):
            encoder = Encoder(output, like, rate, output_time_base(rate), encoding)
        yield encoder
    finally:
        with suppress(av.error.FFmpegError, OSError, ValueError):
            output.close()


@contextmanager
def writing_errors(name: str) -> Iterator[None]:
    """Converts errors of FFmpeg and of the system to a VideoError that names the output."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(
            f"{name} could not be written ({reason(error)}): check free space, "
            "and whether the container takes this size and format"
        ) from error


@contextmanager
def _scheduling_restored() -> Iterator[None]:
    """Restores the scheduling policy of this thread, which SVT-AV1 sets to real-time as root.

    Threads that a real-time thread starts are real-time too, and let no other process run.
    """
    if not hasattr(os, "sched_getscheduler"):  # Only Linux has it.
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)
