"""ONNX Runtime's CUDA provider without a GPU: what is missing is named, and nothing falls back.

The texts of ONNX Runtime are those of onnxruntime-gpu 1.31.1 on a machine without the libraries,
and with them over a driver that finds no GPU.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from runtime import BackendError, Interpolator, ModelError
from runtime.backends.base import OpenOptions
from runtime.backends.ort import cuda_provider
from runtime.backends.ort.binding import BoundBackend
from runtime.backends.registry import open_backend
from runtime.machine import Gpu, GpuDriver
from runtime.telemetry import import_quietly

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
GPU = GpuDriver([Gpu("NVIDIA H200", "9.0")], "13.0")
CUDNN = "libcudnn.so.9"
NEEDED = ("libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10")

NO_DEVICE = """\
/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, \
onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, \
const char*, const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; \
std::conditional_t<THRW, void, common::Status> = void] CUDA failure 100: no CUDA-capable device is \
detected ; GPU=-1 ; hostname=vm ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/\
cuda_execution_provider.cc ; line=355 ; expr=cudaSetDevice(info_.device_id);

"""
NOT_LOADED = (
    "[ONNXRuntimeError] : 1 : FAIL : Failed to load library {library} with error: "
    "libcublasLt.so.13: cannot open shared object file: No such file or directory"
)


class FakeRuntime(SimpleNamespace):
    """The module onnxruntime-gpu 1.31.1, as far as its libraries are concerned.

    Args:
        beside: Libraries that it finds beside itself or where the system looks.
    """

    __version__ = "1.31.1"
    cuda_version = "13.0"

    def __init__(self, beside=()):
        super().__init__(loaded=set(beside), asked=[])

    def preload_dlls(self, *, directory):
        self.asked.append(directory)
        for name in (*NEEDED, CUDNN):
            if directory is not None and self.file_in(directory, name):
                self.loaded.add(name)
            if name not in self.loaded and name != CUDNN:
                reason = "cannot open shared object file: No such file or directory"
                print(f"Failed to load {name}: {name}: {reason}")
        if not self.loaded.issuperset(NEEDED):
            print("Please follow https://onnxruntime.ai/docs/install/ to install CUDA.")

    @staticmethod
    def file_in(directory, name):
        return any(path.name == name for path in Path(directory).iterdir())


@pytest.fixture
def runtime_with(monkeypatch):
    """Makes a `FakeRuntime` whose libraries are the only ones that load."""

    def make(*beside):
        fake = FakeRuntime(beside)
        monkeypatch.setattr(cuda_provider, "loads_library", lambda name: name in fake.loaded)
        monkeypatch.setattr(cuda_provider.sys, "platform", "linux")
        return fake

    return make


def packages_in(folder, **libraries):
    """A folder of packages with NVIDIA's in it."""
    for package, names in libraries.items():
        place = folder / "nvidia" / package / "lib"
        place.mkdir(parents=True)
        for name in names:
            (place / name).touch()
    return folder


def test_nothing_is_missing_where_all_is_beside_it(runtime_with):
    ort = runtime_with(*NEEDED, CUDNN)
    assert cuda_provider.cuda_provider_problem(ort, GPU) is None
    assert ort.asked == [None]


def test_missing_libraries_are_named_with_the_command(runtime_with, capsys):
    found = cuda_provider.cuda_provider_problem(runtime_with(), GPU)
    assert found.problem == f"{', '.join(NEEDED)}, {CUDNN} are not found"
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'" in found.remedy
    assert "PyTorch for CUDA 13" in found.remedy
    assert capsys.readouterr() == ("", "")


def test_cudnn_is_missed_though_onnxruntime_does_not_name_it(runtime_with):
    found = cuda_provider.cuda_provider_problem(runtime_with(*NEEDED), GPU)
    assert found.problem == "libcudnn.so.9 is not found"


def test_libraries_in_another_folder_of_packages_are_found(runtime_with, tmp_path, monkeypatch):
    first = packages_in(tmp_path / "a", cudnn=[CUDNN])
    second = packages_in(tmp_path / "b", cu13=NEEDED, nccl=["libnccl.so.2"])
    for folder in (first, second):
        monkeypatch.syspath_prepend(folder)
    ort = runtime_with()
    assert cuda_provider.cuda_provider_problem(ort, GPU) is None
    assert ort.asked[0] is None
    assert set(ort.asked[1:]) <= {
        str(place / "nvidia" / package / "lib")
        for place, package in ((first, "cudnn"), (second, "cu13"), (second, "nccl"))
    }


