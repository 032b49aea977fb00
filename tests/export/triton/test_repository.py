"""Model repositories, read with Triton's own schema. test_triton_server.py uses a real server."""

import dataclasses
import json

import pytest

from commands import run_main
from export.errors import ExportError
from export.store import write_artefact, write_onnx
from export.triton import repository
from export.triton.__main__ import main
from export.triton.repository import CONFIG, Serving, write_served_model
from runtime import ModelError
from runtime.backends.triton.backend import ConfigPort, config_ports
from runtime.manifest import EngineBuild, EngineManifest, GateReport, file_sha256, manifest_path
from runtime.model_info import ModelInfo

text_format = pytest.importorskip("google.protobuf.text_format")
schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")

INFO = ModelInfo(
    variant="small", weights_sha256="0" * 64, precision="fp16", io="frames", divisor=16,
    flow_scale=1.0, time_steps="arbitrary", steps_per_call=1, pairs_per_call=1, height=256,
    width=448, warp="gridsample", tuned_for="any", tool_version="0",
)  # fmt: skip


def config_of(folder):
    return text_format.Parse((folder / CONFIG).read_text(), schema.ModelConfig())


def ports_of(config):
    return {
        port.name: ConfigPort(schema.DataType.Name(port.data_type), tuple(port.dims))
        for port in (*config.input, *config.output)
    }


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def onnx_file(tmp_path, export):
    def saved(name="small", backend=None, **options):
        path = tmp_path / f"{name}.onnx"
        checked = export(height=50, width=70, **options)
        if backend is None:
            write_onnx(checked.model, path)
        else:
            write_artefact(checked._replace(backend=backend), path, started=0.0)
        return path

    return saved


@pytest.fixture
def engine_file(tmp_path):
    """Writes the parts of an engine that a repository reads: a file and its manifest."""

    def saved(name="small", info=INFO, profile=None):
        path = tmp_path / f"{name}.engine"
        path.write_bytes(b"plan")
        EngineManifest(
            model=info, backend="tensorrt", artefact_sha256=file_sha256(path), onnx_sha256="0",
            versions={}, machine={}, build_seconds=1.0, gate=GateReport(60.0, 0.1, 50.0, "it"),
            engine=EngineBuild(
                tensorrt="10.3.0", gpu="NVIDIA L4", compute_capability="8.9", driver=None,
                portable=False, flags={}, profile=profile, key="0", depends_on={}, command="it",
                fallback=None, device_memory_bytes=0, float32_tensors_seen=None,
                portable_slowdown=None,
            ),
        ).write(path)  # fmt: skip
        return path

    return saved


@pytest.mark.parametrize(
    ("changes", "images", "rows"),
    [
        ({}, (1, 256, 448, 3), 1),
        ({"io": "float"}, (1, 3, 256, 448), 1),
        ({"steps_per_call": 3}, (1, 256, 448, 3), 3),
        ({"pairs_per_call": 2}, (2, 256, 448, 3), 2),
        ({"height": None, "width": None}, (1, -1, -1, 3), 1),
    ],
)
def test_inputs_and_outputs_are_those_of_the_graph(changes, images, rows):
    ports = config_ports(dataclasses.replace(INFO, **changes))
    kind = "TYPE_FP32" if "io" in changes else "TYPE_UINT8"
    assert ports["img0"] == ports["img1"] == ConfigPort(kind, images)
    assert ports["timestep"] == ConfigPort("TYPE_FP32", (rows, 1, 1, 1))
    assert ports["imgt"] == ConfigPort(kind, (rows, *images[1:]))


def test_triton_batches_along_a_free_number_of_pairs(onnx_file, tmp_path):
    folder = write_served_model(
        onnx_file(max_batch=4), tmp_path / "r", serving=Serving(queue_delay_us=500)
    )
    config = config_of(folder)
    assert config.max_batch_size == 4
    assert ports_of(config)["img0"].dims == (50, 70, 3)
    assert ports_of(config)["timestep"].dims == (1, 1, 1)
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, 4]


