"""Where frames go: a video file, a folder of PNGs, or Y4M on stdout.

A file is written as NAME.partial.EXT (a folder as NAME.partial) and renamed when it is whole, so
that under the final name there is never a broken one. One run at a time may write it. After an
error or Ctrl-C the partial file is finished, so that it plays up to there, and kept; where that
cannot be done (a full disk, say, with MP4, whose index comes last) it is removed. After a kill it
stays as it is: Matroska and WebM then play, MP4 and MOV do not.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.errors import InterpolationError, VideoError
from runtime.locks import Lock
from runtime.video.colour import ColourConverter
from runtime.video.reading.info import SourceInfo, reason
from runtime.video.reading.tags import open_for_reading
from runtime.video.timeline import output_time_base
from runtime.video.writing.alpha import opaque, without_alpha_tag
from runtime.video.writing.destination import (
    check_destination,
    check_own,
    claimed_file,
    container_of,
    is_folder,
    partial_path,
)
from runtime.video.writing.encoder import Encoding, encoding_for, tag
from runtime.video.writing.images import FolderSink, Y4MSink
from runtime.video.writing.tracks import AudioMode, TrackWriter, kept_metadata, open_tracks

_WRITTEN_SOON = {"cluster_time_limit": "1000", "flush_packets": "1"}
"""Matroska holds 5 seconds back by default, the header among them: too much to lose by a kill."""

_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder")


class Sink(Protocol):
    """Takes frames and packets.

    Attributes:
        notes: What the user should know; complete at the end.
        written: Frames so far.
        partial: After an error, what is left: a file that plays up to there, a folder with the
            pictures so far, or None.
    """

    notes: list[str]
    written: int
    partial: Path | None

    def write(self, frame: VideoFrame, time: Fraction) -> None:
        """Writes a frame that is shown at `time`, in seconds on the output's clock.

        Its stamp is set, otherwise it is left as it is; it may be written again.

        Raises:
            VideoError: If it cannot be written.
        """

    def write_packet(self, packet: Packet[Any]) -> None:
        """Writes a packet of the source, whose stamps are shifted with it.

        Raises:
            VideoError: If it cannot be written.
        """


class _OwnedSink(Sink, Protocol):
    def close(self) -> None:
        """Ends well."""

    def abort(self) -> None:
        """Ends after an error."""


@contextmanager
def open_sink(
    path: str | Path | Any,
    *,
    like: SourceInfo,
    rate: Fraction,
    time_base: Fraction | None = None,
    origin: Fraction | None = None,
    codec: str | None = None,
    quality: float | None = None,
    preset: str | None = None,
    lossless: bool = False,
    audio: AudioMode = "copy",
    strict: bool = False,
) -> Iterator[Sink]:
    """Opens an output like `like`; leaving the block ends it, with an error as without.

    Args:
        path: .mp4, .mkv, .mov, .m4v or .webm; a folder or a pattern as %06d.png, new or empty;
            "-" for Y4M on stdout, or a binary file object for Y4M.
        like: The source.
        rate: Nominal frames a second.
        time_base: The tick, in seconds, to which times are rounded; by default one that makes
            frames at `rate` whole. Matroska and WebM round to milliseconds in any case.
        origin: The stamp in the source, in seconds, that is the output's 0; by default the
            source's.
        codec: See `encoding_for`, as the next three.
        quality: On the encoder's own scale.
        preset: The encoder's own.
        lossless: Bit by bit.
        audio: Copied, made AAC or left out.
        strict: Whether damaged audio that has to be decoded is an error; by default it is counted
            and becomes silence.

    Raises:
        VideoError: If this cannot be written, before or while it is.
    """
    origin = like.origin if origin is None else origin
    choice = {"codec": codec, "quality": quality, "preset": preset}
    sink: _OwnedSink
    if not isinstance(path, str | Path) or str(path) == "-":
        _refuse_choice("Y4M", choice, lossless)
        sink = Y4MSink(sys.stdout.buffer if isinstance(path, str | Path) else path, like, rate)
    elif is_folder(path):
        _refuse_choice("PNG", choice, lossless)
        check_destination(path, like.name)
        sink = FolderSink(Path(path), like)
    else:
        path = Path(path)
        check_destination(path, like.name)
        encoding = encoding_for(
            like,
            path.suffix.lower(),
            codec=codec,
            quality=quality,
            preset=preset,
            lossless=lossless,
        )
        sink = FileSink(path, like, rate, time_base or output_time_base(rate), encoding)
        sink.open(audio, origin, strict)
    try:
        yield sink
        sink.close()
    except BaseException as error:
        sink.abort()
        if isinstance(error, InterpolationError) and sink.partial is not None:
            raise type(error)(f"{error}; what was done until then is in {sink.partial}") from error
        raise


@contextmanager
def open_encoder(
    path: Path,
    *,
    like: SourceInfo,
    rate: Fraction,
    codec: str | None = None,
    quality: float | None = None,
    preset: str | None = None,
    lossless: bool = False,
) -> Iterator[FileSink]:
    """The encoder that `open_sink` opens for `path`, set up in the same way, and no file.

    For parts of a video that are encoded apart: see `FileSink.encoded` and `write_encoded`.

    Raises:
        VideoError: If there is no such encoder, or it does not open.
    """
    encoding = encoding_for(
        like, path.suffix.lower(), codec=codec, quality=quality, preset=preset, lossless=lossless
    )
    sink = FileSink(path, like, rate, output_time_base(rate), encoding)
    sink.open_without_file()
    try:
        yield sink
    finally:
        sink.drop()


class FileSink:
    """A video file with its tracks.

    Attributes:
        notes: See `Sink`, as the next two.
        written: Frames so far.
        partial: What is left after an error.
        tick: The unit of the packets' stamps, in seconds.
    """

    def __init__(
        self, path: Path, like: SourceInfo, rate: Fraction, tick: Fraction, encoding: Encoding
    ) -> None:
        self.notes = list(encoding.notes)
        self.written = 0
        self.partial: Path | None = None
        self._path = path
        self._beside = partial_path(path)
        self._like = like
        self._rate = rate
        self.tick = tick
        self._encoding = encoding
        self._converter, self._opaque = ColourConverter(), ColourConverter()
        self._tracks: dict[int, TrackWriter] = {}
        self._lock: Lock | None = None
        self._output: Any = None
        self._stream: Any = None
        self._encodes = False

    @property
    def encoder(self) -> tuple[str, bytes]:
        """FFmpeg's name, and the header that all packets share."""
        return self._encoding.encoder, bytes(self._stream.codec_context.extradata or b"")

    def open(self, audio: AudioMode, origin: Fraction, strict: bool = False) -> None:
        """Writes the header, so that what cannot be is known before a frame is made."""
        kind = container_of(self._path)
        with self._errors():
            self._lock = claimed_file(self._beside)
        self.notes += self._lock.notes
        try:
            with self._errors():
                # "file:" keeps a name with a colon from being taken for a protocol.
                self._output = av.open(
                    f"file:{self._beside}",
                    "w",
                    format=kind,
                    container_options=_WRITTEN_SOON if kind in ("matroska", "webm") else {},
                )
                self._add_video(kind)
                self._tracks = open_tracks(
                    self._output, self._like, audio, origin, self.notes, strict
                )
                self._describe(origin)
                self._output.start_encoding()
        except BaseException:
            self.abort()
            raise

    def open_without_file(self) -> None:
        """Opens the encoder alone."""
        kind = container_of(self._path)
        with self._errors():
            self._output = av.open(io.BytesIO(), "w", format=kind)
            self._add_video(kind)

    def drop(self) -> None:
        """Leaves the encoder behind, and what was opened for it."""
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._output.close()

    def write(self, frame: VideoFrame, time: Fraction) -> None:
        """See `Sink`."""
        self.write_encoded(self.encoded(frame, time))
        self.written += 1

    def encoded(self, frame: VideoFrame | None, time: Fraction = Fraction(0)) -> list[Packet[Any]]:
        """What the encoder gives for a frame that is shown at `time`; with None, its rest.

        Raises:
            VideoError: If it fails.
        """
        if frame is not None:
            frame = self._fitted(frame)
            frame.pts = round(time / self.tick)
            frame.time_base = self.tick
            frame.duration = round(1 / self._rate / self.tick)
            frame.pict_type = 0  # the encoder decides, not the source
        self._encodes = True
        with self._errors():
            packets: list[Packet[Any]] = self._stream.encode(frame)
        return packets

    def write_encoded(self, packets: Iterable[Packet[Any]]) -> None:
        """Writes packets of the encoder, in its order.

        Raises:
            VideoError: If they cannot be written.
        """
        with self._errors():
            for packet in packets:
                packet.stream = self._stream
                self._output.mux(packet)

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

    def write_packet(self, packet: Packet[Any]) -> None:
        """See `Sink`."""
        writer = self._tracks.get(packet.stream_index)
        if writer is not None:
            with self._errors():
                writer.write(packet)

    def close(self) -> None:
        """Ends well: under the final name."""
        assert self._lock is not None
        with self._errors():
            self._finish()
            check_own(self._lock)
            self._beside.replace(self._path)
        self._lock.release()

    def abort(self) -> None:
        """Ends after an error: what plays stays under the partial name."""
        lock, playable = self._lock, False
        assert lock is not None
        try:
            if self._output is not None:
                if self.written:
                    with suppress(av.error.FFmpegError, OSError, ValueError):
                        self._finish()
                with suppress(av.error.FFmpegError, OSError):
                    self._output.close()
            playable = self.written > 0 and lock.holds() and _is_playable(self._beside)
        finally:
            if playable:
                self.partial = self._beside
            elif lock.holds():
                self._beside.unlink(missing_ok=True)
            lock.release()

    def _finish(self) -> None:
        if self._encodes:  # An encoder that never saw a frame need not answer.
            self._output.mux(self._stream.encode(None))
        for writer in self._tracks.values():
            writer.finish()
        self._output.close()

    def _add_video(self, kind: str) -> None:
        like, encoding = self._like, self._encoding
        try:
            stream = self._output.add_stream(
                encoding.encoder, rate=self._rate, options=encoding.options
            )
        except ValueError as error:
            other = ".mov" if encoding.encoder.startswith("prores") else ".mkv"
            raise VideoError(
                f"{kind} does not take {encoding.encoder}: choose {other} or another codec"
            ) from error
        context = stream.codec_context
        context.width, context.height = like.width, like.height
        context.time_base = stream.time_base = self.tick
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
        stream.metadata.update(without_alpha_tag(kept_metadata(like.video_metadata)))
        self._stream = stream
        self._rotate()

    def _rotate(self) -> None:
        like = self._like
        if like.display_matrix is None:
            return
        if hasattr(self._stream, "set_display_matrix"):
            self._stream.set_display_matrix(like.display_matrix)
        elif like.rotation:
            self.notes.append(
                f"the rotation by {like.rotation} degrees is not carried over: PyAV 18 can"
            )

    def _describe(self, origin: Fraction) -> None:
        metadata = without_alpha_tag(self._like.metadata)
        self._output.metadata.update(
            {k: v for k, v in metadata.items() if k.lower() not in _OF_THE_FILE}
        )
        if chapters := _shifted(self._like.chapters, origin, self._like.end):
            self._output.set_chapters(chapters)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(
                f"{self._path.name} could not be written ({reason(error)}): check free space, "
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


def _refuse_choice(kind: str, choice: dict[str, Any], lossless: bool) -> None:
    given = [name for name, value in choice.items() if value is not None]
    if given:
        raise VideoError(f"{kind} takes no {' or '.join(given)}: leave it out")
    del lossless  # it is that in any case


def _shifted(
    chapters: list[dict[str, Any]], origin: Fraction, end: Fraction | None
) -> list[dict[str, Any]]:
    """Chapters on the output's clock, those that lie in it."""
    tick = Fraction(1, 1000)
    kept = []
    for chapter in chapters:
        own = Fraction(chapter["time_base"])
        begins = max(chapter["start"] * own, origin)
        over = chapter["end"] * own if end is None else min(chapter["end"] * own, end)
        if over > begins:
            start, stop = (round((moment - origin) / tick) for moment in (begins, over))
            kept.append({**chapter, "start": start, "end": stop, "time_base": tick})
    return kept


def _is_playable(path: Path) -> bool:
    try:
        with open_for_reading(f"file:{path}") as clip:
            return next(clip.decode(video=0), None) is not None
    except (av.error.FFmpegError, OSError, IndexError):
        return False
