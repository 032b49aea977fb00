"""Further attempts of a build if TensorRT refuses one or the engine is slow, over fakes."""

import dataclasses
import json

import onnx
import pytest
from onnx import TensorProto
from onnx.parser import parse_model

from export import build_engine
from export.errors import BuildError, ExportError, GateError
from export.progress import Stages
from export.trt.build import BuildOptions, engine_from_onnx
from export.trt.engine import EngineRequest, fallback_to_float32, target_at, write_engine
from export.trt.inspector import (
    ConvolutionCounts,
    InspectorError,
    count_convolutions,
    count_layer_types,
    parse_layers,
)
from runtime.manifest import EngineManifest

CONVOLUTIONS = 36
"""Number of convolutions of the variant "small", with transposed ones."""


def write(source, path, *, fallbacks=(), notes=None, rewrites=(), layers=None, **options):
    stages = Stages.silent()
    if notes is not None:
        stages.note = notes.append
    request = EngineRequest(BuildOptions(**options), rewrites, "build it again", layers)
    return write_engine(target_at(0), source, path, request, fallbacks=fallbacks, stages=stages)


def flags(trt, build=-1):
    """The precision flags of a build."""
    config = trt.builds[build][1]
    names = ("FP16", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS")
    return [name.split("_")[0] for name in names if config.get_flag(getattr(trt.BuilderFlag, name))]


def constrained(network, kind=None):
    layers = [network.get_layer(k) for k in range(network.num_layers)]
    return [layer for layer in layers if layer.precision_is_set and kind in (None, layer.type)]


def refusing(trt, *refused):
    """Makes builds with these constraints fail as the real builder does; records all builds."""

    def fail(network, config):
        halves = sum(layer.precision == trt.float16 for layer in constrained(network))
        obeys = config.get_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        name = "prefer" if not obeys else "all" if halves else "islands"
        fail.seen.append(name)
        if name in refused:
            return f"Error Code 10: Could not find any implementation for node Mul, {name}"
        return None

    fail.seen = []
    trt.fail_build = fail
    return fail


def all_convolutions(network, config):
    del config
    layers = [network.get_layer(k) for k in range(network.num_layers)]
    return {layer.name for layer in layers if "CONVOLUTION" in layer.type.name}


# Precision constraints


def test_the_first_build_constrains_every_layer_and_the_constants_of_the_islands(
    trt8, sources, tmp_path
):
    build = write(sources["fp16"], tmp_path / "m.engine").engine
    assert (build.precision_constraints, build.precision_constraints_reason) == ("obey-all", None)
    assert flags(trt8) == ["FP16", "OBEY"]
    network, _ = trt8.builds[-1]
    constants = constrained(network, trt8.LayerType.CONSTANT)
    assert constants
    assert all(layer.precision == trt8.float32 for layer in constants)
    assert all(layer.get_output_type(0) == trt8.float32 for layer in constants)
    convolution = constrained(network, trt8.LayerType.CONVOLUTION)
    assert all(layer.precision == trt8.float16 for layer in convolution)
    assert constrained(network, trt8.LayerType.CAST) == []


@pytest.mark.parametrize(
    ("refused", "used", "kept"),
    [
        (["all"], "obey-islands", ["FP16", "OBEY"]),
        (["all", "islands"], "prefer-islands", ["FP16", "PREFER"]),
    ],
)
def test_after_a_refusal_looser_constraints_are_tried_and_the_manifest_has_the_reason(
    trt8, sources, tmp_path, refused, used, kept
):
    refusing(trt8, *refused)
    notes = []
    path = tmp_path / "m.engine"
    write(sources["fp16"], path, notes=notes)
    build = EngineManifest.read(path).engine
    assert build.precision_constraints == used
    for name in refused:
        assert f"for node Mul, {name}" in build.precision_constraints_reason
    assert flags(trt8) == kept
    assert build.fallback is None
    assert [f"looser constraints than obey-{name}" in note for name, note in zip(
        refused, notes, strict=True
    )] == [True] * len(refused)  # fmt: skip
    network, _ = trt8.builds[-1]
    layers = constrained(network)
    assert {layer.type.name for layer in layers} >= {"GRID_SAMPLE", "CONSTANT", "SHUFFLE"}
    assert all(layer.precision == trt8.float32 for layer in layers)
    assert build.float32_tensors_seen > 20  # The gate has passed.


def test_if_every_build_fails_the_error_has_each_reason(trt8, sources, tmp_path):
    seen = refusing(trt8, "all", "islands", "prefer").seen
    with pytest.raises(BuildError) as error:
        write(sources["fp16"], tmp_path / "m.engine")
    for name in ("all", "islands", "prefer"):
        assert f"for node Mul, {name}" in str(error.value)
    assert seen == ["all", "islands", "prefer"] * 2  # The second round is without Round.
    assert list(tmp_path.iterdir()) == []


def test_looser_constraints_are_not_tried_for_an_engine_far_from_its_reference(
    trt8, sources, tmp_path
):
    from export.gate.diagnosis import nearest_sampling

    def sabotage(model):
        nearest_sampling(model)
        return model

    trt8.sabotage = sabotage
    with pytest.raises(GateError, match="nearest sampling"):
        write(sources["fp16"], tmp_path / "m.engine")
    assert len(trt8.builds) == 1


def test_after_out_of_memory_no_other_build_is_tried(trt8, sources, tmp_path):
    tries = []

    def fail(network, config):
        tries.append(config)
        return "Error Code 2: OutOfMemory (no further information)"

    trt8.fail_build = fail
    with pytest.raises(BuildError, match=r"OutOfMemory.*free memory on the GPU"):
        write(sources["fp16"], tmp_path / "m.engine")
    assert len(tries) == 1


@pytest.mark.parametrize("name", ["obey-islands", "prefer-islands"])
def test_given_constraints_are_the_only_ones_tried(trt8, sources, tmp_path, name):
    fail = refusing(trt8)
    build = write(sources["fp16"], tmp_path / "m.engine", constraints=name).engine
    assert (build.precision_constraints, build.precision_constraints_reason) == (name, None)
    assert build.flags["precision_constraints"] == name
    assert fail.seen == [name.split("-")[0] if name.startswith("prefer") else "islands"]


def test_without_constraints_the_islands_are_lost_and_the_engine_is_refused(
    trt8, sources, tmp_path
):
    with pytest.raises(GateError, match=r"float32 tensors in float16|has a PSNR of"):
        write(sources["fp16"], tmp_path / "m.engine", constraints="none")
    assert flags(trt8) == ["FP16"]


def test_a_float32_engine_has_no_constraints(trt8, sources, tmp_path):
    build = write(sources["frames"], tmp_path / "m.engine").engine
    assert build.precision_constraints is None
    assert build.convolutions is None
    assert flags(trt8) == []


def test_constraints_are_for_tensorrt_8(trt10, tmp_path, capsys):
    arguments = ["--weights", "demo", "--precision-constraints", "obey-all", "--output"]
    with pytest.raises(SystemExit):
        build_engine.main([*arguments, str(tmp_path / "m.engine")])
    assert "given with TensorRT 10.3.0, which takes types from the graph" in capsys.readouterr().err


def test_constraints_are_for_float16(trt8, sources, tmp_path, capsys):
    model, output = tmp_path / "m.onnx", tmp_path / "m.engine"
    onnx.save(sources["frames"].model, model)
    options = ["--onnx", model, "--precision-constraints", "obey-all", "--output", output]
    with pytest.raises(SystemExit):
        build_engine.main([*map(str, options)])
    assert "was given with a graph in fp32: leave it out, or use" in capsys.readouterr().err
    build = write(sources["frames"], output, constraints="obey-all").engine
    assert build.precision_constraints is None


# Convolutions that do not run in float16


def test_the_manifest_counts_the_convolutions(trt, sources, tmp_path):
    build = write(sources["fp16"], tmp_path / "m.engine").engine
    assert build.convolutions == {"fp16": CONVOLUTIONS, "other": 0, "unseen": 0}


def test_if_convolutions_stay_float32_looser_constraints_are_tried(trt8, sources, tmp_path):
    """A constraint on one layer can keep all layers that are fused with it in float32."""

    def held(network, config):
        halves = any(layer.precision == trt8.float16 for layer in constrained(network))
        return all_convolutions(network, config) if halves else set()

    trt8.held_in_float32 = held
    notes = []
    build = write(sources["fp16"], tmp_path / "m.engine", notes=notes).engine
    problem = f"{CONVOLUTIONS} of {CONVOLUTIONS} convolutions do not run in float16"
    assert build.precision_constraints == "obey-islands"
    assert problem in build.precision_constraints_reason
    assert build.convolutions == {"fp16": CONVOLUTIONS, "other": 0, "unseen": 0}
    assert any(problem in note for note in notes)


def test_an_engine_with_slow_convolutions_is_refused_unless_a_fallback_is_allowed(
    trt, sources, tmp_path
):
    trt.held_in_float32 = all_convolutions
    path, source = tmp_path / "m.engine", sources["fp16"]
    problem = f"{CONVOLUTIONS} of {CONVOLUTIONS} convolutions do not run in float16"
    with pytest.raises(GateError, match=f"{problem}.*--allow-fallback"):
        write(source, path)
    assert list(tmp_path.iterdir()) == []
    build = write(source, path, fallbacks=[fallback_to_float32(source)]).engine
    assert problem in build.fallback
    assert build.convolutions == {"fp16": 0, "other": CONVOLUTIONS, "unseen": 0}


@pytest.mark.parametrize(("other", "refused"), [(3, False), (4, True)])
def test_one_in_ten_convolutions_may_run_in_float32(trt10, sources, tmp_path, other, refused):
    trt10.held_in_float32 = lambda *both: set(sorted(all_convolutions(*both))[:other])
    path = tmp_path / "m.engine"
    if refused:
        with pytest.raises(GateError, match=f"{other} of {CONVOLUTIONS} convolutions"):
            write(sources["fp16"], path)
    else:
        assert write(sources["fp16"], path).engine.convolutions["other"] == other


def test_convolutions_are_recognised_in_output_of_real_inspectors():
    model = parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float16[1, 4, 8, 8] x) => (float16[1, 4, 8, 8] y)
        <float16[4, 4, 1, 1] w = {1}, float[4, 4, 1, 1] v = {1}> {
            a = Conv(x, w)
            b = Conv(a, w)
            c = ConvTranspose(b, w)
            d = Conv(c, w)
            y = Conv(d, v)
        }"""
    )
    for node, name in zip(
        model.graph.node, ("a/Conv", "a/Conv_2", "c/T", "d/Conv", "e/Conv"), strict=True
    ):
        node.name = name

    def layer(name, kind, read, **more):
        tensor = {"Name": "t", "Format/Datatype": read, "Dimensions": [1, 4, 8, 8]}
        return {"Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor], **more}

    eight = [
        "a name alone",
        layer("Reformatting CopyNode for Input Tensor 0 to a/Conv + PWN(a/PRelu)", "Reformat", "Row major linear FP32"),  # noqa: E501
        layer("a/Conv + PWN(a/PRelu)", "CaskConvolution", "Channel major FP16 format where channel % 8 == 0"),  # noqa: E501
        layer("a/Conv_2 || e/Conv", "CaskConvolution", "Row major linear FP32"),
        layer("c/T", "CaskDeconvolutionV2", "Two wide channel vectorized row major FP16 format"),
        layer("{ForeignNode[x...y]}", "Myelin", "Row major linear FP32"),
    ]  # fmt: skip
    ten = [
        layer("__myl_Move_myl0_1", "kgen", "Float", Metadata="[ONNX Layer: other/Conv]"),
        layer("/conv_0", "CaskConvolution", "Half", Metadata="[ONNX Layer: a/Conv]"),
        layer("/conv_1", "CaskConvolution", "Float", Metadata="[ONNX Layer: a/Conv_2]\x1e[ONNX Layer: e/Conv]"),  # noqa: E501
        layer("/conv_2", "CaskDeconvolution", "Half", Metadata="[ONNX Layer: c/T]"),
    ]  # fmt: skip
    for layers in (eight, ten):
        read = parse_layers(json.dumps({"Layers": layers}))
        assert count_convolutions(read, model) == ConvolutionCounts(fp16=2, other=1, unseen=1)
    assert count_layer_types(parse_layers(json.dumps({"Layers": eight}))) == {
        "CaskConvolution": 2, "Reformat": 1, "CaskDeconvolutionV2": 1, "Myelin": 1
    }  # fmt: skip


# Output of the engine inspector


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Bindings": []}', "no JSON at all"])
def test_an_engine_with_unreadable_inspection_needs_only_the_gate(trt, sources, tmp_path, text):
    trt.damage_inspection = lambda _: text
    notes, layers = [], tmp_path / "layers.json"
    build = write(sources["fp16"], tmp_path / "m.engine", notes=notes, layers=layers).engine
    assert "gave no readable JSON" in build.inspector_problem
    assert build.convolutions is None
    assert build.float32_tensors_seen is None
    assert any("were not checked" in note for note in notes)
    assert layers.read_text() == text


def test_control_characters_in_the_inspection_are_read(trt8, sources, tmp_path):
    layers = tmp_path / "layers.json"
    build = write(sources["fp16"], tmp_path / "m.engine", layers=layers).engine
    with pytest.raises(json.JSONDecodeError, match="control character"):
        json.loads(layers.read_text())
    assert build.inspector_problem is None
    assert build.float32_tensors_seen > 20
    with pytest.raises(InspectorError):
        parse_layers('{"Layers": 3, ')


def test_layers_of_a_refused_engine_are_written(trt8, sources, tmp_path):
    layers = tmp_path / "layers.json"
    trt8.held_in_float32 = all_convolutions
    with pytest.raises(GateError):
        write(sources["fp16"], tmp_path / "m.engine", layers=layers)
    assert list(tmp_path.iterdir()) == [layers]
    assert (
        count_convolutions(parse_layers(layers.read_text()), sources["fp16"].model).other
        == CONVOLUTIONS
    )


def test_the_command_writes_layers_of_an_engine_that_is_up_to_date(
    trt10, sources, tmp_path, capsys
):
    model, output, layers = (tmp_path / name for name in ("m.onnx", "m.engine", "layers.json"))
    onnx.save(sources["fp16"].model, model)
    for options in ([], ["--layers", layers]):
        with pytest.raises(SystemExit) as ended:
            build_engine.main([*map(str, ["--onnx", model, *options, "--output", output])])
        assert ended.value.code == 0
    assert len(parse_layers(layers.read_text())) > 100
    assert f"{CONVOLUTIONS} in float16" in capsys.readouterr().out
    assert "--layers" not in EngineManifest.read(output).engine.command


# Graphs that TensorRT cannot build


def test_without_a_kernel_for_round_the_operator_is_rewritten(trt, sources, tmp_path):
    def fail(network, config):
        layers = (network.get_layer(k) for k in range(network.num_layers))
        if any(layer.type.name == "UNARY" and layer.name.endswith("Round") for layer in layers):
            return "Error Code 10: Could not find any implementation for node {ForeignNode[a...b]}"
        return None

    trt.fail_build = fail
    notes = []
    build = write(sources["fp16"], tmp_path / "m.engine", notes=notes).engine
    assert build.added_rewrites == ["round"]
    assert build.fallback is None
    assert any("without the operator Round" in note for note in notes)
    built = len(trt.builds)
    write(sources["fp16"], tmp_path / "m.engine", notes=notes)
    assert len(trt.builds) == built  # The engine is up to date.


def test_if_round_is_not_the_cause_the_error_has_the_first_reason(trt10, sources, tmp_path):
    tries = []

    def fail(network, config):
        tries.append(network)
        return f"Error Code 10: no implementation, try {len(tries)}"

    trt10.fail_build = fail
    with pytest.raises(BuildError, match="try 1"):
        write(sources["frames"], tmp_path / "m.engine")
    assert len(tries) == 2


def test_a_failed_build_falls_back_if_that_is_allowed(trt10, sources, tmp_path):
    def fail(network, config):
        layers = (network.get_layer(k) for k in range(network.num_layers))
        half = any(layer.get_output(0).dtype.name == "HALF" for layer in layers)
        return "Error Code 10: no float16 here" if half else None

    trt10.fail_build = fail
    source = sources["fp16"]
    build = write(source, tmp_path / "m.engine", fallbacks=[fallback_to_float32(source)])
    assert build.model.precision == "fp32"
    assert "no float16 here" in build.engine.fallback


def test_a_portable_engine_without_the_lean_runtime_says_what_to_install(trt, sources, tmp_path):
    trt.has_lean_runtime = False
    version = trt.__version__
    with pytest.raises(BuildError, match=rf"pip install tensorrt-lean=={version} and add"):
        write(sources["frames"], tmp_path / "m.engine", portable=True)


def test_on_a_jetson_a_portable_engine_is_only_for_its_gpu(trt, sources, tmp_path, monkeypatch):
    monkeypatch.setattr("export.trt.build.is_jetson", lambda: True)
    build = write(sources["frames"], tmp_path / "m.engine", portable=True).engine
    assert (build.portable, build.any_gpu) == (True, False)
    config = trt.builds[0][1]
    assert config.get_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    assert config.hardware_compatibility_level == trt.HardwareCompatibilityLevel.NONE


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (
            "Unable to load library: libnvinfer_builder_resource.so.8.6.0: cannot enable "
            "executable stack as shared object requires: Invalid argument",
            "patchelf --clear-execstack",
        ),
        ("CUDA initialization failure with error: 35", "check the driver with nvidia-smi"),
    ],
)
def test_the_error_of_a_builder_that_cannot_be_created_has_a_remedy(
    trt8, sources, monkeypatch, text, remedy
):
    def broken(log):
        log.log(trt8.ILogger.Severity.ERROR, text)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt8, "Builder", broken)
    with pytest.raises(ExportError) as error:
        engine_from_onnx(trt8, sources["fp16"].model, BuildOptions())
    assert text in str(error.value)
    assert remedy in str(error.value)


def test_contexts_share_a_profile(trt, sources, tmp_path):
    write(sources["free pairs"], tmp_path / "m.engine")
    _, config = trt.builds[-1]
    preview = getattr(trt.PreviewFeature, "PROFILE_SHARING_0806", None)
    assert preview is None or config.get_preview_feature(preview)


def test_unknown_constraints_are_refused():
    with pytest.raises(ExportError, match="precision-constraints is strict: use obey-all, obey"):
        dataclasses.replace(BuildOptions(), constraints="strict")


def test_types_of_tensor_proto_are_those_of_the_graph(sources):
    halves = [
        t for t in sources["fp16"].model.graph.initializer if t.data_type == TensorProto.FLOAT16
    ]
    kernels = [t for t in halves if len(t.dims) == 4 and t.dims[-1] > 1]
    assert len(kernels) == CONVOLUTIONS
