import re
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artefacts import initializer
from export.errors import ExportError
from export.from_checkpoint import checked_from_checkpoint
from export.gate.cases import moving_frames
from export.graph import passes
from export.wrapper import ExportOptions
from ifrnet_model import VARIANTS
from small_graphs import run

STATIC_FLOAT = {"height": 64, "width": 80, "io": "float"}


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_static_float_graph_has_only_necessary_nodes(tmp_path, variant):
    import torch

    from bench.runs.authors import random_network

    torch.save(random_network(variant).state_dict(), tmp_path / "weights.pth")
    exported = checked_from_checkpoint(tmp_path / "weights.pth", ExportOptions(**STATIC_FLOAT))
    found = operators(exported.model)
    assert sum(found.values()) <= 149
    assert found["GridSample"] == 4
    assert found["Conv"] == 32  # the encoder runs once, on both frames
    assert not found.keys() & {"Cast", "ScatterND", "ScatterElements", "Constant", "Identity"}
    assert exported.info.variant == variant


def test_opset_domain_and_sampling_mode(export):
    model = export(**STATIC_FLOAT).model
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    sampling = [node for node in model.graph.node if node.op_type == "GridSample"]
    found = [{a.name: helper.get_attribute_value(a) for a in node.attribute} for node in sampling]
    expected = {"mode": b"bilinear", "padding_mode": b"border", "align_corners": 1}
    assert found == [expected] * 4


