"""The client of Triton, without a server. tests/test_triton_server.py uses a real one."""

import errno
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from fake_triton import Client, Registry
from paths import ROOT
from runtime import BackendError, Interpolator
from runtime.backends.base import OpenOptions
from runtime.backends.triton.address import Address
from runtime.backends.triton.backend import TritonBackend, _memory, open_model
from runtime.backends.triton.requests import Response
from runtime.backends.triton.shared_memory import CudaMemory, SystemMemory
from runtime.model_info import ModelInfo

pytest.importorskip("tritonclient.grpc")
SEGMENTS = Path("/dev/shm")
needs_segments = pytest.mark.skipif(
    sys.platform != "linux", reason="shared memory has files in /dev/shm on Linux alone"
)
InferenceServerException = pytest.importorskip("tritonclient.utils").InferenceServerException


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": 2}, "is chosen by the server"),
        ({"precision": "bf16"}, "is chosen by the server"),
        ({"io_binding": True}, "is chosen by the server"),
        ({"device": "cuda"}, "is for .shared_memory=cuda"),
    ],
)
def test_options_of_the_server_are_refused(options, said):
    with pytest.raises(BackendError, match=said):
        open_model("triton://127.0.0.1:1/small", OpenOptions(**options))


def test_cuda_shared_memory_needs_a_gpu():
    address = Address("127.0.0.1:1", "small", memory="cuda")
    with pytest.raises(
        BackendError, match=r"device='cpu' was given with \?shared_memory=cuda: use"
    ):
        _memory(None, address, OpenOptions(device="cpu"))


def test_a_response_that_never_comes_is_not_waited_for_without_end():
    response = Response([], None, (1, 16, 16, 3), print)
    with pytest.raises(TimeoutError, match=r"no response in -10 s"):
        response.wait(-10)


def test_the_backend_triton_needs_an_address(tmp_path):
    with pytest.raises(BackendError, match="use 'triton' for models at"):
        Interpolator.open("triton://h/m", backend="onnxruntime")
    with pytest.raises(BackendError, match="use 'triton' for models at"):
        Interpolator.open(tmp_path / "small.onnx", backend="triton")


def test_without_a_server_the_error_names_the_address():
    with pytest.raises(BackendError, match=r"no Triton server answers at 127\.0\.0\.1:1 \("):
        Interpolator.open("triton://127.0.0.1:1/small")


@pytest.fixture
def cuda_shared_memory(monkeypatch):
    """Replaces tritonclient's module `cuda_shared_memory` by one over host arrays."""
    made = types.ModuleType("tritonclient.utils.cuda_shared_memory")
    made.regions = {}
    made.CudaSharedMemoryException = type("CudaSharedMemoryException", (Exception,), {})

    def create_shared_memory_region(triton_shm_name, byte_size, device_id):
        made.regions[triton_shm_name] = np.zeros(byte_size, np.uint8), device_id
        return triton_shm_name

    def set_shared_memory_region(cuda_shm_handle, input_values):
        content = b"".join(values.tobytes() for values in input_values)
        made.regions[cuda_shm_handle][0][: len(content)] = np.frombuffer(content, np.uint8)

    def get_contents_as_numpy(cuda_shm_handle, datatype, shape):
        count = int(np.prod(shape)) * np.dtype(datatype).itemsize
        return made.regions[cuda_shm_handle][0][:count].view(datatype).reshape(shape).copy()

    def get_raw_handle(cuda_shm_handle):
        return b"raw " + cuda_shm_handle.encode()

    def destroy_shared_memory_region(cuda_shm_handle):
        del made.regions[cuda_shm_handle]

    for function in (
        create_shared_memory_region, set_shared_memory_region, get_contents_as_numpy,
        get_raw_handle, destroy_shared_memory_region,
    ):  # fmt: skip
        setattr(made, function.__name__, function)
    monkeypatch.setitem(sys.modules, made.__name__, made)
    import tritonclient.utils

    monkeypatch.setattr(tritonclient.utils, "cuda_shared_memory", made, raising=False)
    return made


