"""Image quality as in the literature: PSNR, two definitions of SSIM, interpolation error (IE).

All metrics take RGB images (H, W, 3) of floats in [0, 1], and sum in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.protocols import Metric
from bench.environment import MeasurementError

ImageArray = NDArray[Any]
"""(H, W, 3) RGB, floats in [0, 1]."""

_SIGMA = 1.5
_RADIUS = 5
"""The window of Wang et al. (2004): Gaussian, 11 pixels wide, with this sigma in pixels."""
_C1, _C2 = 0.01**2, 0.03**2


def psnr(prediction: ImageArray, target: ImageArray, *, rounded: bool = False) -> float:
    """-10 log10 of the mean squared error, in dB; inf where the two are identical.

    Args:
        prediction: (H, W, 3), floats in [0, 1].
        target: Like `prediction`.
        rounded: Whether the prediction is first rounded to 8 bits, as by RIFE and EMA-VFI. IFRNet
            and AMT publish unrounded values. At 35 dB the two differ by about 0.02 dB.

    Raises:
        MeasurementError: If an array is not an image (see `check_image`), or the sizes differ.
    """
    predicted, expected = _checked(prediction, target)
    if rounded:
        predicted = _levels(prediction) / 255
    error = float(np.square(predicted - expected).mean())
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim_3d(prediction: ImageArray, target: ImageArray) -> float:
    """The SSIM of the IFRNet paper: an 11x11x11 Gaussian window over colours, rows and columns.

    Borders are replicated on all three axes, and the result is the mean of the whole map, as in
    `calculate_ssim` of the authors' metric.py.

    Raises:
        MeasurementError: If an array is not an image, or the sizes differ.
    """
    from scipy.ndimage import gaussian_filter

    def blurred(volume: NDArray[np.float64]) -> NDArray[np.float64]:
        smooth: NDArray[np.float64] = gaussian_filter(
            volume, _SIGMA, radius=_RADIUS, mode="nearest"
        )
        return smooth

    a, b = (
        np.ascontiguousarray(array.transpose(2, 0, 1)) for array in _checked(prediction, target)
    )
    mean_a, mean_b = blurred(a), blurred(b)
    variance_a = blurred(a * a) - mean_a**2
    variance_b = blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    above = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    below = (mean_a**2 + mean_b**2 + _C1) * (variance_a + variance_b + _C2)
    return float((above / below).mean())


def ssim_2d(prediction: ImageArray, target: ImageArray) -> float:
    """The SSIM of mmagic and most other projects: an 11x11 Gaussian window on each colour.

    The result is the mean of the map without its borders.

    Raises:
        MeasurementError: If an array is not an image, the sizes differ, or the images are smaller
            than the window.
    """
    from skimage.metrics import structural_similarity

    predicted, expected = _checked(prediction, target)
    side = 2 * _RADIUS + 1
    if min(predicted.shape[:2]) < side:
        raise MeasurementError(
            f"the images are {predicted.shape[0]}x{predicted.shape[1]}, smaller than the window of "
            f"SSIM (2D): give images of at least {side}x{side}"
        )
    return float(
        structural_similarity(
            predicted,
            expected,
            channel_axis=2,
            data_range=1.0,
            gaussian_weights=True,
            sigma=_SIGMA,
            use_sample_covariance=False,
        )
    )


def interpolation_error(prediction: ImageArray, target: ImageArray) -> float:
    """Middlebury's IE: the mean absolute difference of both images in rounded 8-bit levels.

    Raises:
        MeasurementError: If an array is not an image, or the sizes differ.
    """
    _check_both(prediction, target)
    return float(np.abs(_levels(prediction) - _levels(target)).mean())


METRICS: Mapping[Metric, Callable[[ImageArray, ImageArray], float]] = {
    "psnr": psnr,
    "ssim_3d": ssim_3d,
    "ssim_2d": ssim_2d,
    "ie": interpolation_error,
}


def mean_db(values: Sequence[float]) -> float:
    """The mean of the finite PSNR values in dB; inf if none is finite.

    Identical images have an infinite PSNR, which is left out: callers count them separately.
    """
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.inf


def check_image(image: ImageArray, what: str, *, remedy: str = "convert the image") -> None:
    """Checks that an array is an RGB image of floats.

    Args:
        image: The array.
        what: Its name in the error message.
        remedy: What the error message asks the user to do.

    Raises:
        MeasurementError: If its shape is not (H, W, 3), its dtype is not floating-point, or it has
            NaN or values outside [0, 1].
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise MeasurementError(f"{what} has shape {image.shape}, not (H, W, 3): {remedy}")
    if not np.issubdtype(image.dtype, np.floating):
        raise MeasurementError(f"{what} is {image.dtype}, not floats: {remedy}")
    low, high = float(image.min()), float(image.max())
    # This form also refuses NaN, which compares as false with everything.
    if not (low >= 0 and high <= 1):
        raise MeasurementError(
            f"{what} has values from {low:.4g} to {high:.4g}, not in [0, 1]: {remedy}"
        )


def _levels(image: ImageArray) -> NDArray[np.float64]:
    """Rounds to 8-bit levels 0..255; scales in the dtype of the image, as a writer of it would."""
    levels: NDArray[np.float64] = np.rint(image * 255).astype(np.float64)
    return levels


def _check_both(prediction: ImageArray, target: ImageArray) -> None:
    check_image(prediction, "the prediction")
    check_image(target, "the target")
    if prediction.shape != target.shape:
        raise MeasurementError(
            f"the prediction is {prediction.shape[0]}x{prediction.shape[1]} and the target "
            f"{target.shape[0]}x{target.shape[1]}: give images of the same size"
        )


def _checked(
    prediction: ImageArray, target: ImageArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _check_both(prediction, target)
    return prediction.astype(np.float64), target.astype(np.float64)
