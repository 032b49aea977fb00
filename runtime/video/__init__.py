"""Reads, interpolates and writes videos. `runtime` exports the names of this package.

The modules are imported when a name is first used, so that the commands can parse their arguments
and print their help where PyAV is not installed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.video.interpolate import interpolate_video, plan_video
    from runtime.video.options import Plan, VideoOptions, VideoReport
    from runtime.video.segments.resume import interpolate_video_resumable

__all__ = [
    "Plan",
    "VideoOptions",
    "VideoReport",
    "interpolate_video",
    "interpolate_video_resumable",
    "plan_video",
]


def __getattr__(name: str) -> Any:
    """Imports the module of a name, and PyAV with it, when the name is first used."""
    if name == "interpolate_video_resumable":
        from runtime.video.segments.resume import interpolate_video_resumable

        return interpolate_video_resumable
    if name in __all__:
        from runtime.video import interpolate

        return getattr(interpolate, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
