import itertools

import pytest
import torch
import torch.nn.functional as F

from bench.harness import roofline
from bench.harness.roofline import Ceilings, MovedBytes, Work, share_of_ceilings, work_of_a_pair
from bench.runs.artefact import calls_of_a_pair
from ifrnet_model import divisor
from runtime.errors import FrameError
from runtime.model_info import ModelInfo


def model(variant="small", **changes):
    values = {
        "variant": variant, "weights_sha256": "0" * 64, "precision": "fp32", "io": "frames",
        "divisor": divisor(changes.get("flow_scale", 1.0)), "flow_scale": 1.0,
        "time_steps": "arbitrary", "steps_per_call": 1, "pairs_per_call": 1, "height": None,
        "width": None, "warp": "gridsample", "tuned_for": "any", "tool_version": "0",
    }  # fmt: skip
    return ModelInfo(**{**values, **changes})


@pytest.mark.parametrize(
    ("variant", "at_448x256", "at_1280x720"),
    [("small", 25.2, 202.4), ("base", 44.4, 356.4), ("large", 175.7, 1411.8)],
)
def test_the_number_of_operations_equals_the_known_figures(variant, at_448x256, at_1280x720):
    for size, gflop in (((256, 448), at_448x256), ((720, 1280), at_1280x720)):
        work = work_of_a_pair(model(variant), size, [(1, 1)], new_frames=1)
        assert work.operations == pytest.approx(gflop * 1e9, rel=0.01)


@pytest.mark.parametrize("authors", [False, True])
def test_the_authors_formulation_computes_the_same_and_moves_more(authors):
    work = work_of_a_pair(model(), (256, 448), [(1, 1)], new_frames=1, authors=authors)
    ours = work_of_a_pair(model(), (256, 448), [(1, 1)], new_frames=1)
    assert work.operations == ours.operations
    assert (work.bytes_moved > ours.bytes_moved) == authors


@pytest.mark.parametrize("authors", [False, True])
def test_float16_moves_half_the_bytes(authors):
    single, half = (
        work_of_a_pair(
            model(precision=precision), (256, 448), [(1, 1)], new_frames=1, authors=authors
        )
        for precision in ("fp32", "fp16")
    )
    assert half.operations == single.operations
    # This project's module keeps float32 islands.
    assert half.bytes_moved / single.bytes_moved == pytest.approx(0.5 if authors else 0.6, abs=0.1)


def test_encoding_a_pair_once_is_less_work_than_once_for_each_time_step():
    together = work_of_a_pair(model(), (256, 448), [(1, 7)], new_frames=7)
    apart = work_of_a_pair(model(), (256, 448), [(1, 1)] * 7, new_frames=7)
    single = work_of_a_pair(model(), (256, 448), [(1, 1)], new_frames=1)
    assert apart.operations == 7 * single.operations
    assert single.operations < together.operations < apart.operations
    assert together.bytes_moved < apart.bytes_moved
    # Weights and frames count once, even if they are read several times.
    assert together.bytes_least == apart.bytes_least
    assert together.bytes_least - single.bytes_least == 6 * 256 * 448 * 3


def test_the_mean_with_flipped_frames_is_twice_the_work():
    for call in ((1, 1), (1, 3), (2, 2)):
        plain = work_of_a_pair(model(), (64, 64), [call], new_frames=1)
        mean = work_of_a_pair(model(tta=True), (64, 64), [call], new_frames=1)
        assert mean.operations == 2 * plain.operations
        assert mean.bytes_least == plain.bytes_least


def test_a_call_of_two_pairs_is_twice_the_work_of_one():
    one, two = (
        work_of_a_pair(model(), (64, 64), [call], new_frames=1) for call in ((1, 1), (2, 2))
    )
    assert two.operations == 2 * one.operations


@pytest.mark.parametrize(("precision", "each"), [("fp32", 4), ("fp16", 2)])
def test_the_minimum_of_moved_bytes_is_weights_and_frames(precision, each):
    work = work_of_a_pair(model(precision=precision), (256, 448), [(1, 1)], new_frames=1)
    network = roofline.IFRNet(roofline.VARIANTS["small"])
    weights = sum(p.numel() for p in network.parameters())
    assert work.bytes_least == weights * each + 3 * 256 * 448 * 3