def test_the_fake_of_cuda_memory_has_the_parameters_of_the_real_module(cuda_shared_memory):
    """Reads the source of the real module, which cannot be imported without CUDA."""
    import ast
    import inspect
    from importlib.util import find_spec

    spec = find_spec("tritonclient.utils")
    path = f"{spec.submodule_search_locations[0]}/cuda_shared_memory/__init__.py"
    with open(path) as file:  # noqa: PTH123
        real = {
            node.name: [argument.arg for argument in node.args.args]
            for node in ast.parse(file.read()).body
            if isinstance(node, ast.FunctionDef)
        }
    ours = {
        name: list(inspect.signature(function).parameters)
        for name, function in vars(cuda_shared_memory).items()
        if inspect.isfunction(function)
    }
    assert ours == {name: real[name] for name in ours}


def test_cuda_regions_are_registered_reused_and_freed(cuda_shared_memory):
    registry = Registry()
    memory = CudaMemory(registry, 5, device=1)
    first = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    region = memory.take((2, 2, 2, 3), first.dtype)
    region.write([first, first + 1])
    np.testing.assert_array_equal(region.read((2, 2, 2, 3), first.dtype, 1), first + 1)
    name = region.name
    assert registry.known == {name: (b"raw " + name.encode(), 1, 24)}
    del region
    again = memory.take((2, 2, 2, 3), first.dtype)
    other = memory.take((2, 2, 2, 3), first.dtype)
    assert again.name == name
    assert other.name != name
    memory.close()
    assert registry.known == cuda_shared_memory.regions == {}


@pytest.fixture
def served():
    client = Client()
    info = ModelInfo(
        variant="small", weights_sha256="0" * 64, precision="fp32", io="frames", divisor=16,
        flow_scale=1.0, time_steps="arbitrary", steps_per_call=1, pairs_per_call=1, height=16,
        width=16, warp="gridsample", tuned_for="any", tool_version="0",
    )  # fmt: skip
    address = Address("h:1", "m", memory="system", timeout=0.5)
    backend = TritonBackend(client, address, info, "it", SystemMemory(client, 0.5), in_flight=2)
    yield client, backend
    backend.close()
    assert client.known == {}


def places(entries):
    """The names of the regions in a request."""
    return {
        entry._get_tensor().parameters["shared_memory_region"].string_param for entry in entries
    }


HALF = np.full((1, 1, 1, 1), 0.5, np.float32)


def segments(prefix="ifrnet-"):
    """Shared memory segments of this process that exist now."""
    return {path.name for path in SEGMENTS.glob(f"{prefix}{os.getpid()}-*")}


@needs_segments
def test_a_full_dev_shm_is_an_error_and_leaves_no_segment(served, monkeypatch):
    client, backend = served
    frame, known = np.zeros((1, 16, 16, 3), np.uint8), segments()

    def full(descriptor, offset, length):
        assert (offset, length) == (0, frame.nbytes)
        assert os.fstat(descriptor).st_size >= length
        (created,) = segments() - known
        assert os.path.samestat(os.fstat(descriptor), (SEGMENTS / created).stat())
        assert os.fstat(descriptor).st_blocks == 0  # Nothing has been written.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        said = r"/dev/shm cannot hold another 0\.0 MiB of frames \(No space left.*--shm-size"
        with pytest.raises(BackendError, match=said):
            backend.put(frame)
    assert (client.known, segments()) == ({}, known)
    backend.put(frame)
    assert len(client.known) == 1


@needs_segments
def test_the_memory_of_a_region_is_reserved():
    memory = SystemMemory(Client(), 5)
    before = segments()
    region = memory.take((3, 100, 100, 3), np.dtype(np.uint8))
    (name,) = segments() - before
    assert (SEGMENTS / name).stat().st_blocks * 512 >= region.nbytes
    memory.close()
    assert segments() == before


