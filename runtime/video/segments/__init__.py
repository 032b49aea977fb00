"""Renders a video in segments, which may run on different machines, and joins them.

    scan -> analyse (each span) -> plan (the whole) -> render (each segment) -> join

A span is a range of the source that begins at a key frame; each span is analysed alone. The output
frames are then planned once for the whole video, so that the result equals that of
`interpolate_video` frame for frame, wherever the video is divided. A segment begins at a key frame
and also decodes the first frame of the next segment, so that no pair of frames is lost.
`runtime.cluster` runs the steps on workers.
"""
