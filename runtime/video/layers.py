"""Takes frames with alpha apart into colour and alpha, for the model, and puts new ones together.

The model interpolates colour and alpha in two passes. For the first one, colour is multiplied by
alpha (a composite over black): under transparent pixels it is arbitrary and must not steer the
motion. The new colour is divided by the new alpha again. Alpha is taken as straight, not
premultiplied, since PyAV does not expose what a frame declares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from runtime.batching import PairRequest
from runtime.frames import Frame
from runtime.interpolator import Interpolator
from runtime.video.colour import ColourConverter
from runtime.video.planes import alpha_of, has_alpha, without_palette
from runtime.video.transparency import AlphaConverter, AlphaMode

_NOISE = 1 / 64
"""Share of full scale. Where both real frames have one alpha and that of the model differs by less,
the new frame gets it too, so that opaque and transparent areas stay exactly that."""

Tag = TypeVar("Tag")


class Layers(NamedTuple):
    """A real frame with alpha, taken apart.

    Attributes:
        plain: The frame without alpha.
        colour: RGB (H, W, 3), uint8 or uint16.
        image: `colour` multiplied by alpha, for the model; the same array for an opaque frame.
        alpha: (H, W), of the type of `colour`.
        pixel_format: The format with alpha for new frames after this one.
    """

    plain: VideoFrame
    colour: NDArray[Any]
    image: NDArray[Any]
    alpha: NDArray[Any]
    pixel_format: str


class NewLayers(NamedTuple):
    """The results of the model for a new frame with alpha.

    Attributes:
        image: RGB (H, W, 3), multiplied by alpha.
        alpha: (H, W, 3), three channels that are nearly equal; None where the alpha of the real
            frames is mixed.
        real: The layers of the frames before and after it.
        t: Its position between them, in (0, 1).
    """

    image: NDArray[Any]
    alpha: NDArray[Any] | None
    real: tuple[Layers, Layers]
    t: float


def mixed(first: NDArray[Any], second: NDArray[Any], t: float) -> NDArray[Any]:
    """The linear mix of two arrays of integers at `t`, 0 for the first, rounded to nearest."""
    exact = first * np.float32(1 - t) + second * np.float32(t)
    return np.rint(exact).astype(first.dtype)


class LayerConverter:
    """Converts the frames of one stream to layers, and layers to frames.

    One thread at a time may call a method; different threads may call different methods.
    """

    def __init__(
        self, converter: ColourConverter, depth: int, pixel_format: str, mode: AlphaMode
    ) -> None:
        """Sets the formats.

        Args:
            converter: Converts colour.
            depth: Bits of the layers, 8 or 16.
            pixel_format: The source's format with alpha.
            mode: How the alpha of new frames is made: "interpolate" or "blend".
        """
        self._converter = converter
        self._alpha = AlphaConverter()
        self._depth = depth
        self._pixel_format = pixel_format
        self._mode = mode

    def taken_apart(self, frame: VideoFrame) -> Layers:
        """The layers of a decoded frame; one without alpha is opaque.

        Raises:
            VideoError: If the frame's matrix cannot be converted.
        """
        frame = without_palette(frame)
        plain = self._alpha.without_alpha(frame)
        colour = self._converter.rgb_from_frame(plain, self._depth)
        alpha = alpha_of(frame, self._depth)
        name = frame.format.name if has_alpha(frame.format.name) else self._pixel_format
        return Layers(plain, colour, self._multiplied(colour, alpha), alpha, name)

    def alpha_request(
        self, real: tuple[Layers, Layers], timesteps: Sequence[float]
    ) -> PairRequest | None:
        """The request for the alpha of new frames; None where it is mixed, as it does not move."""
        first, second = (layers.alpha for layers in real)
        if self._mode == "blend" or np.array_equal(first, second):
            return None
        return PairRequest(_three(first), _three(second), timesteps)

    def put_together(self, new: NewLayers) -> VideoFrame:
        """A new frame, in the format of the frame before it.

        Raises:
            VideoError: If the frame's matrix cannot be converted.
        """
        before, after = new.real
        alpha = self._new_alpha(new)
        nearest = before if new.t <= 1 / 2 else after
        colour = self._divided(new.image, alpha, nearest.colour)
        plain = self._converter.frame_from_rgb(colour, like=before.plain)
        return self._alpha.with_alpha(plain, alpha, self._depth, before.pixel_format)

    @property
    def _top(self) -> int:
        return (1 << self._depth) - 1

    def _new_alpha(self, new: NewLayers) -> NDArray[Any]:
        first, second = (layers.alpha for layers in new.real)
        if new.alpha is None:
            return mixed(first, second, new.t)
        one, two, three = (new.alpha[..., channel] for channel in range(3))
        # Ten times as fast as `sum` over the last axis.
        alpha = ((one.astype(np.uint32) + two + three + 1) // 3).astype(first.dtype)
        is_noise = np.maximum(alpha, first) - np.minimum(alpha, first) <= self._top * _NOISE
        return np.where((first == second) & is_noise, first, alpha)

    def _multiplied(self, colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
        """Colour times alpha, rounded to nearest; `colour` itself where all is opaque."""
        if (alpha == self._top).all():
            return colour
        product = colour * alpha[..., None].astype(np.uint32) + self._top // 2
        return (product // self._top).astype(colour.dtype)

    def _divided(
        self, image: NDArray[Any], alpha: NDArray[Any], nearest: NDArray[Any]
    ) -> NDArray[Any]:
        """Colour from its product with alpha; where alpha is 0, the colour of a real frame.

        The black that the product has there would spread into subsampled chroma.
        """
        if (alpha == self._top).all():
            return image
        partial = (alpha > 0) & (alpha < self._top)
        colour = np.where((alpha == 0)[..., None], nearest, image)
        scale = np.float32(self._top) / alpha[partial]
        wide = np.rint(image[partial] * scale[:, None])
        colour[partial] = np.minimum(wide, self._top).astype(colour.dtype)
        return colour


def with_alpha(
    vfi: Interpolator, requests: Iterable[tuple[Tag, PairRequest | None, PairRequest | None]]
) -> Iterator[tuple[Tag, list[Frame], list[Frame]]]:
    """Computes the colour and the alpha of new frames, lazily, in bounded memory.

    Args:
        vfi: The model.
        requests: In order, tuples of a tag, and of requests for colour and alpha, each of which may
            be None.

    Yields:
        Each tag with the images of both requests; empty lists for None.

    Raises:
        FrameError: If frames do not fit each other or the model.
        BackendError: If the inference fails.
    """

    def passes() -> Iterator[tuple[tuple[Tag, bool], PairRequest | None]]:
        """The requests one by one, with the tag and whether it is complete after this one."""
        for tag, colour, alpha in requests:
            yield (tag, alpha is None), colour
            if alpha is not None:
                yield (tag, True), alpha

    results: list[list[Frame]] = []
    for (tag, complete), images in vfi.interpolate_tagged(passes()):
        results.append(images)
        if complete:
            yield tag, results[0], results[1] if len(results) > 1 else []
            results = []


def _three(alpha: NDArray[Any]) -> NDArray[Any]:
    """An alpha channel (H, W) as an image with three equal channels (H, W, 3)."""
    return np.repeat(alpha[..., None], 3, axis=2)
