"""The client of a Triton server, without one; with one: test_triton_server.py."""

import sys
import types

import numpy as np
import pytest

from runtime import BackendError, Interpolator, ModelError
from runtime.backends.base import OpenOptions
from runtime.backends.triton import Address, open_model
from runtime.backends.triton_memory import CudaMemory

pytest.importorskip("tritonclient.grpc")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("triton://host/small", Address("host:8001", "small")),
        ("triton://host:9/small/3", Address("host:9", "small", "3")),
        ("triton://[::1]:9/small", Address("[::1]:9", "small")),
        (
            "triton://h/m?shared_memory=system&timeout=2.5",
            Address("h:8001", "m", memory="system", timeout=2.5),
        ),
    ],
)
def test_addresses(url, expected):
    assert Address.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "triton://", "triton://host", "triton://host/", "triton:///small", "triton://h/m/x",
        "triton://h/m/1/2", "triton://h/m?shared_memory=cloud", "triton://h/m?timeout=0",
        "triton://h/m?timeout=soon", "triton://h:port/m", "triton://h/m?colour=red",
    ],
)  # fmt: skip
def test_what_is_no_address(url):
    with pytest.raises(ModelError, match=r"write triton://HOST\[:PORT\]/MODEL"):
        Address.parse(url)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": 2}, "the server's to choose"),
        ({"precision": "bf16"}, "the server's to choose"),
        ({"device": "cuda"}, "is for .shared_memory=cuda"),
    ],
)
def test_options_that_are_the_servers(options, said):
    with pytest.raises(BackendError, match=said):
        open_model("triton://127.0.0.1:1/small", OpenOptions(**options))


def test_backend_and_address_go_together(tmp_path):
    with pytest.raises(BackendError, match="'triton', and nothing else, is for models"):
        Interpolator.open("triton://h/m", backend="onnxruntime")
    with pytest.raises(BackendError, match="'triton', and nothing else, is for models"):
        Interpolator.open(tmp_path / "small.onnx", backend="triton")


def test_nobody_answers():
    with pytest.raises(BackendError, match=r"no Triton server answers at 127\.0\.0\.1:1 \("):
        Interpolator.open("triton://127.0.0.1:1/small")


@pytest.fixture
def cuda_shared_memory(monkeypatch):
    """tritonclient's module of that name over arrays on the host; there is no GPU here."""
    made = types.ModuleType("tritonclient.utils.cuda_shared_memory")
    made.regions = {}

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


class Registry:
    """The part of the client that shared memory is registered with."""

    def __init__(self):
        self.known = {}

    def register_cuda_shared_memory(self, name, raw_handle, device_id, byte_size):
        self.known[name] = raw_handle, device_id, byte_size

    def unregister_cuda_shared_memory(self, name):
        del self.known[name]


def test_the_fake_of_cuda_memory_takes_what_the_real_module_takes(cuda_shared_memory):
    """Its source is read, for it cannot be imported without CUDA."""
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


def test_cuda_slots_are_registered_used_again_and_freed(cuda_shared_memory):
    registry = Registry()
    memory = CudaMemory(registry, device=1)
    first = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    slot = memory.take((2, 2, 2, 3), first.dtype)
    slot.write([first, first + 1])
    np.testing.assert_array_equal(slot.read((2, 2, 2, 3), first.dtype)[1:], first + 1)
    name = slot.name
    assert registry.known == {name: (b"raw " + name.encode(), 1, 24)}
    del slot
    again = memory.take((2, 2, 2, 3), first.dtype)
    other = memory.take((2, 2, 2, 3), first.dtype)
    assert again.name == name
    assert other.name != name
    memory.close()
    assert registry.known == cuda_shared_memory.regions == {}


def test_cuda_memory_without_cuda():
    with pytest.raises(RuntimeError, match="cuda-python"):
        CudaMemory(Registry(), device=0)
