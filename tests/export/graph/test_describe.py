"""The descriptions and the names of axes that an exported graph contains."""

import onnx
import pytest
from onnx import ModelProto

from export.graph.describe import describe, descriptions
from runtime.model_info import INPUTS, OUTPUT, ModelInfo


def axes(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def values(model):
    return {value.name: value for value in (*model.graph.input, *model.graph.output)}


def info_of(model):
    properties = {entry.key: entry.value for entry in model.metadata_props}
    return ModelInfo.from_properties(properties, source="graph")


@pytest.mark.parametrize(
    ("options", "image", "result"),
    [
        ({"dynamic": True}, [1, "height", "width", 3], [1, "height", "width", 3]),
        ({"dynamic": True, "io": "float"}, [1, 3, "height", "width"], [1, 3, "height", "width"]),
        ({}, [1, 64, 80, 3], [1, 64, 80, 3]),
        ({"max_batch": 4}, ["pairs", 64, 80, 3], ["pairs", 64, 80, 3]),
    ],
)
def test_free_axes_have_names(export, options, image, result):
    model = export(height=64, width=80, **options).model
    found = values(model)
    assert axes(found["img0"]) == axes(found["img1"]) == image
    assert axes(found[OUTPUT]) == result
    assert axes(found["timestep"])[0] == image[0]


@pytest.mark.parametrize("io", ["frames", "float"])
def test_inputs_and_output_are_described(export, io):
    model = export(height=64, width=80, io=io).model
    found = {name: value.doc_string for name, value in values(model).items()}
    assert list(found) == [*INPUTS, OUTPUT]
    assert found == descriptions(info_of(model))
    assert found["timestep"] == "time of the new frame, inside (0, 1): float32 (B, 1, 1, 1)"
    if io == "frames":
        text = "uint8 (N, H, W, 3), 0 to 255, red, green, blue"
    else:
        text = "float32 (N, 3, H, W), 0 to 1, red, green, blue; H and W are multiples of 16"
    assert found["img0"] == f"frame at time 0: {text}"
    assert "No value is checked." in model.doc_string


def test_axes_of_the_same_length_are_renamed_inside_the_graph_too(export):
    exported = export(height=64, width=80, dynamic=True).model
    model = ModelProto()
    model.CopyFrom(exported)
    old = {"height": "u0", "width": "u2"}
    graph = model.graph
    count = 0
    for value in (*graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in old:
                dim.dim_param = old[dim.dim_param]
                count += 1
    assert count > 2
    describe(model, info_of(model))
    text = str(model.graph.value_info) + str(model.graph.output)
    assert '"u0"' not in text
    assert '"u2"' not in text
    onnx.checker.check_model(model, full_check=True)