FULL = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from fake_triton import Client
from runtime import BackendError
from runtime.backends.triton.shared_memory import SystemMemory
memory = SystemMemory(Client(), 5)
frame = np.full((1, 512, 512, 3), 7, np.uint8)
regions = []
try:
    for _ in range(3):
        regions.append(memory.take(frame.shape, frame.dtype))
        regions[-1].write([frame])
except BackendError as error:
    print(len(regions), error)
memory.close()
"""


@needs_segments
def test_a_full_dev_shm_is_an_error_on_a_real_file_system():
    """Runs in its own mount namespace, where /dev/shm has space for two frames."""
    mount = "mount -t tmpfs -o size=2m tmpfs /dev/shm"
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here")
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this user cannot mount a file system in a namespace of its own")
    script = f'{mount} && "$@" && ls /dev/shm'
    python = [sys.executable, "-c", FULL, str(ROOT / "tests" / "support")]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *python],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.startswith("2 /dev/shm cannot hold another 0.8 MiB of frames (No space left")
    assert done.stdout.count("\n") == 1


def test_a_gpu_without_memory_is_an_error(cuda_shared_memory, served, monkeypatch):
    _, backend = served

    def full(name, nbytes, device):
        raise cuda_shared_memory.CudaSharedMemoryException("out of memory")

    monkeypatch.setattr(cuda_shared_memory, "create_shared_memory_region", full)
    monkeypatch.setattr(backend, "_memory", CudaMemory(Registry(), 5, device=0))
    with pytest.raises(BackendError, match="m at h:1 failed: out of memory"):
        backend.put(np.zeros((1, 16, 16, 3), np.uint8))


def test_regions_of_a_failed_request_are_not_reused(served):
    """The server may still write to them, and would damage another frame."""
    client, backend = served
    frame = np.zeros((1, 16, 16, 3), np.uint8)
    images = backend.submit([(backend.put(frame), backend.put(frame))], HALF)
    inputs, outputs, response = client.sent.pop()
    lost = places(inputs[:2]) | places(outputs)
    assert len(lost) == 3
    response(result=None, error=InferenceServerException("late", "StatusCode.DEADLINE_EXCEEDED"))
    with pytest.raises(BackendError, match=r"did not answer in 0\.5 s: raise the limit"):
        backend.download(images[0])()
    del images, inputs, outputs, response
    backend.submit([(backend.put(frame), backend.put(frame))], HALF)
    inputs, outputs, response = client.sent.pop()
    assert not lost & (places(inputs[:2]) | places(outputs))
    response(result=None, error=None)


def test_regions_of_an_answered_request_are_reused(served):
    client, backend = served
    frame = np.zeros((1, 16, 16, 3), np.uint8)
    for _ in range(5):
        backend.submit([(backend.put(frame), backend.put(frame))], HALF)
        *_, response = client.sent.pop()
        response(result=None, error=None)
        del response
    assert len(client.known) == 3


def test_a_request_that_cannot_be_sent_is_not_waited_for(served, monkeypatch):
    client, backend = served
    frame = np.zeros((1, 16, 16, 3), np.uint8)

    def refused(*_, **__):
        raise InferenceServerException("no")

    monkeypatch.setattr(client, "async_infer", refused)
    with pytest.raises(BackendError, match=r"refused a request to m \(no\)"):
        backend.submit([(backend.put(frame), backend.put(frame))], HALF)
    assert not backend._in_flight


def test_cuda_memory_without_cuda_bindings_is_an_error(monkeypatch):
    """Simulates a machine without cuda-bindings."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cuda"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cuda", None)
    monkeypatch.delitem(sys.modules, "tritonclient.utils.cuda_shared_memory", raising=False)
    with pytest.raises(RuntimeError, match="cuda-python"):
        CudaMemory(Registry(), 5, device=0)
