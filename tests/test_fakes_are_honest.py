"""The fakes have only names and parameters that the real bindings of that version have."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import numpy as np
import onnx.parser
import pytest

import fake_cuda
import fake_tensorrt
from fake_cuda import FakeCuda
from paths import DATA

CUDA = json.loads((DATA / "cuda_api.json").read_text())
SCALED = onnx.parser.parse_model(
    """<ir_version: 8, opset_import: ["": 17]>
    g (float[1, 2] x) => (float[1, 2] y) <float[2] k = {0.1, 0.3}> {
        [a] scaled = Mul(x, k)
        [b] y = Sub(scaled, x)
    }"""
).SerializeToString()
VERSIONS = ("8.6.0", "10.0.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.0.0.114", "11.4.0.106")
CONTROLS = {
    "cuda", "unsupported_operators", "sabotage", "fail_build", "fail_capture", "has_lean_runtime",
    "held_in_float32", "damage_inspection", "builds",
}  # fmt: skip
"""Attributes through which tests control a fake TensorRT."""


def public(owner: Any) -> list[str]:
    return [name for name in vars(owner) if not name.startswith("_")]


def parameters(function: Any) -> list[str]:
    """Names of parameters as in the records: "a=" if `a` has a default."""
    found = list(inspect.signature(function).parameters.values())[1:]
    return [p.name + "=" * (p.default is not p.empty) for p in found]


def agrees(function: Any, overloads: list[str]) -> bool:
    """Whether a function of a fake fits a recorded overload.

    It may leave out the last parameters if they have defaults. If one overload has no parameters,
    all parameters of the fake may have defaults.
    """
    ours = parameters(function)
    if "()" in overloads and ours:
        ours = [p.removesuffix("=") for p in ours]
    for overload in overloads:
        theirs = re.findall(r"[^(), ]+", overload)
        rest = theirs[len(ours) :]
        if ours == theirs[: len(ours)] and all(p.endswith("=") for p in rest):
            return True
    return overloads == ["unknown"]


@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_has_no_other_names(version: str) -> None:
    trt, real = fake_tensorrt.fake_tensorrt(version, FakeCuda()), fake_tensorrt.api(version)
    assert set(public(trt)) - CONTROLS <= {*real, *real["tensorrt"]}
    assert {"Builder", "OnnxParser", "Runtime", "BuilderFlag"} <= set(public(trt))


@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_classes_have_the_real_members_and_parameters(version: str) -> None:
    trt, real = fake_tensorrt.fake_tensorrt(version, FakeCuda()), fake_tensorrt.api(version)
    wrong = []
    for owner in set(public(trt)) & set(real):
        fake = getattr(trt, owner)
        for name in (*public(fake), *{"__init__", "__len__", "__getitem__"} & set(vars(fake))):
            kinds, member = real[owner].get(name, []), vars(fake)[name]
            if isinstance(member, property):
                fits = kinds == ["settable"] or (kinds == ["property"] and not member.fset)
            elif inspect.isfunction(member):
                fits = agrees(member, kinds)
            else:
                fits = kinds == ["class" if inspect.isclass(member) else f"value {int(member)}"]
            if not fits:
                wrong.append((owner, name, kinds))
    assert not wrong


@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_enumerations_are_the_real_ones(version: str) -> None:
    trt, real = fake_tensorrt.fake_tensorrt(version, FakeCuda()), fake_tensorrt.api(version)
    for owner in set(public(trt)) & set(real):
        fake = getattr(trt, owner)
        if hasattr(fake, "__members__"):
            values = {name: [f"value {int(m)}"] for name, m in fake.__members__.items()}
            assert values == real[owner]


def test_every_member_of_the_fakes_is_real_in_some_version() -> None:
    # A fake drops the names that its version lacks, and would silently drop a misspelt one.
    for cls in fake_tensorrt._CLASSES:
        assert set(public(cls)) <= set(fake_tensorrt.RECORD[cls.__name__]), cls


def test_generations_differ_as_the_real_ones_do() -> None:
    old, middle, new = (
        fake_tensorrt.fake_tensorrt(version, FakeCuda())
        for version in ("8.6.0", "10.3.0", "11.4.0.106")
    )
    assert not hasattr(old, "IProgressMonitor")
    assert not hasattr(old.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    assert int(middle.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 1
    assert int(new.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 0
    assert not hasattr(new.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH")
    assert hasattr(middle.BuilderFlag, "FP16")
    assert not hasattr(new.BuilderFlag, "FP16")
    assert not hasattr(old.ICudaEngine, "device_memory_size_v2")
    assert not hasattr(new.ICudaEngine, "device_memory_size")
    assert not hasattr(new.ILayer, "precision")
    with pytest.raises(AttributeError, match="no attribute"):
        old.Builder(old.Logger()).create_builder_config().progress_monitor = None


def built(trt: Any, *flags: str, float32: tuple[str, ...] = ()) -> Any:
    """A plan of SCALED. Layers named in `float32` have that precision and output type."""
    network_flags = trt.NetworkDefinitionCreationFlag.__members__.get("EXPLICIT_BATCH")
    builder = trt.Builder(trt.Logger())
    network = builder.create_network(1 << int(network_flags) if network_flags else 0)
    assert trt.OnnxParser(network, trt.Logger()).parse(SCALED)
    config = builder.create_builder_config()
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    for layer in (network.get_layer(k) for k in range(network.num_layers)):
        if layer.name in float32:
            layer.precision = trt.float32
            layer.set_output_type(0, trt.float32)
    return builder.build_serialized_network(network, config)


@pytest.mark.parametrize("version", ["8.6.0", "10.3.0", "11.4.0.106"])
def test_tensorrt_objects_behave_like_the_real_ones(version: str) -> None:
    trt = fake_tensorrt.fake_tensorrt(version, FakeCuda())
    plan, flag = built(trt), trt.BuilderFlag.TF32

    class Silent(trt.ILogger):
        def __init__(self) -> None:
            pass

    assert len(bytes(plan)) == plan.nbytes
    for misuse in (
        lambda: len(plan),
        lambda: 1 << flag,
        lambda: iter(trt.BuilderFlag),
        lambda: hash(trt.Dims((1, 2))),
        lambda: trt.Builder(trt.Logger()).create_builder_config().set_flag(3),
        Silent,
    ):
        with pytest.raises(TypeError):
            misuse()
    assert flag != int(flag)
    assert flag == trt.BuilderFlag(int(flag))
    assert trt.Dims((1, 2)) == (1, 2)
    assert trt.Runtime(trt.Logger()).deserialize_cuda_engine(bytes(plan)[:-1]) is None


def test_a_weakly_typed_build_rounds_layers_that_are_not_set_to_float32() -> None:
    trt = fake_tensorrt.fake_tensorrt("8.6.0", FakeCuda())
    x, k = np.array([[1 / 3, 2049]], np.float32), np.array([0.1, 0.3], np.float32)
    half, helper = k.astype(np.float16).astype(np.float32), "(Unnamed Layer* 1) [Shuffle]"
    obey = ("FP16", "OBEY_PRECISION_CONSTRAINTS")
    for flags, float32, scaled in (
        ((), (), x * k),
        (("FP16",), ("a", helper), (x * half).astype(np.float16)),
        (obey, (helper,), (x * k).astype(np.float16)),
        (obey, ("a",), x * half),
        (obey, ("a", helper), x * k),
    ):
        plan = built(trt, *flags, float32=float32)
        engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(plan)
        (y,) = engine._session.run(["y"], {"x": x})
        assert np.array_equal(y, scaled - x), (flags, float32)


@pytest.mark.parametrize("version", CUDA["versions"])
def test_cuda_has_the_real_functions_and_parameters(version: str) -> None:
    real = {
        name: next((kind for kind, where in kinds.items() if version in where), "")
        for name, kinds in CUDA["runtime"].items()
    }
    for name in (n for n in public(FakeCuda) if n.startswith("cuda")):
        member = vars(FakeCuda)[name]
        if inspect.isfunction(member):
            assert f"({', '.join(parameters(member))})" == real[name].split(" -> ")[0], name
            outputs = getattr(member, "outputs", None)
            assert outputs in (None, real[name].count(",", real[name].index("->"))), name
        elif isinstance(member, int):
            assert real[name] == f"value {member}", name
        else:
            assert version in str(CUDA.get(name, name)) or issubclass(member, fake_cuda._Handle)


@pytest.mark.parametrize("version", CUDA["versions"])
def test_cuda_enumerations_have_the_real_values(version: str) -> None:
    for name in (
        "cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode", "cudaStreamCaptureStatus",
        "cudaMemoryType",
    ):  # fmt: skip
        for member in getattr(FakeCuda, name):
            assert version in CUDA[name][member.name][f"value {int(member)}"]
