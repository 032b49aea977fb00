"""Writes frames without a container: Y4M to a pipe, and PNG files to a folder."""

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
from runtime.files import empty_folder, rename_over
from runtime.video.colour import ColourConverter
from runtime.video.planes import has_alpha
from runtime.video.reading.info import SourceInfo, reason
from runtime.video.transparency import without_alpha
from runtime.video.writing.destination import (
    check_folder,
    check_own,
    claimed_folder,
    file_names,
    folder_of,
    partial_path,
)
from runtime.video.writing.encoding import tag
from runtime.video.writing.losses import image_notes
from runtime.video.writing.rgb import RGBConverter


class Y4MSink:
    """Writes Y4M to a binary file object, which stays open.

    Attributes:
        notes: Notes for the user.
        written: Number of frames written so far.
        partial: Always None, as no file is left after an error.
        alpha: Always False, as Y4M has no alpha channel.
    """

    def __init__(self, stream: Any, like: SourceInfo, rate: Fraction, alpha: bool = True) -> None:
        """Writes the header.

        Args:
            stream: The binary file object.
            like: Properties of the source.
            rate: Frames a second.
            alpha: Whether the user wants the alpha channel, for a note.

        Raises:
            VideoError: If it cannot be written.
        """
        self.notes = image_notes(like, "Y4M", alpha)
        self.alpha = False
        self.written = 0
        self.partial: Path | None = None
        self._file = stream
        self._converter = ColourConverter()
        self._format = _y4m_format(like)
        if self._format != without_alpha(like.pixel_format).replace("yuvj", "yuv"):
            self.notes.append(
                f"pixel format: {self._format} in the output, {like.pixel_format} in the source"
            )
        with self._errors():
            # strict -1 permits more than 8 bits, a widely supported extension of the format.
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
        """Writes a frame; ignores its time, which Y4M cannot store.

        Raises:
            VideoError: If it cannot be written.
        """
        del time
        if frame.format.name != self._format:
            frame = self._converter.reformatted(frame, self._format, frame)
        frame.pts, frame.time_base = self.written, self._video.codec_context.time_base
        with self._errors():
            self._output.mux(self._video.encode(frame))
        self.written += 1

    def end_at(self, time: Fraction) -> None:
        """Ignores the end of the last frame, which Y4M cannot store."""

    def write_packet(self, packet: Packet[Any]) -> None:
        """Ignores a packet of another track, which Y4M cannot store."""

    def close(self) -> None:
        """Writes the remaining frames and flushes the file object.

        Raises:
            VideoError: If they cannot be written.
        """
        with self._errors():
            self._output.mux(self._video.encode(None))
            self._output.close()
            self._file.flush()

    def abort(self) -> None:
        """Closes the output after an error; data in the pipe cannot be removed."""
        with suppress(av.error.FFmpegError, OSError, ValueError):
            self._output.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(
                f"the Y4M stream could not be written ({reason(error)}): check whether "
                "the program that reads it still runs"
            ) from error


class FolderSink:
    """Writes PNG files of 8 or 16 bits to a folder, numbered from 1 on.

    Attributes:
        notes: Notes for the user.
        written: Number of images written so far.
        partial: After an error, the folder with the images so far; None if there are none.
        alpha: Whether the images have an alpha channel.
    """

    def __init__(
        self, path: Path, like: SourceInfo, alpha: bool = True, *, overwrite: bool = False
    ) -> None:
        """Creates the folder under its partial name.

        Args:
            path: The folder, or a pattern as %06d.png.
            like: Properties of the source.
            alpha: Whether to write the alpha channel of a source that has one.
            overwrite: Whether a folder of images that exists is replaced.

        Raises:
            VideoError: If the folder cannot be written.
        """
        self.alpha = alpha and has_alpha(like.pixel_format)
        self.notes = image_notes(like, "PNG", alpha)
        self.written = 0
        self.partial: Path | None = None
        check_folder(path, overwrite=overwrite)
        self._path = path
        self._overwrite = overwrite
        self._folder = folder_of(path)
        self._name = file_names(path)
        self._partial_path = partial_path(path)
        context = CodecContext.create("png", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height = like.width, like.height
        names = ("rgba", "rgba64be") if self.alpha else ("rgb24", "rgb48be")
        context.pix_fmt = names[like.bits > 8]
        self._converter = RGBConverter(names[like.bits > 8], like)
        context.time_base = Fraction(1, 25)
        context.sample_aspect_ratio = Fraction(1)  # Without it FFmpeg writes 0:1.
        context.thread_type = "SLICE"  # Frame threads would return an image several frames late.
        self._context = context
        with self._errors():
            self._lock = claimed_folder(self._partial_path)
        self.notes += self._lock.notes
        try:
            with self._errors():
                empty_folder(self._partial_path)
        except BaseException:
            self._lock.release()
            raise

    def write(self, frame: VideoFrame, time: Fraction) -> None:
        """Writes a frame as the next file; ignores its time, which PNG files do not have.

        Raises:
            VideoError: If it cannot be written.
        """
        del time
        converted = self._converter.converted(frame)
        converted.pts = self.written
        with self._errors():
            data = b"".join(bytes(packet) for packet in self._context.encode(converted))
            file = self._partial_path / (self._name % (self.written + 1))
            try:
                file.write_bytes(data)
            except BaseException:
                file.unlink(missing_ok=True)
                raise
        self.written += 1

    def end_at(self, time: Fraction) -> None:
        """Ignores the end of the last frame, which a folder of images cannot store."""

    def write_packet(self, packet: Packet[Any]) -> None:
        """Ignores a packet of another track, which a folder of images cannot store."""

    def close(self) -> None:
        """Renames the folder to its final name; a folder of an earlier run is removed.

        Raises:
            VideoError: If it cannot be renamed.
        """
        with self._errors():
            check_own(self._lock)
            check_folder(self._path, overwrite=self._overwrite)
            if self._folder.exists():
                rename_over(self._partial_path, self._folder)
            else:
                self._partial_path.rename(self._folder)
        self._lock.release()

    def abort(self) -> None:
        """Closes the output after an error; the images so far stay under the partial name."""
        if self._lock.is_current():
            if self.written:
                self.partial = self._partial_path
            else:
                shutil.rmtree(self._partial_path, ignore_errors=True)
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
