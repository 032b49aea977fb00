import functools
import re
from collections import Counter
from math import prod

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import fake_tensorrt
from bench.runs.authors import random_network
from export.errors import ExportError
from export.from_checkpoint import source_from_checkpoint
from export.graph import passes
from export.graph.channels import align_channels
from export.graph.for_tensorrt import REWRITES, rewritten_for_tensorrt
from export.wrapper import ExportOptions
from small_graphs import one_node, operators, run

CASES = {
    "small, float": ("small", {"io": "float"}),
    "base, fp16, float": ("base", {"precision": "fp16", "io": "float"}),
    "base, fp16, 3 steps": ("base", {"precision": "fp16", "timesteps": 3}),
    "large, fp16": ("large", {"precision": "fp16"}),
    # Exports of the demo weights, which other tests use as well.
    "demo, dynamic": ("demo", {"height": 64, "width": 80, "dynamic": True}),
    "demo, 3 steps": ("demo", {"height": 50, "width": 70, "timesteps": 3}),
    "demo, free pairs": ("demo", {"height": 50, "width": 70, "max_batch": 3}),
    "demo, gather": ("demo", {"height": 64, "width": 80, "warp": "gather", "io": "float"}),
}

ALONE = [[name] for name in REWRITES]
TOGETHER = [list(REWRITES), [name for name in REWRITES if name != "prelu"]]
WIDE = [["channels"], ["deconvolution"], *TOGETHER]
"""What depends on the number of channels, which alone differs between the variants."""

FLOAT32 = 1e-5
"""Tolerance for sums of up to 2000 products in another order in 40 layers; measured: 3e-6."""

FLOAT16 = 5e-3
"""The same tolerance with rounding to float16, 1e-3 of each feature; measured: 1.2e-3."""


@pytest.fixture(scope="session")
def plain(tmp_path_factory, export):
    """Returns the plain graph of a case; all weights but "demo" are random."""
    folder = tmp_path_factory.mktemp("random")

    @functools.cache
    def plain(case):
        weights, options = CASES[case]
        if weights == "demo":
            return export(**options).model
        path = folder / f"{weights}.pth"
        torch.save(random_network(weights).state_dict(), path)
        return source_from_checkpoint(path, ExportOptions(32, 48, **options)).model

    return plain


def inputs_of(model):
    rng = np.random.default_rng(0)
    made = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        free = iter((40, 56))  # not the traced size, if the size is free
        shape = [dim.dim_value or next(free) for dim in kind.shape.dim]
        if value.name == "timestep":
            made[value.name] = np.linspace(0.3, 0.7, shape[0], dtype="f").reshape(shape)
        elif kind.elem_type == TensorProto.UINT8:
            made[value.name] = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            made[value.name] = rng.random(shape, dtype=np.float32)
    return made


@pytest.fixture(scope="session")
def expected_results(plain):
    made = {}

    def expected_results(case):
        if case not in made:
            model = plain(case)
            made[case] = run(model, **inputs_of(model))
        return made[case]

    return expected_results


@pytest.mark.parametrize(
    ("case", "names"),
    [
        pytest.param(case, names, id=f"{case}-{'+'.join(names)}")
        for case in CASES
        for names in (WIDE if case.startswith(("base", "large")) else [*ALONE, *TOGETHER])
    ],
)
def test_rewrites_keep_the_result(plain, expected_results, case, names):
    model = plain(case)
    before = model.SerializeToString()
    rewritten = rewritten_for_tensorrt(model, names)
    assert model.SerializeToString() == before
    passes.check(rewritten)
    again = rewritten_for_tensorrt(rewritten, names)
    assert again.SerializeToString() == rewritten.SerializeToString()
    difference = np.abs(run(rewritten, **inputs_of(model)).astype(float) - expected_results(case))
    half = CASES[case][1].get("precision") == "fp16"
    if model.graph.output[0].type.tensor_type.elem_type == TensorProto.UINT8:
        assert difference.max() <= 1
        assert np.mean(difference) < (0.1 if half else 1e-3)
    else:
        assert difference.max() < (FLOAT16 if half else FLOAT32)


@pytest.mark.parametrize(
    ("case", "before", "percent"),
    [("small, float", 17, 4.9), ("base, fp16, float", 28, 1.1), ("large, fp16", 28, 0.6)],
)
def test_channels_are_aligned_to_groups_of_eight(plain, case, before, percent):
    model = plain(case)
    aligned = rewritten_for_tensorrt(model, ["channels"])
    assert operators(aligned) == operators(model)
    kernels = kernels_of(model)
    assert sum(in_groups(kernel) for kernel in kernels.values()) == before
    changed = kernels_of(aligned)
    assert len(changed) == len(kernels) == 36
    # The first convolution reads three colours.
    assert [n for n, k in changed.items() if not in_groups(k)] == ["encoder.pyramid1.0.0/Conv"]
    assert 100 * (work(changed) / work(kernels) - 1) == pytest.approx(percent, abs=0.05)
    # Inputs of the decoders' convolutions begin with complete groups of 8 channels.
    shapes = shapes_of(aligned)
    nodes = aligned.graph.node
    joined = [node for node in nodes if node.op_type == "Concat" and "decoder" in node.name]
    assert len(joined) == 4 * 3
    for node in joined:
        sizes = [shapes[name][1] for name in node.input]
        assert sum(sizes) % 8 == 0
        assert sizes == sorted(sizes, key=lambda size: size % 8 != 0)


