"""A long video in parts: looked through, cut at key frames, rendered apart and joined.

    scan -> look (each part) -> decide (the whole) -> render (each part) -> join

What is shown, and where the scenes are cut, is decided once for the whole video, so that the
result is that of `interpolate_video` frame for frame wherever the cuts fall. A part begins at a
key frame and ends with the key frame of the next, which belongs to both: no pair is lost. Nothing
here knows who runs the steps; `runtime.cluster` spreads them.
"""
