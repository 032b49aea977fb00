"""Frames -> packets of one video track."""

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
from runtime.video.timeline import output_time_base
from runtime.video.writing.alpha import opaque, without_alpha_tag
from runtime.video.writing.destination import container_of
from runtime.video.writing.encoding import DEFAULT, EncodeOptions, Encoding, encoding_for, tag
from runtime.video.writing.tracks import kept_metadata


class Encoder:
    """The video track of a container, whose codec is open.

    PyAV has codecs of containers only where it knows how they are to be set up: whether the header
    goes into the file or into every key frame is the container's to say.

    Attributes:
        stream: The track, for a muxer.
        tick: The unit of the packets' stamps, in seconds.
        notes: What is not carried over.
    """

    def __init__(
        self, output: Any, like: SourceInfo, rate: Fraction, tick: Fraction, encoding: Encoding
    ) -> None:
        """Adds the track to a container and opens its codec.

        Args:
            output: The container, open for writing, without a header yet.
            like: The source.
            rate: Nominal frames a second.
            tick: The unit of the packets' stamps, in seconds.
            encoding: What to encode with.

        Raises:
            VideoError: If the container does not take the codec, or the codec does not open.
        """
        self.tick = tick
        self.notes: list[str] = []
        self._like = like
        self._rate = rate
        self._encoding = encoding
        self._converter, self._opaque = ColourConverter(), ColourConverter()
        self._started = False
        self.stream = self._added(output)
        self._set_up(output.format.name)
        self.stream.metadata.update(without_alpha_tag(kept_metadata(like.video_metadata)))
        self._rotate()

    @property
    def identity(self) -> tuple[str, bytes]:
        """FFmpeg's name of the encoder, and the header that all packets share."""
        return self._encoding.encoder, bytes(self.stream.codec_context.extradata or b"")

    def encode(self, frame: VideoFrame, time: Fraction) -> list[Packet[Any]]:
        """The packets that are ready when a frame has come.

        Args:
            frame: Of the size of the source; its stamp is set.
            time: When it is shown, in seconds on the output's clock.

        Raises:
            VideoError: If the frame has another size.
            FFmpegError: If the codec fails.
        """
        frame = self._fitted(frame)
        frame.pts = round(time / self.tick)
        frame.time_base = self.tick
        frame.duration = round(1 / self._rate / self.tick)
        frame.pict_type = 0  # the encoder decides, not the source
        self._started = True
        packets: list[Packet[Any]] = self.stream.encode(frame)
        return packets

    def flush(self) -> list[Packet[Any]]:
        """The packets that the codec holds back; none where it never saw a frame.

        Raises:
            FFmpegError: If the codec fails.
        """
        if not self._started:  # It need not answer.
            return []
        packets: list[Packet[Any]] = self.stream.encode(None)
        return packets

    def _fitted(self, frame: VideoFrame) -> VideoFrame:
        if (frame.width, frame.height) != (self._like.width, self._like.height):
            raise VideoError(
                f"a frame of {frame.width}x{frame.height} came for a video of "
                f"{self._like.width}x{self._like.height}: all have one size"
            )
        frame = opaque(frame, self._opaque)
        if frame.format.name == self._encoding.pixel_format:
            return frame
        return self._converter.reformatted(frame, self._encoding.pixel_format, frame)

    def _added(self, output: Any) -> Any:
        encoding = self._encoding
        try:
            return output.add_stream(encoding.encoder, rate=self._rate, options=encoding.options)
        except ValueError as error:
            other = ".mov" if encoding.encoder.startswith("prores") else ".mkv"
            raise VideoError(
                f"{output.format.name} does not take {encoding.encoder}: choose {other} or "
                "another codec"
            ) from error

    def _set_up(self, kind: str) -> None:
        like, encoding, context = self._like, self._encoding, self.stream.codec_context
        context.width, context.height = like.width, like.height
        context.time_base = self.stream.time_base = self.tick
        context.pix_fmt = encoding.pixel_format
        tag(context, like, encoding.pixel_format)
        context.bit_rate = 0  # or, with VP9, the quality asked for is only an upper bound
        if like.sample_aspect_ratio not in (None, 1):
            context.sample_aspect_ratio = like.sample_aspect_ratio
            if kind in ("matroska", "webm") and re.search("vp[89]|av1", encoding.encoder):
                # PyAV has no way to say it to the container, and these streams do not say it.
                self.notes.append(
                    f"the pixel aspect ratio, {like.sample_aspect_ratio}, is not carried over by "
                    f"{encoding.encoder} in {kind}: choose .mp4 or .mov"
                )
        if encoding.encoder == "libx265" and kind in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # Apple's players take no other
        try:
            with _priority_kept():
                context.open()
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(
                f"the encoder {encoding.encoder} does not open ({reason(error)}): check its "
                "preset and quality, and whether this machine has the hardware that it needs"
            ) from error

    def _rotate(self) -> None:
        like = self._like
        if like.display_matrix is None:
            return
        if hasattr(self.stream, "set_display_matrix"):
            self.stream.set_display_matrix(like.display_matrix)
        elif like.rotation:
            self.notes.append(
                f"the rotation by {like.rotation} degrees is not carried over: PyAV 18 can"
            )


@contextmanager
def open_encoder(
    path: Path, *, like: SourceInfo, rate: Fraction, encode: EncodeOptions = DEFAULT
) -> Iterator[Encoder]:
    """The encoder that `open_sink` opens for `path`, set up in the same way, and no file.

    For parts of a video that are encoded apart and joined later.

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
    """Makes errors of FFmpeg and of the system VideoErrors that name the output."""
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(
            f"{name} could not be written ({reason(error)}): check free space, "
            "and whether the container takes this size and format"
        ) from error


@contextmanager
def _priority_kept() -> Iterator[None]:
    """Leaves this thread as it was: SVT-AV1, as root, makes the one that opens it real-time.

    Its own threads may be; whatever is started from this one later would let nothing else run.
    """
    if not hasattr(os, "sched_getscheduler"):  # Linux alone has it.
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)
