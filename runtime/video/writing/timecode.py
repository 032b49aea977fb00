"""Converts timecodes, the labels HH:MM:SS:FF that count frames, to another rate and start.

FFmpeg reads the timecode track of MOV and MP4 as a tag of the video, and writes one for the tag.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor

from runtime.video.reading.info import SourceInfo

_TAG = "timecode"
_LABEL = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d{2,3})")

_MOST_FRAMES = 255
"""Largest number of frames a second that the timecode track of MOV and MP4 holds."""


def converted(
    label: str, *, source: Fraction, rate: Fraction, start: Fraction = Fraction(0)
) -> str | None:
    """The timecode of the first output frame.

    Hours, minutes and seconds of the label stay; its frames are counted at the new rate. Drop-frame
    timecode, written with ";" before the frames, keeps the time of day at rates of 30000/1001
    frames a second and multiples of it; at other rates the result counts every number.

    Args:
        label: The timecode of the first source frame, HH:MM:SS:FF.
        source: Frames a second that the label counts.
        rate: Frames a second of the output.
        start: Seconds after the first source frame at which the output begins.

    Returns:
        None if the label is not valid at the source's rate, or there are too many frames a second.
    """
    found = _LABEL.fullmatch(label.strip())
    if found is None:
        return None
    hours, minutes, seconds, frames = (int(found[k]) for k in (1, 2, 3, 5))
    old, new = _counted(source), _counted(rate)
    if minutes > 59 or seconds > 59 or frames >= old or not 0 < new <= _MOST_FRAMES:
        return None
    drops = found[4] != ":" and new % 30 == 0 and Fraction(rate).denominator == 1001
    dropped = new // 30 * 2 if drops else 0
    minutes += 60 * hours
    number = (60 * minutes + seconds) * new + frames * new // old
    number += ceil(start * rate) - dropped * (minutes - minutes // 10)
    # The inverse: every minute but each tenth lacks the first `dropped` numbers.
    tens, rest = divmod(number, 600 * new - 9 * dropped)
    skipped = max(0, (rest - dropped) // (60 * new - dropped)) if dropped else 0
    number += dropped * (9 * tens + skipped)
    total, frames = divmod(number, new)
    minutes, seconds = divmod(total, 60)
    mark = ";" if drops else ":"
    return f"{minutes // 60 % 24:02}:{minutes % 60:02}:{seconds:02}{mark}{frames:02}"


def with_timecode(
    tags: Mapping[str, str], like: SourceInfo, rate: Fraction, notes: list[str]
) -> dict[str, str]:
    """Tags of a file or a track with the timecode of the first output frame.

    Args:
        tags: The tags of the source.
        like: Properties of the source.
        rate: Nominal frames a second of the output.
        notes: List to which a note is added if the timecode cannot be converted; it is left out.
    """
    kept = dict(tags)
    for name in [name for name in tags if name.lower() == _TAG]:
        made = converted(
            tags[name],
            source=like.stored_rate,
            rate=rate,
            start=like.origin - like.beginning,
        )
        if made is not None:
            kept[name] = made
            continue
        del kept[name]
        note = f"not carried over: the timecode {tags[name]}, which does not fit the frame rates"
        if note not in notes:
            notes.append(note)
    return kept


def _counted(rate: Fraction) -> int:
    """The number of frames that timecode counts in a second, as FFmpeg rounds it."""
    return floor(rate + Fraction(1, 2))
