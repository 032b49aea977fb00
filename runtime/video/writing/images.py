"""Outputs that are pictures alone: Y4M for a pipe, and a folder of PNGs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from runtime.errors import VideoError
from runtime.files import empty_folder
from runtime.video.colour import ColourConverter
from runtime.video.reading.images import is_pattern
from runtime.video.reading.info import SourceInfo, reason
from runtime.video.writing.alpha import alpha_notes, without_alpha
from runtime.video.writing.destination import (
    check_folder,
    check_own,
    claimed_folder,
    folder_of,
    partial_path,
)
from runtime.video.writing.encoding import tag

_PICTURES = "%06d.png"


class Y4MSink:
    """Raw pictures for a pipe; the file object stays open."""

    def __init__(self, stream: Any, like: SourceInfo, rate: Fraction) -> None:
        self.notes = alpha_notes(like)
        self.written = 0
        self.partial: Path | None = None
        self._file = stream
        self._converter = ColourConverter()
        if like.tracks:
            self.notes.append(f"not carried over by Y4M: {', '.join(map(str, like.tracks))}")
        if any(value != 2 for value in (like.colorspace, like.color_primaries, like.color_trc)):
            self.notes.append("Y4M does not say matrix, primaries and transfer: tell the reader")
        if like.sample_aspect_ratio not in (None, 1):
            self.notes.append(
                f"Y4M is written without the pixel aspect ratio, {like.sample_aspect_ratio}: tell "
                "the reader"
            )
        self._format = _y4m_format(like)
        if self._format != without_alpha(like.pixel_format).replace("yuvj", "yuv"):
            self.notes.append(f"written as {self._format}, the source is {like.pixel_format}")
        with self._errors():
            # strict -1: more than 8 bits are an extension of the format that is widely read.
            self._output = av.open(
                stream, "w", format="yuv4mpegpipe", container_options={"strict": "-1"}
            )
            self._video: Any = self._output.add_stream("wrapped_avframe", rate=rate)
            context = self._video.codec_context
            context.width, context.height = like.width, like.height
            context.time_base = 1 / rate
            context.pix_fmt = self._format
            tag(context, like, self._format)
            self._output.start_encoding()

    def write(self, frame: VideoFrame, time: Fraction) -> None:
        """See `Sink`; Y4M has no times."""
        del time
        if frame.format.name != self._format:
            frame = self._converter.reformatted(frame, self._format, frame)
        frame.pts, frame.time_base = self.written, self._video.codec_context.time_base
        with self._errors():
            self._output.mux(self._video.encode(frame))
        self.written += 1

    def write_packet(self, packet: Packet[Any]) -> None:
        """See `Sink`; Y4M has no other tracks."""

    def close(self) -> None:
        """Ends the stream."""
        with self._errors():
            self._output.mux(self._video.encode(None))
            self._output.close()
            self._file.flush()

    def abort(self) -> None:
        """Ends after an error; what is in the pipe is there."""
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._output.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(
                f"the Y4M stream could not be written ({reason(error)}): its reader has ended or "
                "takes no more"
            ) from error


class FolderSink:
    """Numbered PNG files, 8 or 16 bits, from 1 on."""

    def __init__(self, path: Path, like: SourceInfo) -> None:
        self.notes = alpha_notes(like)
        self.written = 0
        self.partial: Path | None = None
        check_folder(path)
        self._folder = folder_of(path)
        self._name = path.name if is_pattern(path) else _PICTURES
        self._beside = partial_path(path)
        self._depth = 8 if like.bits <= 8 else 16
        self._converter = ColourConverter()
        if like.tracks:
            self.notes.append(f"not carried over: {', '.join(map(str, like.tracks))}")
        if like.rotation:
            self.notes.append(f"the pictures are not rotated by {like.rotation} degrees")
        context = CodecContext.create("png", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = like.width, like.height
        context.pix_fmt = "rgb24" if self._depth == 8 else "rgb48be"
        context.time_base = Fraction(1, 25)
        context.thread_type = "SLICE"  # with frame threads a picture would come out late
        self._context = context
        with self._errors():
            self._lock = claimed_folder(self._beside)
        self.notes += self._lock.notes
        try:
            with self._errors():
                empty_folder(self._beside)
        except BaseException:
            self._lock.release()
            raise

    def write(self, frame: VideoFrame, time: Fraction) -> None:
        """See `Sink`; pictures have no times."""
        del time
        rgb = self._converter.rgb_from_frame(frame, self._depth)
        if self._depth == 16:
            picture = VideoFrame.from_ndarray(rgb, format="rgb48le").reformat(format="rgb48be")
        else:
            picture = VideoFrame.from_ndarray(rgb, format="rgb24")
        picture.pts = self.written
        with self._errors():
            data = b"".join(bytes(packet) for packet in self._context.encode(picture))
            file = self._beside / (self._name % (self.written + 1))
            try:
                file.write_bytes(data)
            except BaseException:
                file.unlink(missing_ok=True)
                raise
        self.written += 1

    def write_packet(self, packet: Packet[Any]) -> None:
        """See `Sink`; pictures have no other tracks."""

    def close(self) -> None:
        """Ends well: under the final name."""
        with self._errors():
            check_own(self._lock)
            if self._folder.exists():
                self._folder.rmdir()  # empty, or this fails
            self._beside.rename(self._folder)
        self._lock.release()

    def abort(self) -> None:
        """Ends after an error: the pictures so far stay."""
        if self._lock.holds():
            if self.written:
                self.partial = self._beside
            else:
                shutil.rmtree(self._beside, ignore_errors=True)
        self._lock.release()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(
                f"{self._folder} could not be written ({reason(error)}): check free space"
            ) from error


def _y4m_format(like: SourceInfo) -> str:
    name = without_alpha(like.pixel_format).replace("yuvj", "yuv")
    plain = {"gray", *(f"yuv{kind}p" for kind in ("411", "420", "422", "444"))}
    deep = {f"yuv{kind}p{bits}le" for kind in ("420", "422", "444") for bits in (9, 10, 12, 14, 16)}
    if name in plain | deep:
        return name
    return "yuv444p" if like.bits <= 8 else "yuv444p16le"
