import copy

import pytest
import torch

from bench.runs.authors import authors_forward, random_network
from ifrnet_model import VARIANTS, IFRNet

# float32 sums in another order.
TOLERANCE = 1e-4


def images(pairs, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2 * pairs, 3, height // 8, width // 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, scale_factor=8.0, mode="bicubic").clamp(0, 1)
    return smooth[:pairs], smooth[pairs:]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("flow_scale", [1.0, 0.8])
@pytest.mark.parametrize("t", [0.125, 0.5])
def test_the_network_equals_the_authors_formulation(variant, flow_scale, t):
    network = random_network(variant)
    img0, img1 = images(2, 80, 160)
    timestep = torch.full((2, 1, 1, 1), t)
    with torch.inference_mode():
        found = network(img0, img1, timestep, flow_scale)
        expected = authors_forward(
            network.state_dict(), network.config, img0, img1, timestep, flow_scale
        )
    assert expected.std() > 0.1, "the weights make a picture without content"
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


def test_gather_equals_gridsample(demo_network):
    gather = IFRNet(demo_network.config, warp_lowering="gather")
    gather.load_state_dict(demo_network.state_dict())
    img0, img1 = images(1, 64, 96)
    timestep = torch.full((1, 1, 1, 1), 0.5)
    with torch.inference_mode():
        torch.testing.assert_close(
            gather(img0, img1, timestep), demo_network(img0, img1, timestep), atol=1e-4, rtol=0
        )


def test_many_time_steps_of_one_pair_equal_one_at_a_time(demo_network):
    img0, img1 = images(1, 48, 64)
    timestep = torch.tensor([0.125, 0.5, 0.875]).view(3, 1, 1, 1)
    with torch.inference_mode():
        together = demo_network(img0, img1, timestep)
        apart = torch.cat([demo_network(img0, img1, t[None]) for t in timestep])
    assert together.shape == (3, 3, 48, 64)
    assert (together[0] - together[2]).abs().max() > 0.01, "the time step changes nothing"
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_a_batch_of_pairs_equals_one_at_a_time(demo_network):
    img0, img1 = images(3, 48, 64)
    timestep = torch.tensor([0.25, 0.5, 0.75]).view(3, 1, 1, 1)
    with torch.inference_mode():
        together = demo_network(img0, img1, timestep)
        for k in range(3):
            alone = demo_network(img0[k : k + 1], img1[k : k + 1], timestep[k : k + 1])
            torch.testing.assert_close(together[k : k + 1], alone, atol=1e-5, rtol=0)


def test_several_time_steps_of_each_pair_equal_one_at_a_time(demo_network):
    img0, img1 = images(2, 48, 64)
    timestep = torch.tensor([0.125, 0.25, 0.5, 0.75]).view(4, 1, 1, 1)
    with torch.inference_mode():
        together = demo_network(img0, img1, timestep)
        assert together.shape == (4, 3, 48, 64)
        for k in range(4):
            pair = slice(k % 2, k % 2 + 1)
            alone = demo_network(img0[pair], img1[pair], timestep[k : k + 1])
            torch.testing.assert_close(together[k : k + 1], alone, atol=1e-5, rtol=0)


def test_between_identical_frames_the_result_is_that_frame(demo_network):
    frame, _ = images(1, 64, 64)
    with torch.inference_mode():
        found = demo_network(frame, frame, torch.full((1, 1, 1, 1), 0.5))
    assert (found - frame).abs().mean() < 0.01


def test_float16_weights_hardly_change_the_result(demo_network):
    half = copy.deepcopy(demo_network).half()
    img0, img1 = images(1, 32, 32)
    timestep = torch.full((1, 1, 1, 1), 0.5)
    with torch.inference_mode():
        found = half(img0, img1, timestep)
        expected = demo_network(img0, img1, timestep)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.01


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 3, 32, 32), (1, 3, 32, 48), (1, 1, 1, 1)), "both must be"),
        (((1, 1, 32, 32), (1, 1, 32, 32), (1, 1, 1, 1)), "both must be"),
        (((1, 3, 32, 40), (1, 3, 32, 40), (1, 1, 1, 1)), "multiples of 16"),
        (((2, 3, 32, 32), (2, 3, 32, 32), (3, 1, 1, 1)), "one step for each pair"),
        (((2, 3, 32, 32), (2, 3, 32, 32), (1, 1, 1, 1)), "one step for each pair"),
        (((1, 3, 32, 32), (1, 3, 32, 32), (1,)), r"must be \(T, 1, 1, 1\)"),
    ],
)
def test_wrong_shapes_are_refused(shapes, message):
    img0, img1, timestep = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        IFRNet(VARIANTS["small"])(img0, img1, timestep)
