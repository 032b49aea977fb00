"""Interpolates a video in segments in one process, and compares the frames of videos."""

import hashlib
from fractions import Fraction

import av

from runtime.video.interpolate import mode_for
from runtime.video.segments.join import join
from runtime.video.segments.plan import analyse, plan, scan, spans
from runtime.video.segments.render import render

KEYS = {"g": "10", "keyint_min": "10", "sc_threshold": "0"}


def times_and_hashes(path):
    """(time in seconds, SHA-256 of the samples) of each frame."""
    with av.open(str(path)) as clip:
        return [
            (f.pts * Fraction(f.time_base), hashlib.sha256(f.to_ndarray().tobytes()).hexdigest())
            for f in clip.decode(video=0)
        ]


def interpolate_in_segments(
    source, destination, vfi, options, *, factor=2, rate=None, seconds="0.4"
):
    """Interpolates `source` as runtime.cluster does, but one segment after the other.

    Returns the plan with its segments.
    """
    scanned = scan(source, options, Fraction(seconds))
    analysed = [analyse(source, scanned, options, *span) for span in spans(scanned, options)]
    mode = mode_for(scanned.info, destination, factor, rate, options)
    planned = plan(scanned, analysed, mode, vfi.info.time_steps, options)
    files = []
    for segment in planned.segments:
        file = destination.with_name(f"{segment.number}.segment")
        made = render(vfi, source, scanned, segment, mode, options, like=destination, output=file)
        assert made.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert made.frames == len(segment.shown)
        files.append(file)
    join(source, destination, files, mode, options)
    return planned
