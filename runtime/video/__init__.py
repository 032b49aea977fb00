"""Videos at another frame rate: read, interpolated and written. `runtime` exports these names.

Nothing is imported before it is asked for: the arguments of the commands can be parsed, and their
help printed, where PyAV is not installed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.video.interpolate import interpolate_video, plan_video
    from runtime.video.options import Plan, VideoOptions, VideoReport

__all__ = ["Plan", "VideoOptions", "VideoReport", "interpolate_video", "plan_video"]


def __getattr__(name: str) -> Any:
    """Loads `runtime.video.interpolate`, and PyAV with it, when a name is first asked for."""
    if name in __all__:
        from runtime.video import interpolate

        return getattr(interpolate, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
