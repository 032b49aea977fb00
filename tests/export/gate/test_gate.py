import hashlib
import re

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F

from blend import Blend
from export.candidate import candidate_runners
from export.errors import GateError
from export.gate.cases import GateCase, gate_cases, gate_sizes, moving_frames
from export.gate.compare import ComparedImages, compare
from export.gate.diagnosis import diagnosis
from export.gate.gate import Explanations, Reference, Requirements, gate
from export.gate.runners import backend_runner, images_for, onnx_runner
from export.source import source_from_model
from ifrnet_model import layers
from runtime.model_info import ModelInfo
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")

TINY = GateCase(16, 16, 2.0, (0.5,))


def described(**changes):
    values = {
        "variant": "small", "weights_sha256": "0" * 64, "precision": "fp32", "io": "frames",
        "divisor": 16, "flow_scale": 1.0, "time_steps": "arbitrary", "steps_per_call": 1,
        "pairs_per_call": 1, "height": 64, "width": 80, "warp": "gridsample", "tuned_for": "any",
        "tool_version": "0",
    }  # fmt: skip
    return ModelInfo(**{**values, **changes})


def cases():
    return gate_cases([(64, 80)], described())


def pytorch(run):
    return Reference(run, "PyTorch")


def runner_of(network):
    """A `Runner` that runs the network in PyTorch."""

    def run(frame0, frame1, timestep):
        def planes(frame):
            return F.pad(
                torch.from_numpy(frame).permute(2, 0, 1)[None] / 255, (0, 0, 0, 0), mode="replicate"
            )

        with torch.inference_mode():
            return network(planes(frame0), planes(frame1), torch.from_numpy(timestep)).numpy()

    return run


def test_moving_frames_move_by_the_given_distance():
    frame0, frame1 = moving_frames(120, 200, 20.0)
    assert frame0.shape == (120, 200, 3)
    assert frame0.dtype == np.uint8
    # Between the frames the background moves by 18 columns and 8 rows.
    np.testing.assert_array_equal(frame0[10:30, 20:40], frame1[2:22, 2:22])
    assert not np.array_equal(frame0, frame1)


def test_moving_frames_are_the_same_in_every_version():
    """Else the figures in manifests of different versions would not be comparable."""
    found = [hashlib.sha256(frame.tobytes()).hexdigest() for frame in moving_frames(50, 70, 4.0)]
    assert found == [
        "80e7bfacd50fb1e22f777b3b940a15a64168d2ee3a7c8ddc95dc223cb913fd49",
        "1b2a13937670676143f140a1e8c623ba4e01c3334c0190c350dc63ad2ced63ac",
    ]


def test_moving_frames_of_the_smallest_size():
    frame0, frame1 = moving_frames(16, 16, 2.0)
    assert frame0.shape == frame1.shape == (16, 16, 3)


def test_cases_have_large_motion_and_time_steps_off_the_middle():
    small, large = gate_cases([(256, 448)], described())
    assert small.timesteps == (0.5,)
    assert large.motion == pytest.approx(44.8)
    assert large.timesteps == (0.25,)
    _, large = gate_cases([(1080, 1920)], described(steps_per_call=3, time_steps="midpoint"))
    assert large.motion == 128
    assert large.timesteps == (0.25, 0.5, 0.75)


def test_cases_of_a_free_number_of_pairs_have_one_pair_and_the_maximum():
    small, large = gate_cases([(64, 80)], described(max_pairs=3))
    assert small.timesteps == (0.5,)
    assert large.timesteps == (0.125, 0.25, 0.375)


@pytest.mark.parametrize(
    ("changes", "traced", "sizes"),
    [
        ({"height": 50, "width": 70}, (64, 80), [(50, 70)]),
        ({}, (64, 80), [(64, 80), (29, 29), (109, 125)]),
        ({"io": "float"}, (64, 80), [(64, 80), (32, 32), (112, 128)]),
        ({}, (256, 448), [(256, 448), (125, 221), (349, 589)]),
        ({}, (20, 16), [(20, 16), (16, 16), (49, 45)]),
        ({"io": "float", "divisor": 32}, (32, 32), [(32, 32), (32, 32), (96, 96)]),
        ({"divisor": 20}, (80, 100), [(80, 100), (37, 37), (137, 157)]),
    ],
)
def test_a_free_size_is_compared_at_a_smaller_and_a_larger_one_too(changes, traced, sizes):
    info = described(**{"height": None, "width": None, **changes})
    assert gate_sizes(info, traced) == sizes


