"""ONNX Runtime's CUDA provider without a GPU: errors name what is missing, nothing falls back.

Messages of ONNX Runtime are those of onnxruntime-gpu 1.31.1 on a machine without the libraries, and
on one with the libraries whose driver finds no GPU.
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
    """A fake of the module onnxruntime-gpu 1.31.1 and its search for libraries.

    Args:
        beside: Libraries that it finds in its own folder or on the system's search path.
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
    """Creates a `FakeRuntime`; no other libraries load."""

    def make(*beside):
        fake = FakeRuntime(beside)
        monkeypatch.setattr(cuda_provider, "loads_library", lambda name: name in fake.loaded)
        monkeypatch.setattr(cuda_provider.sys, "platform", "linux")
        return fake

    return make


def packages_in(folder, **libraries):
    """A folder of Python packages that has those of NVIDIA."""
    for package, names in libraries.items():
        place = folder / "nvidia" / package / "lib"
        place.mkdir(parents=True)
        for name in names:
            (place / name).touch()
    return folder


def test_nothing_is_missing_if_all_libraries_are_beside_it(runtime_with):
    ort = runtime_with(*NEEDED, CUDNN)
    assert cuda_provider.cuda_provider_problem(ort, GPU) is None
    assert ort.asked == [None]


def test_missing_libraries_are_named_with_the_command(runtime_with, capsys):
    found = cuda_provider.cuda_provider_problem(runtime_with(), GPU)
    assert found.problem == f"{', '.join(NEEDED)}, {CUDNN} are not found"
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'" in found.remedy
    assert "PyTorch for CUDA 13" in found.remedy
    assert capsys.readouterr() == ("", "")


def test_a_missing_cudnn_is_named_although_onnxruntime_does_not_name_it(runtime_with):
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


def test_an_onnxruntime_without_preload_dlls_is_not_checked():
    assert cuda_provider.load_libraries(SimpleNamespace(cuda_version="12.4")) == []


def test_a_build_without_a_cuda_version_is_not_checked(runtime_with, monkeypatch):
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
def test_problems_of_the_driver_are_named_with_a_remedy(runtime_with, driver, device, what, remedy):
    found = cuda_provider.cuda_provider_problem(runtime_with(*NEEDED, CUDNN), driver, device)
    assert what in found.problem
    assert remedy in found.remedy


def test_tf32_is_off_except_for_float16(models):
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


def test_the_reason_why_the_library_did_not_load(tmp_path):
    def register(_, library):
        raise RuntimeError(NOT_LOADED.format(library=library))

    said = cuda_provider.why_not_loaded(runtime_that(tmp_path, register))
    assert said == "libcublasLt.so.13: cannot open shared object file: No such file or directory"


def test_a_library_that_loads_in_the_check_is_unregistered(tmp_path):
    ort = runtime_that(tmp_path, lambda *_: None)
    assert cuda_provider.why_not_loaded(ort) is None
    assert ort.unregistered == [CUDA]


def test_without_the_library_there_is_no_reason(tmp_path):
    ort = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    assert cuda_provider.why_not_loaded(ort) is None


# Opening a model


@pytest.fixture
def gpu_package(monkeypatch):
    """Makes the installed ONNX Runtime look as if it had a working CUDA provider.

    Returns a function that sets what `InferenceSession` does with (providers, real session).
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
def test_a_gpu_uses_io_binding_unless_it_is_switched_off(models, gpu_package, asked, bound):
    seen = []
    gpu_package(lambda *made: seen.append(made[0]) or as_cuda(*made))
    options = OpenOptions(device="cuda:0", io_binding=asked)
    backend = open_backend(models / "frames.onnx", options)
    assert isinstance(backend, BoundBackend) is bound
    assert backend.name == "onnxruntime cuda:0"
    assert seen == [[(CUDA, {"device_id": "0", "use_tf32": "0"})]]


def test_images_are_uploaded_to_the_chosen_gpu(models, gpu_package, monkeypatch):
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


def test_missing_libraries_are_an_error_before_a_session_is_created(
    models, gpu_package, monkeypatch
):
    gpu_package(lambda *_: pytest.fail("a session was made"))
    monkeypatch.setattr(cuda_provider, "load_libraries", lambda _: [CUDNN])
    with pytest.raises(BackendError) as caught:
        Interpolator.open(models / "frames.onnx", device="cuda")
    assert str(caught.value).startswith(
        "ONNX Runtime cannot run on cuda (libcudnn.so.9 is not found): pip install"
    )


def test_a_missing_gpu_is_an_error_before_a_session_is_created(models, gpu_package):
    gpu_package(lambda *_: pytest.fail("a session was made"))
    with pytest.raises(BackendError, match=r"cannot run on cuda:3 \(the driver sees cuda:0 NVIDIA"):
        Interpolator.open(models / "frames.onnx", device="cuda:3")


def test_a_session_without_the_cuda_provider_is_an_error_with_the_reason(
    models, gpu_package, monkeypatch
):
    gpu_package(lambda _, session: session)
    monkeypatch.setattr(
        "runtime.backends.ort.backend.why_not_loaded", lambda _: "libcurand.so.10: cannot open"
    )
    with pytest.raises(BackendError, match=r"did not start \(libcurand\.so\.10: cannot open\): "):
        Interpolator.open(models / "frames.onnx", device="cuda")


def test_the_error_of_a_failing_provider_does_not_blame_the_file(models, gpu_package):
    def fails(providers, session):
        raise RuntimeError(NO_DEVICE)

    gpu_package(fails)
    with pytest.raises(BackendError) as caught:
        Interpolator.open(models / "frames.onnx", device="cuda")
    assert str(caught.value).startswith(
        "CUDAExecutionProvider did not start (CUDA failure 100: no CUDA-capable device is detected)"
    )


def test_the_error_of_a_file_that_fails_on_a_gpu_names_the_file(models, gpu_package):
    def fails(providers, session):
        raise RuntimeError("[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model.")

    gpu_package(fails)
    with pytest.raises(ModelError, match="INVALID_GRAPH"):
        Interpolator.open(models / "frames.onnx", device="cuda")


def test_a_failed_inference_is_not_repeated_on_the_cpu(models, monkeypatch, capsys):
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
