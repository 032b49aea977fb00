"""Frame interpolation without PyTorch: the API for programs that embed it.

    from runtime import Interpolator, interpolate_video

    with Interpolator.open("model.onnx") as vfi:
        middle = vfi.interpolate(frame0, frame1)

    interpolate_video("in.mp4", "out.mp4", model="model.onnx", factor=2)

Frames are RGB NumPy arrays (H, W, 3): uint8, uint16 or float32. `interpolate_video`, `plan_video`,
`VideoOptions`, `VideoReport` and `Plan` need PyAV, which is imported when one of them is first
used.
"""

from typing import TYPE_CHECKING, Any

from runtime.batching import PairRequest
from runtime.errors import BackendError, FrameError, InterpolationError, ModelError, VideoError
from runtime.interpolator import Interpolator

if TYPE_CHECKING:
    from runtime.video import Plan, VideoOptions, VideoReport, interpolate_video, plan_video

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "FrameError",
    "InterpolationError",
    "Interpolator",
    "ModelError",
    "PairRequest",
    "Plan",
    "VideoError",
    "VideoOptions",
    "VideoReport",
    "interpolate_video",
    "plan_video",
]

_OF_VIDEO = ("Plan", "VideoOptions", "VideoReport", "interpolate_video", "plan_video")


def __getattr__(name: str) -> Any:
    """Imports `runtime.video`, and PyAV with it, when one of its names is first used."""
    if name in _OF_VIDEO:
        from runtime import video

        return getattr(video, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
