"""A backend without a model: it blends two images."""

from dataclasses import replace

import numpy as np

from runtime.backends.base import HostBackend
from runtime.errors import BackendError
from runtime.model_info import ModelInfo

INFO = ModelInfo(
    variant="small", weights_sha256="0" * 64, precision="fp32", io="frames", divisor=16,
    flow_scale=1.0, time_steps="arbitrary", steps_per_call=1, pairs_per_call=1, height=None,
    width=None, warp="gridsample", tuned_for="any", tool_version="0",
)  # fmt: skip


class Blend(HostBackend):
    """The mean of two images, weighted by the time step.

    A result with wrong neighbours or a wrong time step differs from the expected one.

    Args:
        keep: Whether `put` stores its images in `given`.
        info: Fields that differ from INFO.

    Attributes:
        calls: The number of pairs of each call.
        given: The images that `put` received, if `keep` is set.
        broken: Whether `run` fails.
    """

    name = "blend"

    def __init__(self, *, keep=False, **info):
        self.info = replace(INFO, **info)
        self.calls = []
        self.given = []
        self.broken = False
        self._keep = keep

    def put(self, image):
        if self._keep:
            self.given.append(image)
        return image

    def run(self, img0, img1, timestep):
        if self.broken:
            raise BackendError("the inference failed")
        self.calls.append(len(img0))
        blended = (1 - timestep) * img0 + timestep * img1
        return blended if img0.dtype == np.float32 else np.rint(blended).astype(np.uint8)

    def close(self):
        pass