def kernels_of(model):
    weights = {t.name: tuple(t.dims) for t in model.graph.initializer}
    convolutions = (n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose"))
    return {node.name: weights[node.input[1]] for node in convolutions}


def shapes_of(model):
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }


def in_groups(kernel):
    return kernel[0] % 8 == kernel[1] % 8 == 0


def work(kernels):
    """Multiplications for each pixel of a frame; the encoder runs on both frames."""
    levels = {name: int(re.search(r"(?:pyramid|decoder)(\d)", name)[1]) for name in kernels}
    return sum(
        prod(kernel) / 4 ** levels[name] * (2 if "pyramid" in name else 1)
        for name, kernel in kernels.items()
    )


@pytest.mark.parametrize(
    ("case", "percent"),
    [("small, float", 8.5), ("base, fp16, float", 7.7), ("large, fp16", 6.5)],
)
def test_deconvolutions_become_convolutions(plain, case, percent):
    model = plain(case)
    rewritten = rewritten_for_tensorrt(model, ["deconvolution"])
    found = operators(rewritten)
    assert (found["ConvTranspose"], found["DepthToSpace"]) == (0, 4)
    growth = work(kernels_of(rewritten)) / work(kernels_of(model)) - 1
    assert 100 * growth == pytest.approx(percent, abs=0.05)


def test_channels_are_left_alone_before_a_reshape_of_the_plane():
    """Padding would move samples from one channel to another."""
    rng = np.random.default_rng(0)
    constants = {
        "w0": rng.random((12, 3, 1, 1), np.float32), "b0": rng.random(12, np.float32),
        "shape": np.array([1, 24, 2, 4]),
        "w1": rng.random((8, 24, 1, 1), np.float32), "b1": rng.random(8, np.float32),
    }  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w0", "b0"], ["a"], "first"),
            helper.make_node("Reshape", ["a", "shape"], ["b"], "fold"),
            helper.make_node("Conv", ["b", "w1", "b1"], ["y"], "second"),
        ],
        "folded",
        [value("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [value("y", TensorProto.FLOAT, [1, 8, 2, 4])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.random((1, 3, 4, 4), np.float32)
    before = run(model, x=x)
    align_channels(model)
    assert next(t for t in graph.initializer if t.name == "w0").dims[0] == 12
    np.testing.assert_array_equal(run(model, x=x), before)


def test_side_channels_have_their_own_layers(plain):
    model = plain("small, float")
    rewritten = rewritten_for_tensorrt(model, ["side"])
    change = Counter(operators(rewritten))
    change.subtract(operators(model))
    assert {name: count for name, count in change.items() if count} == {
        "Conv": 8,
        "PRelu": 8,
        "Split": -8,
    }
    assert work(kernels_of(rewritten)) == work(kernels_of(model))


def test_each_grid_needs_one_addition_less(plain):
    model = plain("small, float")
    rewritten = rewritten_for_tensorrt(model, ["grid"])
    assert operators(model)["Add"] - operators(rewritten)["Add"] == 4
    for case in ("demo, dynamic", "demo, gather"):
        left = rewritten_for_tensorrt(plain(case), ["grid"])
        assert operators(left) == operators(rewritten_for_tensorrt(plain(case), []))


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [({"start": 1, "end": 2}, [3]), ({"end": 2}, [2, 3]), ({"start": 2}, [5, 7]),
     ({"start": -3, "end": -1}, [3, 5]), ({"start": 0}, [2, 3, 5, 7]), ({}, [2, 3, 5, 7])],
)  # fmt: skip
def test_ranges_of_shapes_become_slices(bounds, expected):
    value = helper.make_tensor_value_info
    node = helper.make_node("Shape", ["x"], ["y"], name="shape", **bounds)
    shapes = [value("x", TensorProto.FLOAT, list("abcd"))], [value("y", TensorProto.INT64, ["n"])]
    graph = helper.make_graph([node], "one", *shapes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rewritten = rewritten_for_tensorrt(model, [])
    (shape,) = (made for made in rewritten.graph.node if made.op_type == "Shape")
    assert not any(a.name == "end" or a.i for a in shape.attribute)
    for graph in (model, rewritten):
        assert run(graph, x=np.zeros((2, 3, 5, 7), np.float32)).tolist() == expected
    changed = bool(bounds.get("start")) or "end" in bounds
    assert ("Slice" in operators(rewritten)) == changed


def test_a_graph_of_free_size_is_rewritten_without_ranges_of_shapes(plain, expected_results):
    model = plain("demo, dynamic")
    assert any(fake_tensorrt.has_range(node) for node in model.graph.node)
    rewritten = rewritten_for_tensorrt(model, [])
    assert not any(fake_tensorrt.has_range(node) for node in rewritten.graph.node)
    np.testing.assert_array_equal(
        run(rewritten, **inputs_of(model)), expected_results("demo, dynamic")
    )


def test_an_unknown_name_is_refused(plain):
    with pytest.raises(ExportError, match=r"'magic' is unknown: use side, channels, .*prelu_max"):
        rewritten_for_tensorrt(plain("small, float"), ["grid", "magic"])


def test_without_names_of_rewrites_nothing_changes(plain):
    model = plain("small, float")
    assert rewritten_for_tensorrt(model, []).SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("name", REWRITES)
def test_a_graph_without_the_operators_is_left_alone(name):
    model = one_node(helper.make_node("Sigmoid", ["x"], ["y"]), {"x": [1, 2, 8, 8]})
    before = model.SerializeToString()
    assert rewritten_for_tensorrt(model, [name]).SerializeToString() == before


@pytest.mark.parametrize("shape", [[2, 5, 6, 9], ["n", 5, "h", "w"]])
def test_deconvolution_is_equal(shape):
    attributes = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], **attributes)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((5, 3, 4, 4), np.float32)
    bias = rng.standard_normal(3, np.float32)
    model = one_node(node, {"x": shape}, [("w", weight), ("b", bias)])
    x = rng.standard_normal((2, 5, 6, 9), np.float32)
    rewritten = rewritten_for_tensorrt(model, ["deconvolution"])
    assert operators(rewritten) == {"Conv": 1, "DepthToSpace": 1}
    np.testing.assert_allclose(run(rewritten, x=x), run(model, x=x), atol=FLOAT32)


