"""The class behind a repository's model.py. tests/test_triton_server.py uses a real server."""

import numpy as np
import pytest

from export.store import write_artefact
from export.triton.repository import Serving, write_served_model
from fake_triton import serve
from openvino_types import claim_types
from runtime import BackendError, Interpolator
from runtime.backends.triton import THREADS


@pytest.fixture
def repository(tmp_path, export):
    """A repository for Triton's Python backend, and the artefact in it."""
    path = tmp_path / "small.onnx"
    checked = export(height=50, width=70, max_batch=4)
    write_artefact(checked._replace(backend="onnxruntime"), path, started=0.0)
    return path, write_served_model(path, tmp_path / "r", serving=Serving(backend="python"))


def test_a_served_model_computes_the_frame_of_the_artefact(repository, frames, monkeypatch):
    path, folder = repository
    with Interpolator.open(path, threads=1) as vfi:
        expected = vfi.interpolate(*frames)
    made = serve(folder, *frames, monkeypatch, **{THREADS: "1"})
    np.testing.assert_array_equal(made, expected)


def test_notes_are_in_the_servers_log(tmp_path, export, frames, monkeypatch, caplog):
    claim_types(monkeypatch, "FP32", "BF16")
    path = tmp_path / "small.onnx"
    checked = export(height=50, width=70, max_batch=4)
    write_artefact(checked._replace(backend="openvino"), path, started=0.0)
    folder = write_served_model(path, tmp_path / "r", serving=Serving(backend="python"))
    serve(folder, *frames, monkeypatch)
    assert "model.onnx is computed in fp32, because bf16 is not proved" in caplog.text


def test_threads_come_from_the_configuration(repository, frames, monkeypatch):
    _, folder = repository
    with pytest.raises(BackendError, match="threads"):
        serve(folder, *frames, monkeypatch, **{THREADS: "0"})