def test_half_precision_moves_less():
    fp32, fp16 = (
        work_of_a_pair(model(precision=p), (256, 448), [(1, 1)], new_frames=1)
        for p in ("fp32", "fp16")
    )
    assert 0.5 < fp16.bytes_moved / fp32.bytes_moved < 0.75  # Flows and warps stay float32.


def test_frames_are_padded_to_the_divisor_of_the_flow_scale():
    odd = work_of_a_pair(model(), (50, 70), [(1, 1)], new_frames=1)
    padded = work_of_a_pair(model(), (64, 80), [(1, 1)], new_frames=1)
    assert odd.operations == padded.operations
    scaled = work_of_a_pair(model(flow_scale=0.5), (720, 1280), [(1, 1)], new_frames=1)
    full = work_of_a_pair(model(), (720, 1280), [(1, 1)], new_frames=1)
    assert scaled.operations == pytest.approx(full.operations / 4, rel=0.05)


def test_counting_the_work_of_large_frames_allocates_no_memory():
    work = work_of_a_pair(model("large"), (2160, 4096), [(1, 7)], new_frames=7)
    assert work.operations == pytest.approx(89.07e12, rel=0.01)


def test_moved_bytes_equal_figures_computed_by_hand():
    with torch.device("meta"), torch.no_grad(), MovedBytes() as moved:
        image = torch.empty(1, 3, 4, 5)
        kernel = torch.empty(2, 3, 1, 1)
        assert moved.bytes == 0  # Allocated memory is not moved.
        made = F.conv2d(image, kernel)
        convolution = 4 * (60 + 6 + 40)
        assert moved.bytes == convolution
        made.view(2, 20)[:, 1:].permute(1, 0)
        assert moved.bytes == convolution
        torch.cat((made, made), 1)
        assert moved.bytes == convolution + 4 * (40 + 40 + 80)
        made.half()
        assert moved.bytes == convolution + 4 * 160 + (4 + 2) * 40


def test_shares_of_ceilings_equal_figures_computed_by_hand():
    work = Work(operations=50e9, bytes_moved=2e9, bytes_least=1e6)
    assert share_of_ceilings(work, 0.5, Ceilings(200e9, 10e9, "by hand")) == pytest.approx(
        {
            "flops_per_second": 100e9, "share_of_matmul": 0.5,
            "bytes_per_second": 4e9, "share_of_copy": 0.4,
        }
    )  # fmt: skip


def test_ceilings_are_the_best_of_steady_calls(monkeypatch):
    monkeypatch.setattr(roofline, "_MATRIX", 8)
    monkeypatch.setattr(roofline, "_COPIED_BYTES", 4096)
    threads = torch.get_num_threads()
    # The clock is read twice a call. Each warm-up takes six calls of two seconds; of the five
    # measured calls one is undisturbed.
    takes = itertools.cycle([2.0] * 6 + [3.0, 3.0, 0.5, 3.0, 3.0])
    now, inside = 0.0, False

    def clock():
        nonlocal now, inside
        now += next(takes) if inside else 0.0
        inside = not inside
        return now

    try:
        found = roofline.measured_ceilings(1, clock=clock)
    finally:
        torch.set_num_threads(threads)
    assert found.matmul_flops_per_second == 2 * 8**3 / 0.5
    assert found.copy_bytes_per_second == 2 * 4096 / 0.5
    assert found.measured_with.endswith("1 thread")


@pytest.mark.parametrize(
    ("changes", "factor", "calls"),
    [
        ({}, 2, [(1, 1)]),
        ({}, 8, [(1, 1)] * 7),
        ({"time_steps": "midpoint"}, 8, [(1, 1)] * 7),
        ({"steps_per_call": 7}, 8, [(1, 7)]),
        ({"steps_per_call": 3}, 8, [(1, 3)] * 3),
        ({"steps_per_call": 3}, 2, [(1, 3)]),
        ({"pairs_per_call": 2}, 2, [(2, 2)]),
        ({"pairs_per_call": 2, "time_steps": "midpoint"}, 4, [(2, 2), (2, 2)]),
        ({"height": 720, "width": 1280, "io": "float"}, 4, [(1, 1)] * 3),
    ],
)
def test_the_number_of_calls_equals_that_of_the_runtime(changes, factor, calls):
    assert calls_of_a_pair(model(**changes), factor) == calls


def test_a_factor_that_weights_do_not_support_has_no_calls():
    with pytest.raises(FrameError, match="powers of two"):
        calls_of_a_pair(model(time_steps="midpoint"), 3)
