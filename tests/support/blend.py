"""A model that needs no file: frames between two by arithmetic."""

import numpy as np

from runtime.backends.base import HostBackend
from runtime.model_info import ModelInfo

INFO = ModelInfo(
    variant="small", weights_sha256="0" * 64, precision="fp32", io="frames", divisor=16,
    flow_scale=1.0, time_steps="arbitrary", steps_per_call=1, pairs_per_call=1, height=None,
    width=None, warp="gridsample", tuned_for="any", tool_version="0",
)  # fmt: skip


class Blend(HostBackend):
    """Frames between two by arithmetic: wrong neighbours and wrong times give other pictures."""

    name = "blend"

    def __init__(self, info=INFO):
        self.info = info

    def run(self, img0, img1, timestep):
        t = timestep.reshape(-1, 1, 1, 1)
        return np.rint((1 - t) * img0 + t * img1).astype(np.uint8)

    def close(self):
        pass
