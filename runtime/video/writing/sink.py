"""Opens outputs: a video file, an animated image, a folder of PNG files, or Y4M on stdout.

A file is written as NAME.partial.EXT (a folder as NAME.partial) and renamed when it is complete, so
that the final path never has an incomplete one. One run at a time may write it. After an error or
Ctrl-C the partial file is finished, and contains the frames until then. If it cannot be finished
(an MP4 on a full disk, whose index is written last), it is removed. After a kill the partial file
stays: players can open Matroska and WebM, but not MP4 and MOV.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.errors import InterpolationError
from runtime.video.reading.info import SourceInfo
from runtime.video.writing.animation import check_choice, encoding_of, tick_of
from runtime.video.writing.destination import check_destination, is_folder
from runtime.video.writing.encoding import DEFAULT, EncodeOptions
from runtime.video.writing.images import FolderSink, Y4MSink
from runtime.video.writing.muxer import Muxer
from runtime.video.writing.tracks import AudioMode


class Sink(Protocol):
    """An output for frames and packets.

    Attributes:
        notes: Notes for the user; complete at the end.
        written: Number of frames written so far.
        partial: After an error, the path of the incomplete output: a playable file, or a folder
            with the images so far; None if there is none.
        alpha: Whether the alpha channel of frames is written. Otherwise frames must have none.
    """

    notes: list[str]
    written: int
    partial: Path | None

    @property
    def alpha(self) -> bool:
        """See the attributes."""

    def write(self, frame: VideoFrame, time: Fraction) -> None:
        """Writes a frame that is shown at `time`, in seconds on the output's clock.

        Sets the stamp of the frame and changes nothing else; a frame may be written several times.

        Raises:
            VideoError: If it cannot be written.
        """

    def end_at(self, time: Fraction) -> None:
        """Sets when the last frame ends, in seconds on the output's clock.

        Without this call it ends one nominal frame after it is shown.
        """

    def write_packet(self, packet: Packet[Any]) -> None:
        """Writes a packet of another track of the source; shifts its stamps to the output's clock.

        Raises:
            VideoError: If it cannot be written.
        """


class _OwnedSink(Sink, Protocol):
    def close(self) -> None:
        """Finishes the output after success."""

    def abort(self) -> None:
        """Closes the output after an error."""


@contextmanager
def open_sink(
    path: str | Path | BinaryIO,
    *,
    like: SourceInfo,
    rate: Fraction,
    time_base: Fraction | None = None,
    origin: Fraction | None = None,
    encode: EncodeOptions = DEFAULT,
    audio: AudioMode = "copy",
    strict: bool = False,
    overwrite: bool = False,
) -> Iterator[Sink]:
    """Opens an output for a source; leaving the `with` block finishes it, also after an error.

    Args:
        path: .mp4, .mkv, .mov, .m4v or .webm; .gif, .apng or .webp; a folder or a pattern as
            %06d.png; "-" for Y4M on stdout, or a binary file object for Y4M.
        like: Properties of the source.
        rate: Nominal frames a second.
        time_base: The tick, in seconds, to which times are rounded; by default one that divides the
            duration of a frame at `rate`. Matroska, WebM and WebP round to milliseconds, GIF to
            10 ms.
        origin: The stamp in the source, in seconds, that is time 0 of the output; by default
            `like.origin`.
        encode: How the frames of a video file are encoded.
        audio: "copy" for copied packets, "aac" to encode, "none" for no audio.
        strict: Whether damaged audio is an error with "aac"; by default it is counted and becomes
            silence.
        overwrite: Whether an output that exists may be replaced.

    Raises:
        VideoError: If the output cannot be written, on entry or later.
    """
    sink: _OwnedSink
    if not isinstance(path, str | Path) or str(path) == "-":
        check_choice("Y4M", encode)
        stream = sys.stdout.buffer if isinstance(path, str | Path) else path
        sink = Y4MSink(stream, like, rate, encode.alpha)
    elif is_folder(path):
        check_choice("PNG", encode)
        check_destination(path, like.name, overwrite=overwrite)
        sink = FolderSink(Path(path), like, encode.alpha, overwrite=overwrite)
    else:
        path = Path(path)
        check_destination(path, like.name, overwrite=overwrite)
        sink = Muxer(
            path,
            like,
            rate=rate,
            tick=time_base or tick_of(path, rate),
            encoding=encoding_of(like, path, rate, encode),
            audio=audio,
            origin=like.origin if origin is None else origin,
            strict=strict,
        )
    try:
        yield sink
        sink.close()
    except BaseException as error:
        sink.abort()
        if isinstance(error, InterpolationError) and sink.partial is not None:
            raise type(error)(f"{error}; the partial output is {sink.partial}") from error
        raise