def test_only_the_coordinates_depend_on_the_size(export):
    small = export(**STATIC_FLOAT).model
    large = export(height=96, width=128, io="float").model
    assert operators(small) == operators(large)
    pairs = zip(small.graph.initializer, large.graph.initializer, strict=True)
    dims = [(tuple(one.dims), tuple(other.dims)) for one, other in pairs]
    # Coordinates, one vector for each axis and level: (1, 2, 1, W) or (1, 2, H, 1).
    vectors = {one for one, other in dims if one != other}
    assert vectors == {(1, 2, *size) for k in (1, 2, 4, 8) for size in ((64 // k, 1), (1, 80 // k))}
    stored = sum(numpy_helper.to_array(t).nbytes for t in small.graph.initializer)
    weights = 4 * 2_803_610
    assert stored - weights < 16_000


RESHAPES = """<ir_version: 8, opset_import: ["": 17]>
g (float[2, 6] x, float[n, 6] free, float[6, 2] y) => (float[3, 4] a, float[m, 3] b, float[6, 2] c)
<int64[2] fixed = {-1, 4}, int64[2] unknown = {-1, 3}, int64[2] twice = {-1, 2}> {
    a = Reshape(x, fixed)
    b = Reshape(free, unknown)
    d = Reshape(x, twice)
    e = Reshape(y, twice)
    c = Add(d, e)
}"""


def test_known_sizes_replace_inferred_ones_in_reshapes():
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(RESHAPES))
    passes.write_out_reshapes(model)
    onnx.checker.check_model(model, full_check=True)
    found = {t.name: numpy_helper.to_array(t).tolist() for t in model.graph.initializer}
    assert found == {"fixed": [3, 4], "unknown": [-1, 3], "twice": [6, 2]}


def test_a_shape_shared_by_reshapes_to_different_sizes_is_kept():
    text = RESHAPES.replace("float[6, 2] y", "float[8, 2] y").replace("Add(d, e)", "Relu(d)")
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    passes.write_out_reshapes(model)
    assert numpy_helper.to_array(initializer(model, "twice")).tolist() == [-1, 2]


@pytest.mark.parametrize("options", [{}, {"timesteps": 3}, {"batch": 2}, {"io": "float"}])
def test_a_graph_of_fixed_size_has_no_inferred_sizes(export, options):
    size = STATIC_FLOAT if "io" in options else {"height": 50, "width": 70}
    model = export(**{**size, **options}).model
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    assert shapes
    assert all(min(numpy_helper.to_array(initializer(model, name))) > 0 for name in shapes)


def test_inputs_and_outputs_float(export):
    model = export(**STATIC_FLOAT).model
    assert ports(model.graph.input) == [
        ("img0", TensorProto.FLOAT, (1, 3, 64, 80)),
        ("img1", TensorProto.FLOAT, (1, 3, 64, 80)),
        ("timestep", TensorProto.FLOAT, (1, 1, 1, 1)),
    ]
    assert ports(model.graph.output) == [("imgt", TensorProto.FLOAT, (1, 3, 64, 80))]


def test_inputs_and_outputs_frames(export):
    model = export(height=50, width=70, timesteps=3).model
    assert ports(model.graph.input) == [
        ("img0", TensorProto.UINT8, (1, 50, 70, 3)),
        ("img1", TensorProto.UINT8, (1, 50, 70, 3)),
        ("timestep", TensorProto.FLOAT, (3, 1, 1, 1)),
    ]
    assert ports(model.graph.output) == [("imgt", TensorProto.UINT8, (3, 50, 70, 3))]
    # TensorRT supports uint8 only for inputs and outputs: casts come first and last.
    assert {n.op_type for n in model.graph.node if {"img0", "img1"} & set(n.input)} == {"Cast"}
    assert [n.op_type for n in model.graph.node if "imgt" in n.output] == ["Cast"]


def ports(values):
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in values
    ]


def test_float16_keeps_the_islands_in_float32(export):
    model = onnx.shape_inference.infer_shapes(export(**STATIC_FLOAT, precision="fp16").model)
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    types |= {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    types |= {v.name: v.type.tensor_type.elem_type for v in model.graph.output}
    types |= {t.name: t.data_type for t in model.graph.initializer}
    islands = {"GridSample", "Resize", "ReduceMean", "Sigmoid", "Clip", "Mul"}
    seen = Counter()
    for node in model.graph.node:
        if node.op_type in islands:
            seen[node.op_type] += 1
            assert types[node.input[0]] == TensorProto.FLOAT, node.name
        if node.op_type in {"Conv", "ConvTranspose", "PRelu"}:
            seen[node.op_type] += 1
            assert {types[name] for name in node.input} == {TensorProto.FLOAT16}, node.name
    assert seen["GridSample"] == 4
    assert seen["Conv"] == 32
    # The coordinates of a GridSample are float32 from the sum of the flows on.
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "GridSample":
            step = producers[node.input[1]]
            while step is not None and step.op_type in {
                "Transpose", "Add", "Mul", "Reshape", "Resize",
            }:  # fmt: skip
                seen["of coordinates"] += 1
                assert types[step.output[0]] == TensorProto.FLOAT
                step = producers.get(step.input[0])
    assert seen["of coordinates"] >= 4 * 4


def test_gather_has_no_grid_sample(export):
    found = operators(export(**STATIC_FLOAT, warp="gather").model)
    assert found["GridSample"] == 0
    assert found["GatherElements"] == 16


def test_nodes_are_named_after_layers_and_contain_no_paths(export):
    model = export(**STATIC_FLOAT).model
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert "decoder1.convblock.1.conv5/Conv" in names
    assert "encoder.pyramid1.0.0/Conv" in names
    text = onnx.ModelProto()
    text.CopyFrom(model)
    del text.graph.initializer[:]
    # \b: "pytorch_half_pixel", a mode of Resize in exports of PyTorch 2.10, is allowed.
    assert not re.search(rb"site-packages|\.py\b|/home|/root|\btorch", text.SerializeToString())


def test_metadata(export):
    properties = {p.key: p.value for p in export(**STATIC_FLOAT).model.metadata_props}
    assert properties["ifrnet.format_version"] == "1"
    assert properties["ifrnet.variant"] == "small"
    assert properties["ifrnet.io"] == "float"
    assert properties["ifrnet.precision"] == "fp32"
    assert properties["ifrnet.time_steps"] == "arbitrary"
    assert properties["ifrnet.divisor"] == "16"
    assert properties["ifrnet.flow_scale"] == "1.0"
    assert properties["ifrnet.height"] == "64"
    assert len(properties["ifrnet.weights_sha256"]) == 64


def tiny(*nodes, opset=18, constants=()):
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "tiny",
        [value("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [value("y", TensorProto.FLOAT, ["a", "b", "c", "d"])],
        [numpy_helper.from_array(np.array(v), n) for n, v in constants],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


def test_lowering_moves_axes_into_the_attribute():
    node = helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1, noop_with_empty_axes=0)
    model = tiny(node, constants=[("axes", [1, 2, 3])])
    passes.lower_opset(model)
    passes.tidy(model)
    passes.check(model)
    (lowered,) = model.graph.node
    assert helper.get_attribute_value(lowered.attribute[-1]) == [1, 2, 3]
    assert not model.graph.initializer


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1),
        helper.make_node("Split", ["x"], ["y"], num_outputs=1),
        helper.make_node("ReduceMean", ["x", "axes"], ["y"], noop_with_empty_axes=1),
        helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=0),
    ],
)
def test_lowering_refuses_attributes_that_opset_17_lacks(node):
    model = tiny(node, constants=[("axes", [1]), ("s", [1.0, 1.0, 2.0, 2.0])])
    with pytest.raises(ExportError, match="opset 17"):
        passes.lower_opset(model)


