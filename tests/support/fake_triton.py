"""Fakes of the parts of Triton's client and of its Python backend that the tests need."""

import importlib.util
import json
import logging
import sys
from types import SimpleNamespace

import numpy as np


class Registry:
    """The part of the client that registers shared memory."""

    def __init__(self):
        self.known = {}

    def register_cuda_shared_memory(self, name, raw_handle, device_id, byte_size, client_timeout):
        del client_timeout
        self.known[name] = raw_handle, device_id, byte_size

    def unregister_cuda_shared_memory(self, name, client_timeout):
        del client_timeout, self.known[name]


class Client(Registry):
    """A client whose server answers when the test calls the callback of a request."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def register_system_shared_memory(self, name, key, byte_size, client_timeout):
        del client_timeout
        self.known[name] = key, byte_size

    def unregister_system_shared_memory(self, name, client_timeout):
        del client_timeout, self.known[name]

    def async_infer(self, model, inputs, callback, **options):
        del model
        self.sent.append((inputs, options["outputs"], callback))

    def close(self):
        pass


def python_backend_utils():
    """A fake of `triton_python_backend_utils`; a request is a dict of arrays by name."""
    return SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: request[name],
        TritonError=str,
        Logger=SimpleNamespace(log_warn=logging.getLogger("triton").warning),
        InferenceResponse=lambda outputs=(), error=None: SimpleNamespace(
            outputs=outputs, error=error
        ),
        Tensor=SimpleNamespace(from_dlpack=lambda name, frames: (name, np.from_dlpack(frames))),
    )


def serve(folder, frame0, frame1, monkeypatch, **parameters):
    """Loads 1/model.py of a model as Triton does and returns its answer to one request."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", python_backend_utils())
    monkeypatch.delitem(sys.modules, "runtime.backends.triton.server", raising=False)
    spec = importlib.util.spec_from_file_location("served_model", folder / "1" / "model.py")
    served = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(served)
    model = served.TritonPythonModel()
    config = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(folder),
            "model_version": "1",
        }
    )
    request = {
        "img0": frame0[np.newaxis],
        "img1": frame1[np.newaxis],
        "timestep": np.full((1, 1, 1, 1), 0.5, np.float32),
    }
    (response,) = model.execute([request])
    model.finalize()
    assert response.error is None
    ((name, made),) = response.outputs
    assert name == "imgt"
    return made[0]
