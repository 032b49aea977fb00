import pytest

from ifrnet_model import VARIANTS, IFRNet, divisor


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("small", 2_803_610), ("base", 4_959_692), ("large", 19_699_460)],
)
def test_parameter_counts_are_the_published_ones(variant, parameters):
    network = IFRNet(VARIANTS[variant])
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_names_are_the_authors(variant):
    names = IFRNet(VARIANTS[variant]).state_dict().keys()
    expected = {
        f"encoder.pyramid{level}.{conv}.{part}"
        for level in (1, 2, 3, 4)
        for conv in (0, 1)
        for part in ("0.weight", "0.bias", "1.weight")
    }
    for level in (1, 2, 3, 4):
        block = f"decoder{level}.convblock"
        expected |= {f"{block}.0.{part}" for part in ("0.weight", "0.bias", "1.weight")}
        expected |= {
            f"{block}.1.conv{conv}.{part}"
            for conv in (1, 2, 3, 4)
            for part in ("0.weight", "0.bias", "1.weight")
        }
        expected |= {f"{block}.1.conv5.weight", f"{block}.1.conv5.bias"}
        expected |= {f"{block}.1.prelu.weight", f"{block}.2.weight", f"{block}.2.bias"}
    assert names == expected
    assert len(names) == 104


@pytest.mark.parametrize(
    ("level", "channels"),
    [(4, (193, 192, 76)), (3, (220, 216, 52)), (2, (148, 144, 36)), (1, (100, 96, 8))],
)
def test_decoder_channels_of_the_base_variant(level, channels):
    assert VARIANTS["base"].decoder_channels(level) == channels


@pytest.mark.parametrize(
    ("scale", "multiple"), [(1.0, 16), (0.8, 20), (0.5, 32), (0.25, 64), (2.0, 8), (0.75, 64)]
)
def test_the_divisor_depends_on_the_flow_scale(scale, multiple):
    assert divisor(scale) == multiple


@pytest.mark.parametrize("scale", [0.0, -1.0, 5.0, float("nan"), 0.123456])
def test_divisor_refuses_invalid_flow_scales(scale):
    with pytest.raises(ValueError, match="flow scale"):
        divisor(scale)