def test_lowering_refuses_another_opset():
    with pytest.raises(ExportError, match="expected 18"):
        passes.lower_opset(tiny(helper.make_node("Sigmoid", ["x"], ["y"]), opset=20))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Erf", ["x"], ["y"]), "uses Erf"),
        (helper.make_node("GridSample", ["x", "g"], ["y"], mode="nearest"), "has mode b'nearest'"),
        (helper.make_node("GridSample", ["x", "g"], ["y"], mode="bicubic"), "has mode b'bicubic'"),
        (helper.make_node("Sigmoid", ["missing"], ["y"]), "not valid ONNX"),
        (helper.make_node("Thing", ["x"], ["y"], domain="mine"), "not valid ONNX|uses"),
    ],
)
def test_check_refuses_graphs_that_are_not_plain(node, message):
    grid = np.zeros((1, 4, 4, 2), np.float32)
    with pytest.raises(ExportError, match=message):
        passes.check(tiny(node, opset=17, constants=[("g", grid)]))


@pytest.mark.parametrize("attributes", [{}, {"mode": "bilinear"}])
def test_check_accepts_bilinear_sampling(attributes):
    grid = np.zeros((1, 4, 4, 2), np.float32)
    node = helper.make_node("GridSample", ["x", "g"], ["y"], **attributes)
    passes.check(tiny(node, opset=17, constants=[("g", grid)]))


@pytest.mark.parametrize("opset", [16, 18])
def test_check_refuses_another_opset(opset):
    model = tiny(helper.make_node("Sigmoid", ["x"], ["y"]), opset=opset)
    with pytest.raises(ExportError, match=f"opsets {{'': {opset}}}, expected only 17"):
        passes.check(model)


def test_check_refuses_functions():
    model = tiny(helper.make_node("Sigmoid", ["x"], ["y"]), opset=17)
    body = helper.make_node("Relu", ["a"], ["b"])
    function = helper.make_function("", "F", ["a"], ["b"], [body], [helper.make_opsetid("", 17)])
    model.functions.append(function)
    with pytest.raises(ExportError, match=r"expected only 17 of ai\.onnx without functions"):
        passes.check(model)


def test_a_reshape_with_another_free_axis_does_not_allow_free_pairs():
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], name="flat")
    model = tiny(node, opset=17, constants=[("shape", [1, -1, 4, 4])])
    with pytest.raises(
        ExportError,
        match=r"^Reshape flat to \[1, -1, 4, 4\] does not allow a free number of pairs: export "
        r"without --max-batch$",
    ):
        passes.with_free_batch(model)