def test_compare_gives_figures_computed_by_hand():
    zero, tenth = np.zeros((1, 2, 2, 2), np.float32), np.full((1, 2, 2, 2), 0.1, np.float32)
    psnr, largest = compare(zero, tenth)
    assert psnr == pytest.approx(20.0, abs=1e-4)
    assert largest == pytest.approx(0.1)
    assert compare(zero, zero) == (float("inf"), 0.0)
    assert compare(zero, zero * np.nan)[0] == float("-inf")
    with pytest.raises(GateError, match="its reference"):
        compare(zero, zero[..., :1])


def nearest(image, flow, lowering="gridsample"):
    del lowering
    return layers.warp(image, flow.round())


def half_coordinates(image, flow, lowering="gridsample"):
    del lowering
    height, width = image.shape[-2:]
    x = torch.linspace(-1, 1, width).half().view(1, 1, 1, -1)
    y = torch.linspace(-1, 1, height).half().view(1, 1, -1, 1)
    grid_x = x + (flow[:, 0:1] * 2 / (width - 1)).half()
    grid_y = y + (flow[:, 1:2] * 2 / (height - 1)).half()
    grid = torch.cat((grid_x, grid_y), 1).float().permute(0, 2, 3, 1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def shifted(image, flow, lowering="gridsample"):
    del lowering
    return layers.warp(image, flow + 0.5)


@pytest.mark.parametrize("fault", [nearest, half_coordinates, shifted])
def test_the_gate_refuses_a_faulty_warp(monkeypatch, demo_network, fault):
    reference = runner_of(demo_network)
    # 256x448: errors of float16 coordinates grow with the size of the frame.
    only = gate_cases([(256, 448)], described())[1:]

    def broken(*inputs):
        with monkeypatch.context() as patch:
            patch.setattr("ifrnet_model.model.warp", fault)
            return runner_of(demo_network)(*inputs)

    with pytest.raises(GateError, match=r"dB to PyTorch .* 80 dB are required for fp32"):
        gate(pytorch(reference), {"it": broken}, only, Requirements("fp32"))


def test_the_gate_refuses_swapped_channels_even_for_fp16(demo_network):
    reference = runner_of(demo_network)

    def swapped(*inputs):
        return reference(*inputs)[:, ::-1]

    with pytest.raises(GateError, match="50 dB are required"):
        gate(pytorch(reference), {"it": swapped}, cases(), Requirements("fp16"))


def test_the_gate_refuses_frames_in_the_wrong_order_off_the_middle(demo_network):
    reference = runner_of(demo_network)

    def reversed_time(frame0, frame1, timestep):
        return reference(frame0, frame1, 1 - timestep)

    with pytest.raises(GateError):
        gate(pytorch(reference), {"it": reversed_time}, cases(), Requirements("fp16"))


def test_the_gate_refuses_not_a_number(demo_network):
    reference = runner_of(demo_network)
    with pytest.raises(GateError, match="-inf dB"):
        gate(
            pytorch(reference),
            {"it": lambda *inputs: reference(*inputs) * np.nan},
            cases(),
            Requirements("fp16"),
        )


def blend(**info):
    """A `Runner` that blends the frames, without a network."""
    return backend_runner(Blend(io="float", **info))


def with_a_pixel(image, value):
    changed = image.copy()
    changed[0, 1, 2, 3] = value
    return changed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_gives_the_lowest_psnr(value):
    image = np.full((1, 3, 16, 16), 0.5, np.float32)
    wrong = with_a_pixel(image, value)
    lowest = float("-inf"), float("inf")
    assert compare(image, wrong) == compare(wrong, image) == lowest


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_gate_refuses_one_value_that_is_not_finite(value):
    def wrong(*inputs):
        return with_a_pixel(blend()(*inputs), value)

    message = (
        "it has a PSNR of -inf dB to PyTorch at 16x16 with motion of 2 px, but 50 dB are required "
        "for fp16: nothing was written"
    )
    with pytest.raises(GateError, match=f"^{re.escape(message)}"):
        gate(pytorch(blend()), {"it": wrong}, [TINY], Requirements("fp16"))


@pytest.mark.parametrize(
    ("pairs", "rows", "count"),
    [
        ({"pairs_per_call": 3}, 3, 3),
        ({"max_pairs": 4}, 3, 3),
        ({"max_pairs": 4}, 1, 1),
        ({"steps_per_call": 3}, 3, 1),
    ],
)
@pytest.mark.parametrize("io", ["frames", "float"])
def test_each_further_pair_is_the_previous_one_reversed_and_shifted(io, pairs, rows, count):
    first, last = moving_frames(16, 32, 2.0)
    expected = [
        (first, last),
        (np.roll(last, 5, 1), np.roll(first, 5, 1)),
        (np.roll(first, 10, 1), np.roll(last, 10, 1)),
    ]
    found = images_for(described(io=io, **pairs), first, last, rows=rows)
    for images, frames in zip(found, zip(*expected[:count], strict=True), strict=True):
        if io == "frames":
            np.testing.assert_array_equal(images, np.stack(frames))
        else:
            planes = np.stack(frames).transpose(0, 3, 1, 2)
            np.testing.assert_allclose(images, planes / 255, atol=1e-7)


class OtherNeighbours(Blend):
    """Blends the first frame of a pair with the second one of another."""

    def run(self, img0, img1, timestep):
        return super().run(img0, img1[::-1], timestep)


PAIRS_FAULTS = {
    "exchanged rows": lambda run, _: lambda *inputs: run(*inputs)[::-1],
    "the first row alone": lambda run, _: lambda *inputs: run(*inputs)[[0, 0]],
    "exchanged inputs": lambda _, info: backend_runner(OtherNeighbours(io="float", **info)),
}


@pytest.mark.parametrize("fault", PAIRS_FAULTS)
@pytest.mark.parametrize("info", [{"pairs_per_call": 2}, {"max_pairs": 2}])
def test_the_gate_refuses_pairs_that_are_mixed_up(info, fault):
    """At complementary time steps, a blend of a pair is that of its reverse."""
    run = blend(**info)
    case = GateCase(16, 32, 2.0, (0.25, 0.75))
    assert gate(pytorch(run), {"it": run}, [case], Requirements("fp32")).psnr_db is None
    with pytest.raises(GateError, match="50 dB are required"):
        gate(pytorch(run), {"it": PAIRS_FAULTS[fault](run, info)}, [case], Requirements("fp16"))


def test_the_images_with_the_lowest_psnr_are_diagnosed():
    cases = [GateCase(16, 16, 2.0, (0.5,)), GateCase(16, 32, 2.0, (0.5,)), TINY]
    errors = {"one": {(16, 16): 0.1, (16, 32): 0.2}, "two": {(16, 16): 0.1, (16, 32): 0.4},
              "three": {(16, 16): 0.1, (16, 32): 0.3}}  # fmt: skip
    seen = []

    def candidate(name):
        return lambda frame0, *others: (
            blend()(frame0, *others) + np.float32(errors[name][frame0.shape[:2]])
        )

    def diagnose(images):
        seen.append(images)
        return "it looks grey"

    message = (
        "two has a PSNR of 8.0 dB to PyTorch at 16x32 with motion of 2 px, but 80 dB are required "
        "for fp32; it looks grey: nothing was written; ask"
    )
    with pytest.raises(GateError, match=f"^{re.escape(message)}$"):
        gate(
            pytorch(blend()),
            {name: candidate(name) for name in errors},
            cases,
            Requirements("fp32"),
            Explanations(diagnose, "ask"),
        )
    (images,) = seen
    frame0, frame1 = cases[1].frames()
    np.testing.assert_array_equal(images.frame0, frame0)
    np.testing.assert_array_equal(images.frame1, frame1)
    np.testing.assert_array_equal(images.timestep, np.full((1, 1, 1, 1), 0.5, np.float32))
    np.testing.assert_array_equal(images.expected, blend()(frame0, frame1, images.timestep))
    np.testing.assert_array_equal(images.actual, images.expected + np.float32(0.4))


def test_the_report_has_every_case(demo_network):
    reference = runner_of(demo_network)
    report = gate(
        pytorch(reference),
        {"same": reference, "near": lambda *inputs: reference(*inputs) + np.float32(1e-5)},
        cases(),
        Requirements("fp32"),
    )
    assert [(c["candidate"], c["psnr_db"] is None) for c in report.cases] == [
        ("same", True), ("near", False), ("same", True), ("near", False),
    ]  # fmt: skip
    assert report.psnr_db == pytest.approx(100, abs=0.2)
    assert report.max_difference == pytest.approx(1e-5, rel=0.1)


def test_bytes_that_are_not_the_rounded_frame_are_refused(export):
    exported = export(height=50, width=70)
    model = type(exported.model)()
    model.CopyFrom(exported.model)
    (rounding,) = (node for node in model.graph.node if node.op_type == "Round")
    rounding.op_type = "Floor"
    floor = onnx_run_with_tap(model, exported.info, rounding)
    frames = moving_frames(50, 70, 2.0)
    with pytest.raises(GateError, match="rounded to nearest"):
        floor(*frames, np.full((1, 1, 1, 1), 0.5, np.float32))


def onnx_run_with_tap(model, info, rounding):
    """A runner of a graph with a replaced Round; an unused Round is added for the gate to find."""
    from onnx import helper

    model.graph.node.append(helper.make_node("Round", [rounding.input[0]], ["unused"]))
    return onnx_runner(model, info)


def blending(height=16, width=16):
    """A graph that blends two images."""
    images = f"float[1,3,{height},{width}]"
    return onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
blending ({images} img0, {images} img1, float[1,1,1,1] timestep) => ({images} imgt) {{
    difference = Sub(img1, img0)
    part = Mul(difference, timestep)
    imgt = Add(img0, part)
}}""")


@pytest.fixture
def sessions(monkeypatch):
    """The optimisation level and the shape of img0 of each session that is made."""
    made, session = [], onnxruntime.InferenceSession

    def record(content, options, **others):
        one = session(content, options, **others)
        made.append((options.graph_optimization_level, one.get_inputs()[0].shape))
        return one

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    return made


NONE = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
ALL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
FLOAT = {"io": "float", "height": 16, "width": 16}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_reference_runs_without_optimisations(sessions, precision):
    source_from_model(blending(), described(**FLOAT, precision=precision), "")
    assert sessions == [(NONE, [1, 3, 16, 16])]


def test_a_candidate_runs_with_all_optimisations_as_in_the_runtime(sessions):
    candidate_runners(blending(), described(**FLOAT), "onnxruntime")
    assert sessions == [(ALL, [1, 3, 16, 16])]


def test_simulations_of_faults_run_without_optimisations(sessions):
    model = blending()
    grid = np.zeros((1, 16, 16, 2), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(grid, "grid"))
    model.graph.node.append(onnx.helper.make_node("GridSample", ["img0", "grid"], ["unused"]))
    frames, timestep = TINY.frames(), np.full((1, 1, 1, 1), 0.5, np.float32)
    expected = blend()(*frames, timestep)
    swapped = ComparedImages(*frames, timestep, expected, expected[:, ::-1])
    assert diagnosis(model, described(**FLOAT), swapped) == (
        "it looks like red and blue swapped, with a PSNR of inf dB to a simulation of that fault"
    )
    assert sessions == [(NONE, [1, 3, 16, 16])] * 3


@pytest.mark.parametrize(("optimised", "prepared"), [(True, [16, 32]), (False, [])])
def test_only_a_candidate_of_free_size_is_prepared_for_each_size(sessions, optimised, prepared):
    info = described(io="float", height=None, width=None)
    run = onnx_runner(blending("h", "w"), info, optimised=optimised)
    for width in (16, 32, 16):
        inputs = *moving_frames(16, width, 2.0), np.full((1, 1, 1, 1), 0.25, np.float32)
        np.testing.assert_allclose(run(*inputs), blend()(*inputs), atol=1e-6)
    level = ALL if optimised else NONE
    shapes = [[1, 3, "h", "w"], *([1, 3, 16, width] for width in prepared)]
    assert sessions == [(level, shape) for shape in shapes]