@pytest.mark.parametrize(
    "attributes",
    [{"strides": [1, 1]}, {"pads": [0, 0, 0, 0]}, {"output_padding": [1, 1]}],
)
@pytest.mark.parametrize("name", ["deconvolution", "channels"])
def test_other_deconvolutions_are_left_alone(attributes, name):
    given = {"strides": [2, 2], "pads": [1, 1, 1, 1], **attributes}
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], **given)
    weight, bias = np.ones((5, 3, 4, 4), np.float32), np.ones(3, np.float32)
    model = one_node(node, {"x": [1, 5, 6, 9]}, [("w", weight), ("b", bias)])
    before = model.SerializeToString()
    assert rewritten_for_tensorrt(model, [name]).SerializeToString() == before


@pytest.mark.parametrize(
    ("name", "slopes", "expected"),
    [
        ("prelu", (0.3, 0.0), {"Max": 1, "Min": 1, "Mul": 1, "Add": 1}),
        ("prelu", (-3.7, 1.3), {"Max": 1, "Min": 1, "Mul": 1, "Add": 1}),
        ("prelu_max", (0.3, 1.0), {"Mul": 1, "Max": 1}),
        ("prelu_max", (-3.7, 0.0), {"Mul": 1, "Max": 1}),
        ("prelu_max", (0.3, 1.001), {"PRelu": 1}),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_prelu_is_bit_equal(name, slopes, expected, dtype):
    node = helper.make_node("PRelu", ["x", "a"], ["y"], name="activation")
    slope = np.array(slopes, dtype).reshape(1, 2, 1, 1)
    model = one_node(node, {"x": [1, 2, 8, 8]}, [("a", slope)])
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(dtype)
    rewritten = rewritten_for_tensorrt(model, [name])
    assert operators(rewritten) == expected
    np.testing.assert_array_equal(run(rewritten, x=x), run(model, x=x))


def test_weights_of_float16_stay_float16(plain):
    rewritten = rewritten_for_tensorrt(plain("base, fp16, float"), list(REWRITES))
    inferred = onnx.shape_inference.infer_shapes(rewritten)
    kinds = {t.name: t.data_type for t in inferred.graph.initializer}
    kinds |= {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    found = {}
    for node in inferred.graph.node:
        if node.op_type in ("Conv", "DepthToSpace", "Min", "GridSample"):
            found.setdefault(node.op_type, set()).update(kinds[name] for name in node.input)
    half = {name: {TensorProto.FLOAT16} for name in ("Conv", "DepthToSpace", "Min")}
    assert found == {**half, "GridSample": {TensorProto.FLOAT}}


def test_a_residual_that_cannot_be_aligned_is_refused():
    rng = np.random.default_rng(0)
    weights = {"a": (4, 3, 1, 1), "b": (4, 3, 1, 1), "c": (8, 4, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "a", "zeros4"], ["p"]),
        helper.make_node("Conv", ["x", "b", "zeros4"], ["q"]),
        helper.make_node("Sigmoid", ["q"], ["r"]),
        helper.make_node("Add", ["p", "r"], ["s"], name="residual"),
        helper.make_node("Conv", ["s", "c", "zeros8"], ["y"]),
    ]
    model = one_node(nodes[0], {"x": [1, 3, 8, 8]})
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    arrays = {name: rng.standard_normal(shape, np.float32) for name, shape in weights.items()}
    arrays |= {"zeros4": np.zeros(4, np.float32), "zeros8": np.zeros(8, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    with pytest.raises(ExportError, match="residual adds tensors that --rewrite channels pads"):
        rewritten_for_tensorrt(model, ["channels"])
