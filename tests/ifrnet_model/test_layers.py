import numpy as np
import pytest
import torch

from ifrnet_model.layers import ResBlock, resize, warp

LOWERINGS = ("gridsample", "gather")


def warp_by_loop(image, flow):
    """A backward warp by definition: bilinear, repeated border, in float64, pixel by pixel."""
    _, channels, height, width = image.shape
    out = np.zeros_like(image, dtype=np.float64)
    for n in range(len(image)):
        for row in range(height):
            for column in range(width):
                x = min(max(column + flow[n, 0, row, column], 0), width - 1)
                y = min(max(row + flow[n, 1, row, column], 0), height - 1)
                x0, y0 = int(np.floor(x)), int(np.floor(y))
                x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
                a, b = x - x0, y - y0
                for c in range(channels):
                    plane = image[n, c]
                    top = (1 - a) * plane[y0, x0] + a * plane[y0, x1]
                    bottom = (1 - a) * plane[y1, x0] + a * plane[y1, x1]
                    out[n, c, row, column] = (1 - b) * top + b * bottom
    return out


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("reach", [0.0, 2.5, 40.0])
def test_warp_equals_a_loop(lowering, reach):
    rng = np.random.default_rng(1)
    image = rng.random((2, 3, 9, 14))
    flow = rng.uniform(-reach, reach, (2, 2, 9, 14))
    found = warp(torch.from_numpy(image), torch.from_numpy(flow), lowering)
    np.testing.assert_allclose(found.numpy(), warp_by_loop(image, flow), atol=1e-4)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_warp_moves_x_by_the_first_channel(lowering):
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 2, 5] = 1
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0], flow[:, 1] = 3, -2
    assert warp(image, flow, lowering)[0, 0, 4, 2] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("lowering", LOWERINGS)
def test_warp_of_float16_keeps_coordinates_in_float32(lowering):
    # 1919.25 has no float16 neighbour nearer than 0.25: a rounded coordinate is off by much more
    # than the float16 step of the image.
    ramp = (torch.arange(1920) % 2).float().expand(1, 1, 16, 1920)
    flow = torch.full((1, 2, 16, 1920), 0.25)
    expected = warp(ramp, flow, lowering)
    found = warp(ramp.half(), flow, lowering)
    assert found.dtype == torch.float16
    assert (found.float() - expected).abs().max() < 1e-3


def test_warp_refuses_an_unknown_lowering():
    with pytest.raises(ValueError, match="use one of gridsample, gather"):
        warp(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2), "scatter")  # type: ignore[arg-type]


def test_res_block_equals_the_in_place_formulation():
    torch.manual_seed(0)
    block, x = ResBlock(12, 4), torch.randn(2, 12, 6, 8)
    with torch.no_grad():
        out = block.conv1(x)
        out[:, -4:] = block.conv2(out[:, -4:].clone())
        out = block.conv3(out)
        out[:, -4:] = block.conv4(out[:, -4:].clone())
        expected = block.prelu(x + block.conv5(out))
        torch.testing.assert_close(block(x), expected)


def test_resize_to_the_same_size_is_no_operation():
    x = torch.rand(1, 2, 4, 6)
    assert resize(x, 4, 6) is x
    assert resize(x, 8, 3).shape == (1, 2, 8, 3)
