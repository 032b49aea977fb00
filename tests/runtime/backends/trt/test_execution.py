"""Execution contexts of an engine: profiles, CUDA graphs that fail, other TensorRT versions."""

import warnings

import numpy as np
import onnx
import pytest

import gpu_fakes
from artefacts import assert_same, change_build
from export.gate.cases import moving_frames
from export.trt.build import Profile
from runtime import BackendError, Interpolator, ModelError
from runtime.backends.base import OpenOptions
from runtime.backends.registry import open_backend
from runtime.backends.trt.profiling import profile_layers
from runtime.machine import Gpu, GpuDriver

PROFILE = Profile((32, 32), (64, 80), (96, 112))
FREE = {"dynamic": {"profile": PROFILE}, "free pairs": {"max_pairs": 3}}
"""Graph with free axes -> options of the build of its engine."""


@pytest.fixture
def expected(tmp_path, sources, clip):
    """The stream that ONNX Runtime computes from `clip` with a graph."""

    def made(graph):
        path = tmp_path / f"{graph}.onnx"
        onnx.save(sources[graph].model, path)
        with Interpolator.open(path, backend="onnxruntime") as plain:
            return list(plain.stream(clip))

    return made


@pytest.fixture
def clip():
    return [moving_frames(50, 70, 4.0, seed=k)[k % 2] for k in range(5)]


# Refusals


@pytest.mark.parametrize(
    ("method", "graph", "message"),
    [
        ("set_input_shape", "dynamic", r"TensorRT refused img0 of shape \(1, 50, 70, 3\)"),
        ("set_tensor_address", "frames", "TensorRT refused the address 0x[0-9a-f]+00 for img0"),
        ("execute_async_v3", "frames", "TensorRT could not queue the inference"),
    ],
)
def test_what_tensorrt_refuses_is_said_and_closes_the_model(
    trt10, engine, clip, monkeypatch, method, graph, message
):
    path = engine(graph, **FREE.get(graph, {}))
    vfi = Interpolator.open(path)
    context = trt10.IExecutionContext
    monkeypatch.setattr(context, method, lambda self, *_: self._refuse(f"{method}: no"))
    with pytest.raises(BackendError, match=rf"{message}.*; the model was closed, open it again$"):
        vfi.interpolate(*clip[:2])
    with pytest.raises(BackendError, match="the model is closed"):
        vfi.interpolate(*clip[:2])
    assert trt10.cuda.left() == []


# Profiles


@pytest.mark.parametrize("graph", FREE)
@pytest.mark.parametrize("streams", [1, 3])
def test_every_stream_of_an_engine_with_a_profile_uses_the_profile(
    trt, engine, clip, expected, graph, streams
):
    with Interpolator.open(engine(graph, **FREE[graph]), streams=streams) as vfi:
        assert_same(list(vfi.stream(clip)), expected(graph))


@pytest.mark.parametrize("graph", FREE)
def test_layers_of_an_engine_with_a_profile_can_be_timed(trt, engine, clip, graph):
    with open_backend(engine(graph, **FREE[graph]), OpenOptions()) as backend:
        middle = np.full((1, 1, 1, 1), 0.5, np.float32)
        times = profile_layers(backend, clip[0][None], clip[1][None], middle, runs=2)
    assert len(times) > 100


def test_an_engine_whose_contexts_cannot_share_a_profile_is_refused_in_one_sentence(
    trt8, engine, monkeypatch
):
    monkeypatch.setattr("export.trt.weakly_typed._WeaklyTyped.share_profile", lambda *_: None)
    path = engine("dynamic", profile=Profile((32, 32), (48, 80), (96, 112)))
    Interpolator.open(path).close()
    with pytest.raises(BackendError, match=r"only profile in another context already.*one stream"):
        Interpolator.open(path, streams=2)
    assert trt8.cuda.left() == []


# CUDA graphs


@pytest.mark.parametrize(
    "failure",
    ["TensorRT", "cudaStreamEndCapture", "cudaStreamBeginCapture", "cudaGraphInstantiate"],
)
def test_a_failed_capture_is_one_warning_and_the_inference_runs_without_a_graph(
    trt, engine, clip, expected, failure
):
    path = engine()
    trt.fail_capture = {"TensorRT": "at once", "cudaStreamEndCapture": "late"}.get(failure)
    if trt.fail_capture is None:
        trt.cuda.fail_next(failure, "cudaErrorStreamCaptureUnsupported")
    with open_backend(path, OpenOptions()) as backend, Interpolator(backend) as vfi:
        assert backend.cuda_graph_problem is None
        launched = trt.cuda.calls["cudaGraphLaunch"]  # By the gate, during the build.
        with pytest.warns(RuntimeWarning, match="not be recorded as a CUDA graph") as told:
            assert_same(list(vfi.stream(clip)), expected("frames"))
        assert len(told) == 1
        word = "could not queue the inference (" if failure == "TensorRT" else failure
        assert word in backend.cuda_graph_problem
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_same(list(vfi.stream(clip)), expected("frames"))
    assert trt.cuda.calls["cudaGraphLaunch"] == launched


def test_a_successful_capture_gives_no_warning(trt, engine, clip):
    path = engine()
    launched = trt.cuda.calls["cudaGraphLaunch"]
    with open_backend(path, OpenOptions()) as backend, Interpolator(backend) as vfi:
        list(vfi.stream(clip))
        assert backend.cuda_graph_problem is None
    assert trt.cuda.calls["cudaGraphLaunch"] > launched


# Other versions and GPUs


@pytest.mark.parametrize(
    ("built", "here", "message"),
    [
        ("8.6.0", "10.3.0", None),
        ("10.3.0", "10.13.3.9", None),
        ("10.3.0", "11.4.0.106", None),
        ("8.6.0", "11.4.0.106", r"8\.6\.0 and is portable to later 8\.x and 10\.x, here is 11\.4"),
        ("10.3.0", "8.6.0", r"10\.3\.0 and is portable to later 10\.x and 11\.x, here is 8\.6\.0"),
        ("10.13.3.9", "10.3.0", r"portable to later 10\.x and 11\.x, here is 10\.3\.0"),
        ("11.4.0.106", "10.3.0", r"portable to later 11\.x, here is 10\.3\.0"),
    ],
)
def test_a_portable_engine_loads_in_later_releases_up_to_the_next_generation(
    engine, clip, expected, monkeypatch, built, here, message
):
    with gpu_fakes.machine(built, monkeypatch):
        path = engine(portable=True)
    with gpu_fakes.machine(here, monkeypatch):
        if message is None:
            with Interpolator.open(path) as vfi:
                assert_same(list(vfi.stream(clip)), expected("frames"))
        else:
            with pytest.raises(ModelError, match=message):
                Interpolator.open(path)


def test_a_portable_engine_of_a_jetson_is_refused_by_another_gpu(trt10, engine, monkeypatch):
    path = engine(portable=True)
    change_build(path, any_gpu=False)
    Interpolator.open(path).close()
    other = GpuDriver([Gpu("NVIDIA H200", "9.0")], "13.0")
    monkeypatch.setattr("runtime.backends.trt.engine.gpu_driver", lambda: other)
    with pytest.raises(ModelError, match=r"built for NVIDIA GeForce RTX 4090 \(8\.9\), here is"):
        Interpolator.open(path)
