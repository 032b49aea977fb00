"""Hostile and broken model files, missing providers, and options of ONNX Runtime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runtime import BackendError, Interpolator, ModelError
from runtime.backends.onnx_format import has_external_data
from runtime.machine import available_cpus
from runtime.manifest import manifest_path
from runtime.telemetry import import_quietly


@pytest.fixture
def model(models):
    return onnx.load(models / "frames.onnx")


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("kept", [0, 10, 1000, 0.5, 0.999])
def test_truncated_models_are_refused(models, tmp_path, kept):
    content = (models / "frames.onnx").read_bytes()
    length = int(len(content) * kept) if isinstance(kept, float) else kept
    (tmp_path / "cut.onnx").write_bytes(content[:length])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        Interpolator.open(tmp_path / "cut.onnx")


def test_garbage_is_refused(tmp_path):
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ModelError, match=r"cannot be read as ONNX|cannot be loaded"):
        Interpolator.open(tmp_path / "noise.onnx", backend="onnxruntime")


def test_another_network_is_refused(tmp_path):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "other",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    other = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ModelError, match="has no ifrnet-deploy metadata"):
        Interpolator.open(save(other, tmp_path / "other.onnx"))


def set_property(model, key, value):
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = value


@pytest.mark.parametrize(
    ("key", "value"),
    [("io", "float"), ("height", "64"), ("steps_per_call", "2"), ("width", "71")],
)
def test_wrong_metadata_is_recognised(model, tmp_path, key, value):
    set_property(model, f"ifrnet.{key}", value)
    with pytest.raises(ModelError, match="its metadata declares"):
        Interpolator.open(save(model, tmp_path / "lie.onnx"))


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "ABSOLUTE", "model.onnx"])
def test_external_data_is_never_read(model, tmp_path, monkeypatch, location):
    folder = tmp_path / "models"
    folder.mkdir()
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    for place in (tmp_path, folder):
        (place / "secret.bin").write_bytes(tensor.raw_data)
    length = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    target = str(tmp_path / "secret.bin") if location == "ABSOLUTE" else location
    for key, value in {"location": target, "offset": "0", "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)
    monkeypatch.chdir(folder)
    with pytest.raises(ModelError, match="has weights in other files"):
        Interpolator.open(save(model, folder / "model.onnx"))


@pytest.mark.parametrize("place", ["attribute", "branch", "sparse"])
def test_external_data_is_found_wherever_a_tensor_can_be(model, place):
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    if place == "attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    elif place == "branch":
        branch = helper.make_graph([], "branch", [], [], [tensor])
        model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch))
    else:
        model.graph.sparse_initializer.add(values=tensor)
    assert has_external_data(model.SerializeToString())


def test_exported_models_have_no_external_data(models):
    external = {path.name: has_external_data(path.read_bytes()) for path in models.glob("*.onnx")}
    assert external == dict.fromkeys(
        ("frames.onnx", "float.onnx", "three.onnx", "dynamic.onnx"), False
    )


def test_a_manifest_of_another_file_is_refused(models, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes((models / "frames.onnx").read_bytes())
    manifest_path(path).write_text("{}")
    with pytest.raises(ModelError, match=r"model\.onnx\.json"):
        Interpolator.open(path)


def test_cuda_without_its_provider_is_an_error(models):
    onnxruntime = import_quietly("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the gpu package of ONNX Runtime")
    with pytest.raises(BackendError, match=r"CUDAExecutionProvider was asked for.*\[gpu\]"):
        Interpolator.open(models / "frames.onnx", device="cuda")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "caffe"}, BackendError, "use one of onnxruntime"),
        ({"device": "tpu"}, BackendError, "use cpu, cuda or cuda:N"),
        ({"threads": 0}, BackendError, "use 1 or more"),
    ],
)
def test_options_are_checked_by_name(models, options, error, message):
    with pytest.raises(error, match=message):
        Interpolator.open(models / "frames.onnx", **options)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        Interpolator.open(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        Interpolator.open(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="unknown suffix"):
        Interpolator.open(tmp_path / "model.bin")


def test_the_number_of_threads_is_passed_on(models, monkeypatch):
    onnxruntime = import_quietly("onnxruntime")
    seen = []
    real = onnxruntime.InferenceSession

    def spy(content, sess_options, **kept):
        seen.append(sess_options.intra_op_num_threads)
        return real(content, sess_options=sess_options, **kept)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    Interpolator.open(models / "frames.onnx", threads=1, backend="onnxruntime").close()
    Interpolator.open(models / "frames.onnx", backend="onnxruntime").close()
    assert seen == [1, available_cpus()]


@pytest.mark.parametrize("name", ["dynamic", "free float"])
def test_a_model_of_free_size_gets_a_session_for_each_size(
    models, export, tmp_path, monkeypatch, name
):
    """In such a session ONNX Runtime knows every shape and computes none at run time."""
    path = models / "dynamic.onnx"
    if name == "free float":
        path = tmp_path / "float.onnx"
        onnx.save(export(height=64, width=80, io="float", dynamic=True).model, path)
    onnxruntime = import_quietly("onnxruntime")
    real, shapes = onnxruntime.InferenceSession, []

    def spy(*args, **kwargs):
        session = real(*args, **kwargs)
        shapes.append(session.get_inputs()[0].shape)
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    dtype = np.uint8 if name == "dynamic" else np.float32
    with Interpolator.open(path, backend="onnxruntime") as vfi:
        for size in ((64, 80), (64, 80), (48, 96), (64, 80)):
            pair = np.ones((2, *size, 3), dtype)
            assert vfi.interpolate(*pair).shape == (*size, 3)
    free, *fixed = shapes
    assert [isinstance(n, str) for n in free].count(True) == 2
    assert [[n for n in shape if n > 3] for shape in fixed] == [[64, 80], [48, 96]]