@pytest.mark.parametrize("count", [1, -1])
def test_the_first_axis_of_a_reshape_becomes_free(count):
    node = helper.make_node("Reshape", ["x", "shape"], ["y"], name="flat")
    constants = [("unused", [1, -1]), ("shape", [count, 2, 4, 4])]
    made = passes.with_free_batch(tiny(node, opset=17, constants=constants))
    assert numpy_helper.to_array(initializer(made, "shape")).tolist() == [-1, 2, 4, 4]
    assert numpy_helper.to_array(initializer(made, "unused")).tolist() == [1, -1]
    for value in (*made.graph.input, *made.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "pairs"
    x = np.arange(96, dtype=np.float32).reshape(3, 2, 4, 4)
    np.testing.assert_array_equal(run(made, x=x), x)


def test_weights_are_those_of_the_checkpoint(export, demo_network):
    model = export(**STATIC_FLOAT).model
    name = "network.decoder2.convblock.1.conv3.0.weight"
    expected = demo_network.decoder2.convblock[1].conv3[0].weight.detach().numpy()
    np.testing.assert_array_equal(numpy_helper.to_array(initializer(model, name)), expected)


def test_constants_that_are_exact_in_float16_are_stored_in_float16(export):
    model = onnx.ModelProto.FromString(export(height=50, width=70).model.SerializeToString())
    before, values = model.ByteSize(), initializers(model)
    frames = [frame[None] for frame in moving_frames(50, 70, 3.0)]
    feed = {"img0": frames[0], "img1": frames[1], "timestep": np.full((1, 1, 1, 1), 0.5, "f4")}
    expected = run(model, **feed)
    passes.halve_constants(model)
    onnx.checker.check_model(model, full_check=True)
    assert model.ByteSize() < 0.52 * before
    casts = [node for node in model.graph.node if node.name.endswith("/Cast")]
    halved = initializers(model)
    for cast in casts:
        assert np.array_equal(halved[cast.input[0]].astype(np.float32), values[cast.output[0]])
    assert len(casts) > 20
    assert np.array_equal(run(model, **feed), expected)


def initializers(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_other_constants_are_kept():
    kept = {
        "inexact": np.full(2000, 0.1, np.float32),
        "too_large": np.full(2000, 1e6, np.float32),
        "not_finite": np.full(2000, np.nan, np.float32),
        "few": np.ones(1023, np.float32),
        "integers": np.ones(2000, np.int64),
    }
    tensors = [numpy_helper.from_array(array, name) for name, array in kept.items()]
    graph = helper.make_graph([], "constants", [], [], tensors)
    model = helper.make_model(graph)
    before = model.SerializeToString()
    passes.halve_constants(model)
    assert model.SerializeToString() == before


def shapes_of(values):
    return [
        [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in values
    ]


def test_only_free_heights_and_widths_are_fixed():
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
g (float[1, h, w, 3] x, float[1, 1, 1, 1] t, float[n] f) => (float[1, h, w, 3] y, float[n] z) {
    y = Mul(x, t)
    z = Relu(f)
}""")
    before = model.SerializeToString()
    made = passes.with_size(model, 8, 12, axes=(1, 2))
    assert shapes_of(made.graph.input) == [[1, 8, 12, 3], [1, 1, 1, 1], ["n"]]
    assert shapes_of(made.graph.output) == [[1, 8, 12, 3], ["n"]]
    assert model.SerializeToString() == before


def test_a_float16_graph_in_float32_has_the_same_weights_and_rounds_nothing_else():
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
g (float[2] x) => (float[2] y) {
    half = Cast<to=10>(x)
    product = Mul(half, weight)
    whole = Cast<to=1>(product)
    y = Add(whole, one)
}""")
    constants = {"weight": np.array([0.1, 3], np.float16), "one": np.ones(2, np.float32)}
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    before = model.SerializeToString()
    x = np.array([1.0001, 2.0001], np.float32)
    expected = x * constants["weight"].astype(np.float32) + 1
    made = passes.in_float32(model)
    np.testing.assert_array_equal(run(made, x=x), expected)
    targets = [node.attribute[0].i for node in made.graph.node if node.op_type == "Cast"]
    assert targets == [TensorProto.FLOAT] * 2
    assert model.SerializeToString() == before