def test_the_repository_of_an_onnx_file(onnx_file, tmp_path):
    path = onnx_file(backend="onnxruntime")
    folder = write_served_model(
        path, tmp_path / "r", serving=Serving(threads=2, instances=3, device="cpu")
    )
    assert names_in(folder) == ["1/model.onnx", "1/model.onnx.json", CONFIG]
    assert EngineManifest.read(folder / "1" / "model.onnx") == EngineManifest.read(path)
    config = config_of(folder)
    assert (config.name, config.backend, config.platform) == (
        "small", "onnxruntime", "onnxruntime_onnx",
    )  # fmt: skip
    assert config.default_model_filename == "model.onnx"
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    (group,) = config.instance_group
    assert (group.kind, group.count) == (group.KIND_CPU, 3)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters["intra_op_thread_count"] == "2"
    assert parameters[repository.SHA256] == file_sha256(path)
    info = EngineManifest.read(path).model
    assert ModelInfo.from_properties(parameters, source="it") == info
    (warm_up,) = config.model_warmup
    assert warm_up.batch_size == 1
    assert list(warm_up.inputs["img0"].dims) == [1, 50, 70, 3]
    assert warm_up.inputs["img0"].zero_data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "small.onnx", "small.onnx.json"]


def test_the_repository_of_an_engine_on_chosen_gpus(engine_file, tmp_path):
    folder = write_served_model(engine_file(), tmp_path / "r", serving=Serving(gpus=(0, 2)))
    assert names_in(folder) == ["1/model.plan", "1/model.plan.json", CONFIG]
    config = config_of(folder)
    assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
    (group,) = config.instance_group
    assert (group.kind, group.count, list(group.gpus)) == (group.KIND_GPU, 1, [0, 2])


def test_warm_up_of_a_free_size_uses_the_profile_or_the_given_size(engine_file, tmp_path):
    free = dataclasses.replace(INFO, height=None, width=None)
    profile = {"min": [64, 64], "opt": [720, 1280], "max": [1080, 1920]}
    path = engine_file(info=free, profile=profile)
    for name, asked, expected in (("a", None, [1, 720, 1280, 3]), ("b", (64, 96), [1, 64, 96, 3])):
        folder = write_served_model(path, tmp_path / "r", name=name, serving=Serving(warm_up=asked))
        (warm_up,) = config_of(folder).model_warmup
        assert list(warm_up.inputs["img1"].dims) == expected


def test_a_model_for_openvino_is_served_by_the_python_backend(onnx_file, tmp_path):
    folder = write_served_model(onnx_file(backend="openvino"), tmp_path / "r")
    assert names_in(folder) == ["1/model.onnx", "1/model.onnx.json", "1/model.py", CONFIG]
    config = config_of(folder)
    assert (config.backend, config.default_model_filename) == ("python", "model.py")
    assert config.instance_group[0].kind == config.instance_group[0].KIND_CPU
    compile((folder / "1" / "model.py").read_text(), "model.py", "exec")


def test_a_repository_keeps_versions_and_describes_the_newest(onnx_file, tmp_path):
    first, second = onnx_file("small"), onnx_file("other", precision="fp16")
    folder = write_served_model(first, tmp_path / "r", version=2)
    write_served_model(
        second, tmp_path / "r", name="small", version=3, serving=Serving(versions_served=2)
    )
    assert names_in(folder) == ["2/model.onnx", "3/model.onnx", CONFIG]
    config = config_of(folder)
    assert config.version_policy.latest.num_versions == 2
    assert config.parameters["ifrnet.precision"].string_value == "fp16"
    # Adding an older version later does not change the configuration.
    write_served_model(first, tmp_path / "r", version=1)
    assert config_of(folder) == config
    assert names_in(folder)[0] == "1/model.onnx"


def test_a_refused_model_changes_nothing(onnx_file, tmp_path):
    folder = write_served_model(onnx_file(), tmp_path / "r")
    before = {name: (folder / name).read_bytes() for name in names_in(folder)}
    with pytest.raises(ExportError, match=r"small/1 exists already: give another --model-version"):
        write_served_model(onnx_file(), tmp_path / "r")
    with pytest.raises(ExportError, match="describes a model with other inputs"):
        write_served_model(onnx_file("three", timesteps=3), tmp_path / "r", name="small", version=2)
    with pytest.raises(ExportError, match="describes a model with other inputs"):
        write_served_model(
            onnx_file(), tmp_path / "r", version=2, serving=Serving(backend="python")
        )
    assert {name: (folder / name).read_bytes() for name in names_in(folder)} == before
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["small"]
    assert not list(tmp_path.glob(".*"))


