from dataclasses import replace

import pytest

from artefacts import INFO
from runtime.errors import ModelError
from runtime.model_info import LAYOUTS, ModelInfo, Port


def test_properties_round_trip():
    assert ModelInfo.from_properties(INFO.to_properties(), source="x") == INFO
    free = replace(INFO, height=None, width=None)
    assert "ifrnet.height" not in free.to_properties()
    assert ModelInfo.from_properties(free.to_properties(), source="x") == free
    assert free.size is None
    assert INFO.size == (720, 1280)


def test_tta_is_in_the_metadata_only_where_it_is_on():
    tta = replace(INFO, tta=True)
    assert tta.to_properties()["ifrnet.tta"] == "true"
    assert ModelInfo.from_properties(tta.to_properties(), source="x") == tta
    assert tta.to_dict() == {**INFO.to_dict(), "tta": True}
    # Files without it can be read by earlier versions.
    assert "ifrnet.tta" not in INFO.to_properties()
    assert "tta" not in INFO.to_dict()
    off = {**INFO.to_properties(), "ifrnet.tta": "false"}
    assert ModelInfo.from_properties(off, source="x") == INFO


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ifrnet.format_version": "2"}, "format version 2, this runtime reads 1"),
        ({"ifrnet.format_version": None}, "format version None"),
        ({"ifrnet.divisor": "many"}, "damaged metadata"),
        ({"ifrnet.flow_scale": None}, "damaged metadata"),
        ({"ifrnet.tta": "1"}, "damaged metadata"),
        ({"ifrnet.io": "bytes"}, "'bytes', not one of float, frames"),
        ({"ifrnet.variant": None}, r"missing or unknown fields \(variant\)"),
        ({"ifrnet.extra": "1"}, r"missing or unknown fields \(extra\)"),
        ({"ifrnet.height": None}, "only one of height and width"),
        ({"ifrnet.divisor": "0"}, "sizes or counts below 1"),
        ({"ifrnet.width": "0"}, "sizes or counts below 1"),
        ({"ifrnet.max_pairs": "0"}, "sizes or counts below 1"),
        ({"ifrnet.flow_scale": "nan"}, "its field flow_scale is nan, not a finite number"),
        ({"ifrnet.flow_scale": "0"}, "flow_scale is not above 0"),
        ({"ifrnet.divisor": "9" * 20}, r"or above 2\^31 - 1"),
        ({"ifrnet.divisor": str(2**31)}, r"or above 2\^31 - 1"),
        ({"ifrnet.max_pairs": str(2**31)}, r"or above 2\^31 - 1"),
        ({"ifrnet.flow_scale": str(2.0**31)}, "flow_scale is not above 0"),
        ({"ifrnet.steps_per_call": "0"}, "sizes or counts below 1"),
        ({"ifrnet.pairs_per_call": "0"}, "sizes or counts below 1"),
        ({"ifrnet.pairs_per_call": "2"}, "the model has several pairs and several time steps"),
        ({"ifrnet.max_pairs": "2"}, "the model has a free and a fixed number of pairs"),
    ],
)
def test_damaged_properties_are_refused(change, message):
    properties = {**INFO.to_properties(), **change}
    properties = {key: value for key, value in properties.items() if value is not None}
    with pytest.raises(ModelError, match=message):
        ModelInfo.from_properties(properties, source="m.onnx")


@pytest.mark.parametrize(
    ("steps", "pairs", "limit", "valid"),
    [
        (1, 1, None, True), (3, 1, None, True), (1, 2, None, True), (2, 2, None, False),
        (1, 1, 1, True), (1, 1, 4, True), (3, 1, 4, False), (1, 2, 4, False), (1, 2, 2, False),
    ],
)  # fmt: skip
def test_pairs_are_free_or_fixed_and_come_with_one_time_step(steps, pairs, limit, valid):
    fields = {"steps_per_call": steps, "pairs_per_call": pairs, "max_pairs": limit}
    if valid:
        assert replace(INFO, **fields).frames_per_call == max(steps, pairs)
    else:
        with pytest.raises(ModelError, match=r"the model has (several pairs|a free and a fixed)"):
            replace(INFO, **fields)


@pytest.mark.parametrize("field", ["precision", "io", "time_steps", "warp", "tuned_for"])
def test_a_value_that_is_none_of_the_known_ones_is_refused(field):
    with pytest.raises(
        ModelError, match=f"^the model's {field} is 'odd', not one of .*: export it"
    ):
        replace(INFO, **{field: "odd"})


def test_models_of_other_projects_are_refused_with_a_remedy():
    with pytest.raises(ModelError, match=r"m\.onnx has no .* python -m export\.to_onnx"):
        ModelInfo.from_properties({"author": "someone"}, source="m.onnx")


@pytest.mark.parametrize(
    ("changes", "image", "rows"),
    [
        ({}, (1, 720, 1280, 3), 3),
        ({"io": "float"}, (1, 3, 720, 1280), 3),
        ({"steps_per_call": 1, "pairs_per_call": 2}, (2, 720, 1280, 3), 2),
        ({"steps_per_call": 1, "max_pairs": 4}, (None, 720, 1280, 3), None),
        ({"height": None, "width": None}, (1, None, None, 3), 3),
    ],
)
def test_shapes_of_inputs_and_outputs(changes, image, rows):
    dtype = "float32" if "io" in changes else "uint8"
    ports = replace(INFO, **changes).ports()
    assert [*ports] == ["img0", "img1", "timestep", "imgt"]
    assert list(ports.values()) == [
        Port("img0", dtype, image, is_input=True),
        Port("img1", dtype, image, is_input=True),
        Port("timestep", "float32", (rows, 1, 1, 1), is_input=True),
        Port("imgt", dtype, (rows, *image[1:]), is_input=False),
    ]
    assert ports["img0"].dims == tuple(-1 if n is None else n for n in image)


@pytest.mark.parametrize("io", LAYOUTS)
def test_a_layout_finds_its_own_size(io):
    layout = LAYOUTS[io]
    shape = layout.shape(2, 50, 70)
    assert [shape[axis] for axis in layout.size_axes] == [50, 70]
    assert layout.size_of(shape) == layout.size_of(shape[1:]) == (50, 70)


def test_images_of_float_io_are_padded_to_the_divisor():
    assert INFO.image_size((50, 70)) == (50, 70)
    assert replace(INFO, io="float").image_size((50, 70)) == (60, 80)
