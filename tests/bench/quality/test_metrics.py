import json
import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.data.datasets import find
from bench.data.protocols import PROTOCOLS, Metric
from bench.data.samples import read_image
from bench.environment import MeasurementError
from bench.quality.metrics import (
    METRICS,
    check_image,
    interpolation_error,
    mean_db,
    psnr,
    ssim_2d,
    ssim_3d,
)
from paths import ROOT

# Frames of data sets that may not be published, so that they are not in this repository.
TRIPLETS = ROOT.parent / "shared" / "data" / "triplets"

ORACLE = 1e-10
"""Tolerance: the references are in float64 as well, and differ only in the order of sums."""


def flat(level, size=(16, 20)):
    """An image of one 8-bit level, which may be a fraction."""
    return np.full((*size, 3), level / 255)


@pytest.fixture
def pair():
    """An image and a poor copy of it, without symmetry in colours, rows and columns."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:17, :23]
    wave = np.stack([np.sin(rows / 3), np.cos(columns / 4), np.sin((rows + columns) / 5)], 2)
    target = 0.5 + 0.4 * wave
    return np.clip(target + rng.normal(0, 0.08, target.shape), 0, 1), target


def gaussian_window(dimensions):
    """A Gaussian of width 11 and sigma 1.5, by its formula: (1, 1, 11, 11[, 11])."""
    axes = np.meshgrid(*[np.arange(-5, 6)] * dimensions)
    window = np.exp(-sum(axis**2 for axis in axes) / (2 * 1.5**2))
    return torch.from_numpy(window / window.sum())[None, None]


def ssim_of_means(a, b, mean):
    """The formula of SSIM; `mean` computes the weighted means of a window."""
    c1, c2 = 0.01**2, 0.03**2
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    ssim = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(ssim.mean())


def as_volume(picture):
    """(H, W, 3) -> (1, 1, C, H, W)."""
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())[None, None]


def test_psnr_is_minus_ten_logarithms_of_the_mean_squared_error():
    assert psnr(flat(0), np.full((16, 20, 3), 0.1)) == pytest.approx(20, abs=1e-12)
    prediction = flat(0)
    prediction[:8] = 0.2  # Half of the pixels differ: the mean squared error is 0.02.
    assert psnr(prediction, flat(0)) == pytest.approx(-10 * math.log10(0.02), abs=1e-12)


def test_identical_images_have_an_infinite_psnr(pair):
    assert psnr(pair[0], pair[0]) == math.inf
    assert psnr(flat(100), flat(100), rounded=True) == math.inf


def test_rounding_changes_the_prediction_but_not_the_target():
    assert psnr(flat(100.4), flat(100)) == pytest.approx(20 * math.log10(255 / 0.4), abs=1e-9)
    assert psnr(flat(100.4), flat(100), rounded=True) == math.inf
    one_level = 20 * math.log10(255)
    assert psnr(flat(100.6), flat(100), rounded=True) == pytest.approx(one_level, abs=1e-9)
    # Resampled targets have fractional levels, which are not rounded.
    target_between = psnr(flat(100), flat(100.4), rounded=True)
    assert target_between == pytest.approx(20 * math.log10(255 / 0.4), abs=1e-9)


def test_float32_images_are_summed_in_float64(pair):
    prediction, target = (picture.astype(np.float32) for picture in pair)
    for metric in (psnr, ssim_3d, ssim_2d):
        wide = metric(prediction.astype(np.float64), target.astype(np.float64))
        assert metric(prediction, target) == wide


def test_interpolation_error_is_the_mean_difference_of_rounded_levels():
    prediction, target = flat(10), flat(10)
    prediction[:4] = 12.4 / 255  # A quarter of the rows differs by two levels after rounding.
    assert interpolation_error(prediction, target) == pytest.approx(0.5, abs=1e-12)
    assert interpolation_error(flat(10), flat(12.6)) == pytest.approx(3, abs=1e-12)
    assert interpolation_error(flat(12.6), flat(10)) == pytest.approx(3, abs=1e-12)


def test_interpolation_error_rounds_ties_to_even_like_pytorch():
    tie = np.full((16, 20, 3), 0.3)  # 76.5 levels
    assert (tie * 255 == 76.5).all()
    assert interpolation_error(tie, flat(76)) == 0


@pytest.mark.parametrize("ssim", [ssim_3d, ssim_2d])
def test_ssim_of_flat_images_equals_figures_computed_by_hand(ssim):
    # Without variance only the term of the two means remains.
    a, b, c1 = 0.2, 0.6, 1e-4
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    made = ssim(np.full((16, 20, 3), a), np.full((16, 20, 3), b))
    assert made == pytest.approx(expected, abs=1e-12)


def test_ssim_of_an_image_with_itself_is_one(pair):
    assert ssim_3d(pair[0], pair[0]) == pytest.approx(1, abs=ORACLE)
    assert ssim_2d(pair[0], pair[0]) == pytest.approx(1, abs=ORACLE)


def test_ssim_3d_is_a_window_over_colours_rows_and_columns_with_repeated_borders(pair):
    window = gaussian_window(3)

    def mean(volume):
        return F.conv3d(F.pad(volume, (5,) * 6, mode="replicate"), window)

    expected = ssim_of_means(*map(as_volume, pair), mean)
    assert 0.1 < expected < 0.9
    assert ssim_3d(*pair) == pytest.approx(expected, abs=ORACLE)


def test_ssim_2d_is_a_window_over_each_colour_without_borders(pair):
    window = gaussian_window(2)

    def mean(volume):
        return F.conv2d(volume[0].transpose(0, 1), window)

    expected = ssim_of_means(*map(as_volume, pair), mean)
    assert 0.1 < expected < 0.9
    assert ssim_2d(*pair) == pytest.approx(expected, abs=ORACLE)


def test_ssim_2d_and_ssim_3d_differ(pair):
    assert abs(ssim_3d(*pair) - ssim_2d(*pair)) > 0.005


def test_every_metric_that_a_protocol_may_name_can_be_computed(pair):
    assert set(METRICS) == set(get_args(Metric))
    assert METRICS["ssim_3d"](*pair) == ssim_3d(*pair)
    assert METRICS["ssim_2d"](*pair) == ssim_2d(*pair)


def test_identical_images_are_not_in_the_mean_psnr():
    assert mean_db([30.0, math.inf, 41.0]) == 35.5
    assert mean_db([math.inf, math.inf]) == math.inf
    assert mean_db([-2.0]) == -2.0


GOOD = np.zeros((16, 20, 3))
NO_PICTURES = {
    "nan": (
        np.where(np.arange(3) == 1, np.nan, GOOD),
        r"has values from nan to nan, not in \[0, 1\]: convert",
    ),
    "infinity": (GOOD + np.inf, r"has values from inf to inf, not in \[0, 1\]: convert"),
    "above": (GOOD + 1.001, r"has values from 1.001 to 1.001, not in \[0, 1\]: convert"),
    "below": (GOOD - 0.001, r"has values from -0.001 to -0.001, not in \[0, 1\]: convert"),
    "bytes": (np.zeros((16, 20, 3), np.uint8), r"is uint8, not floats: convert"),
    "grey": (np.zeros((16, 20)), r"has shape \(16, 20\), not \(H, W, 3\): convert"),
    "colours first": (np.zeros((3, 16, 20)), r"has shape \(3, 16, 20\), not \(H, W, 3\): convert"),
    "four colours": (np.zeros((16, 20, 4)), r"has shape \(16, 20, 4\), not \(H, W, 3\): convert"),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("bad", NO_PICTURES)
def test_invalid_images_are_refused_and_named(name, bad):
    picture, message = NO_PICTURES[bad]
    with pytest.raises(MeasurementError, match=f"^the prediction {message}"):
        METRICS[name](picture, GOOD)
    with pytest.raises(MeasurementError, match=f"^the target {message}"):
        METRICS[name](GOOD, picture)


@pytest.mark.parametrize("name", METRICS)
def test_images_of_two_sizes_are_refused(name):
    message = "the prediction is 16x20 and the target 16x24: give images of the same size"
    with pytest.raises(MeasurementError, match=message):
        METRICS[name](GOOD, np.zeros((16, 24, 3)))


def test_black_and_white_are_valid_images():
    check_image(flat(0), "black")
    check_image(flat(255).astype(np.float32), "white")


@pytest.mark.parametrize("bad", ["bytes", "above"])
def test_rounding_does_not_hide_invalid_values(bad):
    picture, message = NO_PICTURES[bad]
    with pytest.raises(MeasurementError, match=f"^the prediction {message}"):
        psnr(picture, GOOD, rounded=True)


def test_ssim_2d_refuses_images_smaller_than_its_window():
    with pytest.raises(MeasurementError, match=r"10x20.*11"):
        ssim_2d(GOOD[:10], GOOD[:10])


def test_an_image_without_pixels_is_refused():
    with pytest.raises(MeasurementError, match=r"the prediction has shape \(0, 20, 3\)"):
        psnr(GOOD[:0], GOOD[:0])


TABLES = {
    "ucf101_average": ("ucf101", "UCF101"),
    "ucf101_dvf_ours": ("ucf101", "UCF101"),
    "middlebury_average": ("middlebury", "Middlebury"),
}


def predicted(table, sample, frames):
    """The result of a table's predictor for a sample."""
    height, width = frames.targets[0].shape[:2]
    if table == "ucf101_dvf_ours":
        return read_image(sample.paths[0].with_name("frame_01_ours.png")) / 255
    first, last = (frame[:height, :width].astype(np.float64) for frame in frames[:2])
    return (first + last) / 2 / 255  # Exact half levels, so that ties stay ties.


