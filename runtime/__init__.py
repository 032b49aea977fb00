"""Frame interpolation without PyTorch: the API for programs that embed it.

    import numpy as np

    from runtime import Interpolator, interpolate_video

    frame0, frame1 = np.random.default_rng(0).integers(0, 256, (2, 480, 640, 3), dtype=np.uint8)

    with Interpolator.open("demo") as vfi:
        middle = vfi.interpolate(frame0, frame1)

    interpolate_video("in.mp4", "out.mp4", model="demo", factor=2)

"demo" is a small model that is shipped; `python -m export.build_engine` builds others.

Frames are NumPy arrays (H, W, 3), uint8, uint16 or float32, in RGB; in BGR, as OpenCV has them,
with `Interpolator.open(..., channels="bgr")`. Every error is a subclass of `InterpolationError`
with one sentence. The first use of a name imports its module and NumPy. The names for videos
(`interpolate_video`, `interpolate_video_resumable`, `plan_video`, `VideoOptions`, `VideoReport`,
`Plan`) need PyAV too.
"""

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.batching import PairRequest
    from runtime.errors import BackendError, FrameError, InterpolationError, ModelError, VideoError
    from runtime.interpolator import Interpolator
    from runtime.video import (
        Plan,
        VideoOptions,
        VideoReport,
        interpolate_video,
        interpolate_video_resumable,
        plan_video,
    )

__version__ = "0.2.0"

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
    "interpolate_video_resumable",
    "plan_video",
]

_MODULES = {
    "BackendError": "errors",
    "FrameError": "errors",
    "InterpolationError": "errors",
    "Interpolator": "interpolator",
    "ModelError": "errors",
    "PairRequest": "batching",
    "VideoError": "errors",
}
"""Name -> the module that defines it; `runtime.video` defines all others."""


def __getattr__(name: str) -> Any:
    """Imports the module of a public name when the name is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'video')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names; without PyAV not those for videos: completion imports every listed name."""
    names = __all__ if find_spec("av") else _MODULES
    return sorted({*globals(), *names} - {"Any", "TYPE_CHECKING", "find_spec", "importlib"})
