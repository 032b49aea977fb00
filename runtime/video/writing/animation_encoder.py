"""Encodes frames to animated GIF, APNG and WebP."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from math import floor
from typing import Any

from av.packet import Packet
from av.video.frame import VideoFrame

from runtime.video.reading.info import SourceInfo
from runtime.video.writing.encoder import Encoder
from runtime.video.writing.encoding import Encoding
from runtime.video.writing.rgb import PaletteConverter, RGBConverter

MUXER_OPTIONS = {"gif": {"loop": "0"}, "apng": {"plays": "0"}, "webp": {"loop": "0"}}
"""Container -> options of its muxer: the animation is repeated without end."""

_LONGEST = {"gif": 0xFFFF, "webp": 0xFFFFFF}
"""Container -> longest duration of a frame, in ticks; a frame that is shown longer is repeated."""

_FCTL_SIZE = 26
_FCTL_DELAY = 20
"""Size of the content of APNG's chunk fcTL, and the place of the delay in it: numerator and
denominator, 16 bits each."""

_LARGEST = 0xFFFF
"""Largest numerator and denominator."""


class AnimationEncoder(Encoder):
    """The frames of an animated image, with an open codec; an `Encoder` for gif, apng or webp.

    FFmpeg takes the duration of a frame from the stamp of the next one. That of the last frame is
    set here for APNG and WebP; the muxer of GIF takes it from the packet.
    """

    def __init__(
        self, output: Any, like: SourceInfo, rate: Fraction, tick: Fraction, encoding: Encoding
    ) -> None:
        """See `Encoder`."""
        self._kind = output.format.name
        self._images = (
            PaletteConverter(like)
            if self._kind == "gif"
            else RGBConverter(encoding.pixel_format, like)
        )
        self._first: int | None = None
        self._stamp = self._over = 0
        super().__init__(output, like, rate, tick, encoding)

    def encode(self, frame: VideoFrame, time: Fraction) -> list[Packet[Any]]:
        """See `Encoder.encode`. Frames of one tick get different stamps, one tick apart."""
        stamp = round(time / self.tick)
        if self._first is None:
            self._first = stamp
        else:
            stamp = max(stamp, self._stamp + 1)
        self._stamp = stamp
        return super().encode(frame, stamp * self.tick)

    def flush(self) -> list[Packet[Any]]:
        """See `Encoder.flush`; the last frame gets its duration."""
        packets = super().flush()
        if not packets:
            return []
        last = packets[-1]
        if self._kind == "apng":
            _set_apng_delay(last, (self._over - self._stamp) * self.tick)
        elif self._kind == "webp":
            _set_webp_duration(last, self._over - (self._first or 0))
        return packets

    def _encoded_until(self, end: int) -> list[Packet[Any]]:
        packets: list[Packet[Any]] = []
        self._over = end
        longest = _LONGEST.get(self._kind)
        while longest and self._waiting is not None and end - self._waiting[1] > longest:
            frame, stamp = self._waiting
            packets += super()._encoded_until(stamp + longest)
            self._waiting = frame, stamp + longest
        return packets + super()._encoded_until(end)

    def _converted(self, frame: VideoFrame) -> VideoFrame:
        return self._images.converted(frame)

    def _set_aspect(self, context: Any, kind: str, aspect: Fraction) -> None:
        """Sets the pixel aspect ratio of GIF; WebP has none, and FFmpeg's of APNG is wrong."""
        context.sample_aspect_ratio = aspect if kind == "gif" else Fraction(1)

    def _tag(self, context: Any) -> None:
        """Sets no colour tags: the frames have them, where APNG stores them."""

    def _rotate(self) -> None:
        """Sets no rotation, which no animated image stores."""


def _set_apng_delay(packet: Packet[Any], seconds: Fraction) -> None:
    """Sets the delay in the packet of a frame; the muxer keeps one that is not 0."""
    data = bytearray(bytes(packet))
    at = data.find(b"fcTL") + 4
    seconds = min(seconds, Fraction(_LARGEST))
    delay = seconds.limit_denominator(floor(_LARGEST / max(seconds, Fraction(1))))
    struct.pack_into(">HH", data, at + _FCTL_DELAY, delay.numerator, delay.denominator)
    end = at + _FCTL_SIZE
    struct.pack_into(">I", data, end, zlib.crc32(data[at - 4 : end]))
    packet.update(bytes(data))


def _set_webp_duration(packet: Packet[Any], duration: int) -> None:
    """Sets the duration of the last frame in the packet of a whole file.

    libwebp is not told when the last frame ends, and gives it the average of the others.

    Args:
        packet: The file, a RIFF container.
        duration: Duration of all frames, in ms.
    """
    data = bytearray(bytes(packet))
    at, last, before = 12, None, 0
    while at + 8 <= len(data):
        name, size = bytes(data[at : at + 4]), int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"ANMF":
            if last is not None:
                before += int.from_bytes(data[last : last + 3], "little")
            last = at + 20
        at += 8 + size + size % 2
    if last is not None:
        data[last : last + 3] = (duration - before).to_bytes(3, "little")
        packet.update(bytes(data))