def test_nothing_is_known_before_preload_dlls():
    assert cuda_provider.load_libraries(SimpleNamespace(cuda_version="12.4")) == []


def test_nothing_is_known_of_a_build_that_does_not_tell_its_cuda(runtime_with, monkeypatch):
    ort = runtime_with()
    monkeypatch.setattr(ort, "cuda_version", "")
    assert cuda_provider.cuda_provider_problem(ort, GPU) is None


@pytest.mark.parametrize(
    ("driver", "device", "what", "remedy"),
    [
        (GpuDriver(problem="no NVIDIA driver was found"), 0, "no NVIDIA driver", "install an NV"),
        (GPU, 2, "the driver sees cuda:0 NVIDIA H200", "use one of these"),
        (
            GpuDriver(GPU.gpus, "12.8"), 0,
            "onnxruntime-gpu 1.31.1 needs CUDA 13, the driver has 12.8", "update the driver",
        ),
    ],
)  # fmt: skip
def test_what_the_driver_lacks(runtime_with, driver, device, what, remedy):
    found = cuda_provider.cuda_provider_problem(runtime_with(*NEEDED, CUDNN), driver, device)
    assert what in found.problem
    assert remedy in found.remedy


def test_tf32_is_off_except_where_it_would_cost_the_tensor_cores(models):
    with Interpolator.open(models / "frames.onnx", backend="onnxruntime") as vfi:
        info = vfi.info
    assert cuda_provider.provider_options(1, info) == {"device_id": "1", "use_tf32": "0"}
    half = type(info)(**{**vars(info), "precision": "fp16"})
    assert cuda_provider.provider_options(0, half) == {"device_id": "0"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NO_DEVICE, "CUDA failure 100: no CUDA-capable device is detected"),
        (
            "CUDNN failure 5003: CUDNN_STATUS_EXECUTION_FAILED ; GPU=0 ; hostname=vm",
            "CUDNN failure 5003: CUDNN_STATUS_EXECUTION_FAILED",
        ),
        ("CUBLAS failure 3: the resource allocation failed ; GPU=0", "CUBLAS failure 3: the res"),
        ("Got invalid dimensions for input: img0", None),
    ],
)
def test_the_failed_call_is_found_in_a_message(text, expected):
    found = cuda_provider.cuda_failure(RuntimeError(text))
    assert found is None if expected is None else found.startswith(expected)
    assert found is None or " ;" not in found


# Why the provider's library did not load


def runtime_that(folder, register):
    library = folder / "capi" / "libonnxruntime_providers_cuda.so"
    library.parent.mkdir()
    library.touch()
    unregistered = []
    return SimpleNamespace(
        __file__=str(folder / "__init__.py"),
        register_execution_provider_library=register,
        unregister_execution_provider_library=unregistered.append,
        unregistered=unregistered,
    )


def test_why_the_library_did_not_load(tmp_path):
    def register(_, library):
        raise RuntimeError(NOT_LOADED.format(library=library))

    said = cuda_provider.why_not_loaded(runtime_that(tmp_path, register))
    assert said == "libcublasLt.so.13: cannot open shared object file: No such file or directory"


def test_a_library_that_loads_after_all_is_not_left_registered(tmp_path):
    ort = runtime_that(tmp_path, lambda *_: None)
    assert cuda_provider.why_not_loaded(ort) is None
    assert ort.unregistered == [CUDA]


def test_why_is_not_known_without_the_library(tmp_path):
    ort = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    assert cuda_provider.why_not_loaded(ort) is None


# Opening a model


@pytest.fixture
def gpu_package(monkeypatch):
    """ONNX Runtime of the tests as if it had the CUDA provider and all that it needs.

    Gives a function that sets what `InferenceSession` does with (providers, real session).
    """
    ort = import_quietly("onnxruntime")
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr("runtime.backends.ort.backend.gpu_driver", lambda: GPU)
    monkeypatch.setattr(cuda_provider, "load_libraries", lambda _: [])
    monkeypatch.setattr(ort, "cuda_version", "13.0", raising=False)

    def sessions(make):
        def session(content, sess_options, providers, enable_fallback):
            assert enable_fallback == 0
            on_cpu = real(content, sess_options=sess_options, providers=[CPU])
            return make(providers, on_cpu)

        monkeypatch.setattr(ort, "InferenceSession", session)

    return sessions


