"""Writes video files (a video track, audio and subtitles, tags, chapters) and animated images."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.video.reading.info import SourceInfo
from runtime.video.reading.tags import open_for_reading
from runtime.video.writing.alpha import without_alpha_tag
from runtime.video.writing.animation_encoder import MUXER_OPTIONS, AnimationEncoder
from runtime.video.writing.destination import (
    animation_of,
    check_own,
    claimed_file,
    container_of,
    partial_path,
)
from runtime.video.writing.encoder import Encoder, writing_errors
from runtime.video.writing.encoding import Encoding
from runtime.video.writing.timecode import with_timecode
from runtime.video.writing.tracks import AudioMode, TrackWriter, open_tracks

_EARLY_WRITES = {"cluster_time_limit": "1000", "flush_packets": "1"}
"""Options of Matroska. By default it buffers 5 seconds and the header, which a killed process
loses."""

_BY_DECODING_TIME = ("mp4", "mov")
"""Containers that store when packets are decoded, and how long the last one lasts."""

_MATROSKA_TICKS = 1000
"""Ticks a second of stamps in Matroska; FFmpeg's muxer has no option for more."""

_FILE_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Tags that describe the source file itself and are not copied."""


class Muxer:
    """A video file with its tracks, written under a partial name; created by `open_sink`.

    Attributes:
        notes: Notes for the user; complete at the end.
        written: Number of frames encoded so far; 0 if packets are copied.
        partial: After an error, the partial file if it is playable, else None.
        encoder: Encoder of the video track.
    """

    def __init__(
        self,
        path: Path,
        like: SourceInfo,
        *,
        rate: Fraction,
        tick: Fraction,
        encoding: Encoding,
        audio: AudioMode,
        origin: Fraction,
        strict: bool,
    ) -> None:
        """Writes the header, so that impossible settings fail before the first frame.

        Args:
            path: The final path.
            like: Properties of the source.
            rate: Nominal frames a second.
            tick: The unit of the stamps of the video track, in seconds.
            encoding: Encoder, options and pixel format of the video track.
            audio: "copy", "aac" or "none".
            origin: The stamp in the source, in seconds, that is time 0 of the file.
            strict: Whether damaged audio that has to be decoded is an error.

        Raises:
            VideoError: If the file cannot be written with these settings, or another run is
                writing it.
        """
        self.notes = list(encoding.notes)
        self.written = 0
        self.partial: Path | None = None
        self._path = path
        self._partial_path = partial_path(path)
        self._tracks: dict[int, TrackWriter] = {}
        self._output: Any = None
        self._held: Packet[Any] | None = None
        self._delay: int | None = None
        self._end = 0
        with writing_errors(path.name):
            self._lock = claimed_file(self._partial_path)
        self.notes += self._lock.notes
        try:
            with writing_errors(path.name):
                self._output = _opened(self._partial_path, container_of(path))
                made_by = AnimationEncoder if animation_of(path) else Encoder
                self.encoder = made_by(self._output, like, rate, tick, encoding)
                self.notes += self.encoder.notes
                if rate > _MATROSKA_TICKS and self._output.format.name in ("matroska", "webm"):
                    self.notes.append(
                        f"at {float(rate):g} frames a second several frames have the same time, as "
                        f"{path.suffix} counts milliseconds: choose .mp4 or .mov"
                    )
                self._tracks = open_tracks(self._output, like, audio, origin, self.notes, strict)
                if animation_of(path) is None:
                    self._describe(like, origin, rate)
                self._output.start_encoding()
        except BaseException:
            self.abort()
            raise

    @property
    def alpha(self) -> bool:
        """Whether the alpha channel of frames is written."""
        return self.encoder.alpha

    def write(self, frame: VideoFrame, time: Fraction) -> None:
        """Encodes and writes a frame that is shown at `time`, in seconds on the output's clock.

        Raises:
            VideoError: If it cannot be written.
        """
        with writing_errors(self._path.name):
            self._mux(self.encoder.encode(frame, time))
        self.written += 1

    def end_at(self, time: Fraction) -> None:
        """Sets when the last frame ends, in seconds on the output's clock."""
        self.encoder.end = time

    def write_encoded(self, packets: Iterable[Packet[Any]]) -> None:
        """Writes packets of an encoder with the same `Encoder.identity`, in decoding order.

        Raises:
            VideoError: If they cannot be written.
        """
        with writing_errors(self._path.name):
            self._mux(packets)

    def write_packet(self, packet: Packet[Any]) -> None:
        """Writes a packet of another track of the source; shifts its stamps to the output's clock.

        Raises:
            VideoError: If it cannot be written.
        """
        writer = self._tracks.get(packet.stream_index)
        if writer is not None:
            with writing_errors(self._path.name):
                writer.write(packet)

    def close(self) -> None:
        """Finishes the file and renames it to its final path.

        Raises:
            VideoError: If it cannot be finished.
        """
        with writing_errors(self._path.name):
            self._finish()
            check_own(self._lock)
            self._partial_path.replace(self._path)
        self._lock.release()

    def abort(self) -> None:
        """Closes the file after an error; it stays under its partial name if it is playable."""
        playable = False
        try:
            if self._output is not None:
                if self.written:
                    with suppress(av.error.FFmpegError, OSError, ValueError):
                        self._finish()
                with suppress(av.error.FFmpegError, OSError):
                    self._output.close()
            playable = (
                self.written > 0 and self._lock.is_current() and _is_playable(self._partial_path)
            )
        finally:
            if playable:
                self.partial = self._partial_path
            elif self._lock.is_current():
                self._partial_path.unlink(missing_ok=True)
            self._lock.release()

    def _mux(self, packets: Iterable[Packet[Any]]) -> None:
        """Writes packets of the video track; holds the last one back."""
        for packet in packets:
            packet.stream = self.encoder.stream
            pts, dts = packet.pts or 0, packet.dts or 0
            self._delay = pts - dts if self._delay is None else self._delay
            self._end = max(self._end, pts + (packet.duration or 0))
            if self._held is not None:
                self._output.mux(self._held)
            self._held = packet

    def _finish(self) -> None:
        self._mux(self.encoder.flush())
        if (last := self._held) is not None:
            pts, dts, delay = last.pts or 0, last.dts or 0, self._delay or 0
            # Only the duration of the last packet tells when the video ends, on the clock of
            # decoding times. With a variable rate and B-frames the clocks may end apart, so the
            # last packet is decoded when it is shown.
            ends_right = dts + (last.duration or 0) + delay == self._end
            if self._output.format.name in _BY_DECODING_TIME and not ends_right:
                last.dts, last.duration = pts, self._end - pts
            self._held = None
            self._output.mux(last)
        for writer in self._tracks.values():
            writer.finish()
        self._output.close()

    def _describe(self, like: SourceInfo, origin: Fraction, rate: Fraction) -> None:
        metadata = with_timecode(without_alpha_tag(like.metadata), like, rate, self.notes)
        if like.timecode_tracks and self._output.format.name in ("matroska", "webm"):
            self.notes.append(
                f"the timecode track becomes a tag, as {self._path.suffix} has no such tracks"
            )
        self._output.metadata.update(
            {k: v for k, v in metadata.items() if k.lower() not in _FILE_TAGS}
        )
        if chapters := _shifted(like.chapters, origin, like.end):
            self._output.set_chapters(chapters)


def _opened(path: Path, kind: str) -> Any:
    # Without "file:" FFmpeg would read a name with a colon as a protocol.
    options = _EARLY_WRITES if kind in ("matroska", "webm") else MUXER_OPTIONS.get(kind, {})
    return av.open(f"file:{path}", "w", format=kind, container_options=options)


def _shifted(
    chapters: list[dict[str, Any]], origin: Fraction, end: Fraction | None
) -> list[dict[str, Any]]:
    """The chapters that overlap the output, clipped to it, on its clock."""
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
    if path.suffix.lower() == ".webp":  # FFmpeg does not decode animations, which come as a whole.
        return path.stat().st_size > 0
    try:
        with open_for_reading(f"file:{path}") as clip:
            return next(clip.decode(video=0), None) is not None
    except (av.error.FFmpegError, OSError, IndexError):
        return False
