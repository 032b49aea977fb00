"""Writes audio and subtitle tracks: copies their packets, or encodes audio as AAC."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal, Protocol

import av
from av.packet import Packet

from runtime.errors import VideoError, counted
from runtime.video.reading.info import SourceInfo, Track, reason
from runtime.video.reading.packets import padding_of
from runtime.video.reading.tags import readable
from runtime.video.writing.destination import ANIMATIONS
from runtime.video.writing.layouts import aac_layout

AudioMode = Literal["copy", "aac", "none"]
"""Treatment of audio tracks: copy their packets, encode them as AAC, or leave them out."""

_ENCODED = "encoded as AAC"
"""Beginning of what `track_action` returns for an audio track that is decoded and encoded again."""

_NANO = Fraction(1, 10**9)
"""Seconds. The tick of shifted stamps, before the container rounds them to its own."""

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)

_AAC_BITS_A_CHANNEL = 96_000
_STALE = ("duration", "encoder", "bps", "number_of_frames", "number_of_bytes", "_statistics")
"""Prefixes of tags, in lower case, that describe the bytes of the source file."""


class TrackWriter(Protocol):
    """Writes the packets of one track of the source to the output."""

    def write(self, packet: Packet[Any]) -> None:
        """Writes the next packet, which has the stamps of the source."""

    def finish(self) -> None:
        """Ends the track after its last packet."""


def open_tracks(
    output: Any,
    like: SourceInfo,
    audio: AudioMode,
    origin: Fraction,
    notes: list[str],
    strict: bool = False,
) -> dict[int, TrackWriter]:
    """Adds the source's tracks to a container.

    Args:
        output: The container, open for writing.
        like: Properties of the source.
        audio: "copy", "aac" or "none", for audio tracks.
        origin: The stamp in the source, in seconds, that is time 0 of the output.
        notes: List to which notes for the user are added, by this call and by `finish`.
        strict: Whether damaged audio is an error with "aac".

    Returns:
        Index of the stream in the source -> writer.

    Raises:
        VideoError: If the container does not accept the codec of an audio track.
    """
    writers: dict[int, TrackWriter] = {}
    for track in like.tracks:
        what = track_action(output.format.name, track, audio)
        if what.startswith(_ENCODED):
            if what != _ENCODED:
                notes.append(f"{track}: {what}")
            writers[track.index] = _Aac(output, track, origin, like.end, notes, strict)
        elif what == "copied":
            writers[track.index] = _Copy(output, track, origin, notes)
        else:
            notes.append(f"{track}: {what}")
    return writers


def track_action(format_name: str, track: Track, audio: AudioMode) -> str:
    """What happens to a track: "copied", "encoded as AAC" with changes, or why it is left out.

    Args:
        format_name: FFmpeg's name of the container.
        track: The track.
        audio: "copy", "aac" or "none", for audio tracks.

    Raises:
        VideoError: If the container does not accept the codec of an audio track, or its channels
            cannot be encoded.
    """
    if track.kind == "audio" and audio == "none":
        return "not carried over"
    if track.kind == "audio" and audio == "aac":
        with av.open(io.BytesIO(), "w", format=format_name) as trial:
            if "aac" in trial.supported_codecs:
                return _encoded(track)
        raise VideoError(
            f"{format_name} does not support aac: choose .mkv, or --audio copy or none"
        )
    if f".{format_name}" in ANIMATIONS:
        return "not carried over"
    if accepts(format_name, track):
        return "copied"
    if track.kind == "audio":
        raise VideoError(
            f"{format_name} does not support {track.codec} audio: choose .mkv, or --audio "
            f"{'none' if format_name == 'webm' else 'aac'}"
        )
    return f"not carried over, because {format_name} does not support it"


def _encoded(track: Track) -> str:
    source = track.stream.codec_context.layout
    layout = aac_layout(source)
    if layout is None:
        raise VideoError(
            f"{track} has {source.nb_channels} channels without known positions: choose .mkv and "
            "--audio copy, or --audio none"
        )
    return f"{_ENCODED}, {layout.change}" if layout.change else _ENCODED


def accepts(format_name: str, track: Track) -> bool:
    """Whether a container accepts a copied track.

    This function writes a header to find out, since FFmpeg's tables are not complete: MOV lists
    Opus, but refuses it when the header is written.
    """
    try:
        with av.open(io.BytesIO(), "w", format=format_name) as trial:
            trial.add_stream_from_template(track.stream)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


def kept_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """The tags of a track without those that describe the bytes of the source file."""
    return {k: v for k, v in readable(metadata).items() if not k.lower().startswith(_STALE)}


def _describe(stream: Any, track: Track) -> None:
    stream.metadata.update(kept_metadata(track.stream.metadata))
    stream.disposition = track.stream.disposition.value


class _Copy:
    """Copies packets and shifts their stamps."""

    def __init__(self, output: Any, track: Track, origin: Fraction, notes: list[str]) -> None:
        self._output = output
        self._track = track
        self._origin = origin
        self._notes = notes
        self._stream = output.add_stream_from_template(track.stream)
        _describe(self._stream, track)
        self._padding = round(padding_of(track.stream) / _NANO)
        self._has_edit_lists = output.format.name in ("mp4", "mov")
        self._last: int | None = None
        self._dropped = 0

    def write(self, packet: Packet[Any]) -> None:
        """Shifts and writes a packet; drops one without a stamp or with one that falls back."""
        tick = Fraction(packet.time_base)
        pts, dts = (None if s is None else self._nano(s, tick) for s in (packet.pts, packet.dts))
        dts = pts if dts is None else dts
        if pts is not None and packet.is_discard and self._is_hidden(pts, packet, tick):
            return
        rises = self._last is None or (dts is not None and dts >= self._last)
        if dts is None or not rises:
            self._dropped += 1
            return
        self._last = dts
        duration = None if packet.duration is None else round(packet.duration * tick / _NANO)
        packet.time_base = _NANO
        packet.pts, packet.dts = dts if pts is None else pts, dts
        if duration is not None:
            packet.duration = duration
        packet.stream = self._stream
        self._output.mux(packet)

    def finish(self) -> None:
        if self._dropped:
            packets = counted(self._dropped, "packet")
            self._notes.append(f"{self._track}: {packets} out of order, dropped")

    def _is_hidden(self, pts: int, packet: Packet[Any], tick: Fraction) -> bool:
        """Whether a packet that the source's edit list hides would be heard in the output.

        In a container without edit lists, the packets stay that players skip because the file
        declares a padding. Where it declares none, the last packet before time 0 stays, since a
        decoder may need it for the next one; all tracks then begin later, by its duration at most.
        """
        if pts >= 0:
            return True
        kept = self._padding or (packet.duration or 0) * tick / _NANO
        return not self._has_edit_lists and pts < -kept - 1

    def _nano(self, stamp: int, tick: Fraction) -> int:
        return round((stamp * tick - self._origin) / _NANO)


class _Aac:
    """Decodes audio and encodes it as AAC; the first sample is at time 0 of the output.

    FFmpeg's aresample fills gaps, also at the start, with silence, and removes samples before the
    start, so that sound and video stay in step.
    """

    def __init__(
        self,
        output: Any,
        track: Track,
        origin: Fraction,
        end: Fraction | None,
        notes: list[str],
        strict: bool,
    ) -> None:
        self._output = output
        self._track = track
        self._origin = origin
        self._notes = notes
        self._strict = strict
        # PyAV has one decoder for each stream. The demuxer decodes only video, so that no other
        # thread uses this one.
        source = self._decoder = track.stream.codec_context
        rate = source.sample_rate if source.sample_rate in _AAC_RATES else 48000
        layout = aac_layout(source.layout)
        assert layout is not None  # `track_action` refuses the others.
        self._layout = layout.name
        self._stream = output.add_stream("aac", rate=rate, layout=self._layout)
        self._stream.bit_rate = _AAC_BITS_A_CHANNEL * self._stream.layout.nb_channels
        self._stream.time_base = Fraction(1, rate)
        _describe(self._stream, track)
        self._last = None if end is None else round((end - origin) * rate)
        self._graph: Any = None
        self._number = 0
        self._damaged = 0

    def write(self, packet: Packet[Any]) -> None:
        """Decodes and encodes a packet; one that cannot be decoded is counted and becomes silence.

        Raises:
            VideoError: If it cannot be decoded and `strict`.
        """
        self._convert(packet)
        self._number += 1

    def finish(self) -> None:
        """Encodes the remaining samples of decoder and filters.

        Raises:
            VideoError: If they cannot be decoded and `strict`.
        """
        flush: Packet[Any] = Packet()
        flush.time_base = self._track.stream.time_base
        self._convert(flush)
        if self._graph is not None:
            self._graph.push(None)
            self._encode()
        self._output.mux(self._stream.encode(None))
        if self._damaged:
            packets = counted(self._damaged, "damaged packet")
            self._notes.append(f"{self._track}: {packets}, replaced by silence")

    def _convert(self, packet: Packet[Any]) -> None:
        try:
            frames = self._decoder.decode(packet)
        except av.error.FFmpegError as error:
            self._damage(error)
            return
        for frame in frames:
            if self._graph is None:
                self._graph = self._create_graph(frame)
            if frame.pts is not None:
                tick = Fraction(frame.time_base)
                frame.pts = round((frame.pts * tick - self._origin) * frame.sample_rate)
                frame.time_base = Fraction(1, frame.sample_rate)
            self._graph.push(frame)
            self._encode()

    def _damage(self, error: Exception) -> None:
        self._damaged += 1
        # Only the first error raises, so that the file can be finished after it.
        if self._strict and self._damaged == 1:
            raise VideoError(
                f"packet {self._number} of {self._track} is damaged ({reason(error)}): repair it, "
                "or leave out --strict to skip it"
            ) from error

    def _create_graph(self, frame: Any) -> Any:
        graph = av.filter.Graph()
        rate = self._stream.codec_context.sample_rate
        source = graph.add_abuffer(
            format=frame.format.name,
            sample_rate=frame.sample_rate,
            layout=frame.layout.name,
            time_base=Fraction(1, frame.sample_rate),
        )
        steps = [
            ("aresample", f"{rate}:async=1:first_pts=0"),
            ("aformat", f"sample_fmts=fltp:channel_layouts={self._layout}"),
            *([("atrim", f"end_pts={self._last}")] if self._last is not None else []),
            ("asetnsamples", "n=1024:p=0"),
            ("abuffersink", None),
        ]
        before = source
        for name, arguments in steps:
            step = graph.add(name, arguments) if arguments else graph.add(name)
            before.link_to(step)
            before = step
        graph.configure()
        return graph

    def _encode(self) -> None:
        for frame in self._pulled():
            self._output.mux(self._stream.encode(frame))

    def _pulled(self) -> Iterator[Any]:
        while True:
            try:
                yield self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