@pytest.mark.skipif(
    not TRIPLETS.is_dir(),
    reason=f"{TRIPLETS} with frames of UCF101 and Middlebury is not here (not ours to publish)",
)
@pytest.mark.parametrize("table", TABLES)
def test_figures_of_real_frames_equal_those_of_the_authors_metrics(table):
    dataset, folder = TABLES[table]
    reference = json.loads((TRIPLETS / "reference_metrics.json").read_text())[table]
    samples = list(find(PROTOCOLS[dataset], TRIPLETS / folder).samples)
    assert {sample.name for sample in samples} == set(reference)
    for sample in samples:
        frames = sample.read()
        pair = predicted(table, sample, frames), frames.targets[0] / 255
        wanted = reference[sample.name]
        # The authors compute in float32: a difference of 3e-6 dB and of 5e-5 in SSIM.
        assert psnr(*pair) == pytest.approx(wanted["psnr"], abs=1e-3)
        assert psnr(*pair, rounded=True) == pytest.approx(wanted["psnr_round"], abs=1e-3)
        assert ssim_3d(*pair) == pytest.approx(wanted["ssim3d"], abs=1e-4)
        assert ssim_2d(*pair) == pytest.approx(wanted["ssim_mm_valid"], abs=1e-4)
        assert interpolation_error(*pair) == pytest.approx(wanted["ie"], abs=1e-4)
