"""Decodes a video track; VP8 and VP9 with alpha by libvpx, as FFmpeg's own decoders drop alpha."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import av
from av.codec import CodecContext
from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.video.reading.info import DECODER_OPTIONS
from runtime.video.reading.tags import readable

_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codec -> the decoder that decodes alpha too, if the track's tag alpha_mode declares it."""

_UNSPECIFIED = {"color_range": 0, "colorspace": 2, "color_primaries": 2, "color_trc": 2}
"""Colour tag of a frame -> FFmpeg's number where it is not declared."""


class Decoder:
    """Decodes the packets of a video track.

    Attributes:
        notes: Notes for the user.
    """

    def __init__(self, stream: Any) -> None:
        """Chooses the decoder.

        Args:
            stream: PyAV's stream of the track.
        """
        self.notes: list[str] = []
        self._stream = stream
        self._own: Any = None
        self._declared: VideoFrame | None = None
        name = _WITH_ALPHA.get(stream.codec_context.codec.canonical_name)
        tags = {tag.lower(): value for tag, value in readable(stream.metadata).items()}
        if name is None or tags.get("alpha_mode", "0") == "0":
            return
        try:
            self._own = CodecContext.create(name, "r")
            self._own.options = DECODER_OPTIONS
        except av.codec.codec.UnknownCodecError:
            self.notes.append(
                f"the alpha channel is not carried over: this FFmpeg has no {name} to decode it"
            )
            return
        self._own.extradata = stream.codec_context.extradata

    def decode(self, packet: Packet[Any]) -> list[VideoFrame]:
        """Decodes a packet; one without data returns the remaining frames.

        Raises:
            av.error.FFmpegError: If the packet is damaged.
        """
        if self._own is None:
            return self._stream.decode(packet)  # type: ignore[no-any-return]
        if self._declared is None:
            with suppress(av.error.FFmpegError):
                self._declared = next(iter(self._stream.decode(packet)), None)
        frames: list[VideoFrame] = self._own.decode(packet)
        for frame in frames:
            self._complete(frame)
        return frames

    def flush(self) -> None:
        """Forgets all packets, after a seek of the container."""
        if self._own is not None:
            self._own.flush_buffers()

    def declaring(self, frame: VideoFrame) -> VideoFrame:
        """A frame with what the container declares: `frame`, or one that FFmpeg decoded itself.

        A decoder that is opened without the container does not get rotation and HDR metadata.
        """
        return frame if self._declared is None else self._declared

    def _complete(self, frame: VideoFrame) -> None:
        """Sets the colour tags that only the container has."""
        if self._declared is None:
            return
        for tag, unspecified in _UNSPECIFIED.items():
            if int(getattr(frame, tag)) == unspecified:
                setattr(frame, tag, getattr(self._declared, tag))