def as_cuda(providers, session):
    session.get_providers = lambda: [providers[0][0], CPU]
    return session


@pytest.mark.parametrize(("asked", "bound"), [(None, True), (True, True), (False, False)])
def test_a_gpu_has_io_binding_unless_it_is_refused(models, gpu_package, asked, bound):
    seen = []
    gpu_package(lambda *made: seen.append(made[0]) or as_cuda(*made))
    options = OpenOptions(device="cuda:0", io_binding=asked)
    backend = open_backend(models / "frames.onnx", options)
    assert isinstance(backend, BoundBackend) is bound
    assert backend.name == "onnxruntime cuda:0"
    assert seen == [[(CUDA, {"device_id": "0", "use_tf32": "0"})]]


def test_images_go_to_the_gpu_that_was_asked_for(models, gpu_package, monkeypatch):
    ort = import_quietly("onnxruntime")
    seen = []
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", lambda _, *device: seen.append(device))
    gpu_package(as_cuda)
    monkeypatch.setattr(
        "runtime.backends.ort.backend.gpu_driver", lambda: GpuDriver(GPU.gpus * 2, "13.0")
    )
    backend = open_backend(models / "frames.onnx", OpenOptions(device="cuda:1"))
    backend.put(np.zeros((1, 50, 70, 3), np.uint8))
    assert seen == [("cuda", 1)]


def test_what_is_missing_is_an_error_before_a_session_is_made(models, gpu_package, monkeypatch):
    gpu_package(lambda *_: pytest.fail("a session was made"))
    monkeypatch.setattr(cuda_provider, "load_libraries", lambda _: [CUDNN])
    with pytest.raises(BackendError) as caught:
        Interpolator.open(models / "frames.onnx", device="cuda")
    assert str(caught.value).startswith(
        "ONNX Runtime cannot run on cuda (libcudnn.so.9 is not found): pip install"
    )


def test_a_gpu_that_is_not_there_is_an_error_before_a_session_is_made(models, gpu_package):
    gpu_package(lambda *_: pytest.fail("a session was made"))
    with pytest.raises(BackendError, match=r"cannot run on cuda:3 \(the driver sees cuda:0 NVIDIA"):
        Interpolator.open(models / "frames.onnx", device="cuda:3")


def test_a_provider_that_is_left_out_is_an_error_with_the_reason(models, gpu_package, monkeypatch):
    gpu_package(lambda _, session: session)
    monkeypatch.setattr(
        "runtime.backends.ort.backend.why_not_loaded", lambda _: "libcurand.so.10: cannot open"
    )
    with pytest.raises(BackendError, match=r"did not start \(libcurand\.so\.10: cannot open\): "):
        Interpolator.open(models / "frames.onnx", device="cuda")


def test_a_provider_that_fails_is_not_the_fault_of_the_file(models, gpu_package):
    def fails(providers, session):
        raise RuntimeError(NO_DEVICE)

    gpu_package(fails)
    with pytest.raises(BackendError) as caught:
        Interpolator.open(models / "frames.onnx", device="cuda")
    assert str(caught.value).startswith(
        "CUDAExecutionProvider did not start (CUDA failure 100: no CUDA-capable device is detected)"
    )


def test_a_file_that_fails_on_a_gpu_is_the_fault_of_the_file(models, gpu_package):
    def fails(providers, session):
        raise RuntimeError("[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model.")

    gpu_package(fails)
    with pytest.raises(ModelError, match="INVALID_GRAPH"):
        Interpolator.open(models / "frames.onnx", device="cuda")


def test_an_inference_that_fails_is_not_made_again_on_the_cpu(models, monkeypatch, capsys):
    EPFail = import_quietly("onnxruntime").capi._pybind_state.EPFail  # noqa: N806

    def fails(*_):
        raise EPFail(NO_DEVICE)

    backend = open_backend(models / "frames.onnx", OpenOptions(), backend="onnxruntime")
    failing = SimpleNamespace(run=fails, is_webgpu_graph_capture_enabled=lambda: False)
    monkeypatch.setattr(backend._sessions.at((50, 70)), "_sess", failing)
    image = np.zeros((1, 50, 70, 3), np.uint8)
    with pytest.raises(BackendError, match="onnxruntime cpu failed: CUDA failure 100: no CUDA-cap"):
        backend.submit([(image, image)], np.full((1, 1, 1, 1), 0.5, np.float32))
    assert "Falling back" not in capsys.readouterr().out