def test_a_failed_copy_leaves_no_files(onnx_file, tmp_path, monkeypatch):
    path = onnx_file()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        write_served_model(path, tmp_path / "r")
    assert list((tmp_path / "r").iterdir()) == []
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("serving", "message"),
    [
        ({"backend": "tensorrt"}, "use tensorrt for engines"),
        ({"backend": "python", "device": "gpu"}, "--backend python, which runs on the CPU"),
        ({"warm_up": (64, 64)}, "was given with a model of fixed size"),
    ],
)
def test_options_that_do_not_fit_an_onnx_file_are_refused(onnx_file, tmp_path, serving, message):
    with pytest.raises(ExportError, match=message):
        write_served_model(onnx_file(), tmp_path / "r", serving=Serving(**serving))
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("serving", "message"),
    [
        ({"backend": "python"}, "--backend python was given with small.engine"),
        ({"device": "cpu"}, "--device cpu was given with the engine small.engine"),
        ({"threads": 2}, "--threads was given with an engine"),
    ],
)
def test_options_that_do_not_fit_an_engine_are_refused(engine_file, tmp_path, serving, message):
    with pytest.raises(ExportError, match=message):
        write_served_model(engine_file(), tmp_path / "r", serving=Serving(**serving))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"instances": 0}, "--instances is 0"),
        ({"versions_served": 0}, "--versions-served is 0"),
        ({"queue_delay_us": -1}, "below 0"),
        ({"device": "cpu", "gpus": (0,)}, "--gpus was given with --device cpu"),
    ],
)
def test_invalid_servings_are_refused(values, message):
    with pytest.raises(ExportError, match=message):
        Serving(**values)


def test_an_engine_without_its_manifest_is_refused(engine_file, tmp_path):
    path = engine_file()
    manifest_path(path).unlink()
    with pytest.raises(ModelError, match=r"small\.engine\.json is missing"):
        write_served_model(path, tmp_path / "r")


def test_the_command_writes_a_repository(onnx_file, tmp_path):
    paths = [onnx_file("small"), onnx_file("several", max_batch=2)]
    done = run_main("export.triton", "--model", *paths, "--output", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    assert "up to 2 pairs at a time" in done.stdout
    assert "triton://HOST:8001/small" in done.stdout
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["several", "small"]
    done = run_main("export.triton", "--model", tmp_path / "x.onnx", "--output", tmp_path / "r")
    assert done.returncode == 1
    assert done.stderr.startswith("python -m export.triton: error: ")
    assert "x.onnx does not exist" in done.stderr
    assert json.dumps(done.stderr.strip()).count("\\n") == 0


@pytest.mark.parametrize("name", ["", "a/b", "two words", "../up"])
def test_names_that_triton_or_the_folder_cannot_have_are_refused(engine_file, tmp_path, name):
    with pytest.raises(ExportError, match=r"^--name is '.*': use letters, digits, _, \. and -$"):
        write_served_model(engine_file(), tmp_path / "r", name=name)
    assert not (tmp_path / "r").exists()


def test_versions_begin_with_1(engine_file, tmp_path):
    with pytest.raises(ExportError, match="--model-version is 0: use 1 or more"):
        write_served_model(engine_file(), tmp_path / "r", version=0)
    assert write_served_model(engine_file(), tmp_path / "r", version=1).is_dir()


def test_a_damaged_configuration_is_named(engine_file, tmp_path):
    config = write_served_model(engine_file(), tmp_path / "r") / CONFIG
    config.write_text("max_batch_size: many")
    with pytest.raises(ExportError, match=r"config\.pbtxt is not a configuration of Triton \("):
        write_served_model(engine_file(), tmp_path / "r", version=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "x", "--model", "a.onnx", "b.onnx"], "--name was given with 2 models: give it"),
        (
            ["--model", "a.onnx", "--device", "cuda:1", "--gpus", "0"],
            "--gpus was given with --device cuda:1: give only one of them",
        ),
    ],
)
def test_contradicting_arguments_of_the_command_are_refused(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--output", str(tmp_path / "r")])
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
