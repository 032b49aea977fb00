import hashlib
import json
from types import SimpleNamespace

import onnx
import pytest

from commands import build_without_torch, run_main, run_module
from export import build_engine
from export.candidate import checked_from_onnx
from export.errors import ExportError, GateError
from export.gate.gate import REQUIRED_DB
from export.graph.for_tensorrt import REWRITES
from export.store import write_artefact
from runtime import Interpolator, ModelError
from runtime.manifest import EngineManifest, file_sha256, manifest_path

INT8 = (
    "--weights", "demo", "--backend", "onnxruntime", "--precision", "int8", "--calibrate",
)  # fmt: skip


def build(*arguments, cwd):
    return run_main("export.build_engine", *arguments, cwd=cwd)


def test_one_command_builds_artefact_and_manifest_from_a_checkpoint(tmp_path, frames, export):
    done = build(
        "--weights", "demo", "--size", "50x70", "--backend", "onnxruntime",
        "--output", "model.onnx", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]
    manifest = EngineManifest.read(tmp_path / "model.onnx")
    assert manifest.artefact_sha256 == file_sha256(tmp_path / "model.onnx")
    # The hash is of the graph before tuning; exports are identical in every process.
    plain = export(height=50, width=70).model.SerializeToString()
    assert manifest.onnx_sha256 == hashlib.sha256(plain).hexdigest()
    assert manifest.model.tuned_for == "cpu"
    assert manifest.backend == "onnxruntime"
    assert manifest.model.size == (50, 70)
    assert manifest.gate.required_db == 80
    assert manifest.gate.psnr_db > 80
    assert manifest.gate.reference.startswith("PyTorch")
    assert manifest.versions["onnxruntime"]
    assert manifest.build_seconds > 0
    with Interpolator.open(tmp_path / "model.onnx") as vfi:
        assert vfi.interpolate(*frames).shape == (50, 70, 3)


@pytest.mark.parametrize("model", ["frames.onnx", "dynamic.onnx"])
def test_a_build_from_an_onnx_file_needs_no_torch(models, tmp_path, model):
    done = build_without_torch(
        "--onnx", models / model, "--backend", "onnxruntime", "--output", "m.onnx", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    manifest = EngineManifest.read(tmp_path / "m.onnx")
    assert manifest.gate.reference == "the unoptimised ONNX file"
    assert manifest.model.variant == "small"
    assert manifest.onnx_sha256 == file_sha256(models / model)
    Interpolator.open(tmp_path / "m.onnx").close()


def test_an_artefact_for_openvino_is_compared_and_runs_in_openvino(models, tmp_path, frames):
    done = build_without_torch(
        "--onnx", models / "frames.onnx", "--backend", "openvino", "--output", "m.onnx",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "OpenVINO 20" in done.stdout
    manifest = EngineManifest.read(tmp_path / "m.onnx")
    assert (manifest.backend, manifest.model.tuned_for) == ("openvino", "any")
    assert [case["candidate"].split()[0] for case in manifest.gate.cases] == ["OpenVINO"] * 2
    assert manifest.gate.psnr_db > 80
    with Interpolator.open(tmp_path / "m.onnx", cache=tmp_path / "cache") as vfi:
        assert vfi.backend.startswith("openvino cpu")
        assert not vfi.notes  # The build compared all precisions of this CPU.
        assert vfi.interpolate(*frames).shape == (50, 70, 3)


def test_a_build_from_a_checkpoint_without_torch_says_what_to_install(tmp_path):
    done = build_without_torch(
        "--weights", "demo", "--backend", "onnxruntime", "--output", "m.onnx", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "pip install 'ifrnet-deploy[export]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_tensorrt_is_the_default_and_the_error_names_an_alternative(tmp_path):
    done = build("--weights", "demo", "--output", "model.engine", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith("with python -m export.build_engine --backend openvino\n")
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--onnx", "m.onnx", "--size", "32x48", "--dynamic"], "given with dynamic, height, width"),
        (["--onnx", "missing.onnx"], "missing.onnx does not exist: give a file of export.to_onnx"),
        (["--weights", "demo", "--output", "no/m.onnx"], "no is not a folder: create it first"),
        (["--weights", "no.pth"], "no.pth does not exist: give a checkpoint file, or demo"),
    ],
)
def test_errors_are_one_sentence_and_leave_no_files(tmp_path, arguments, message):
    arguments = arguments if "--output" in arguments else [*arguments, "--output", "out.onnx"]
    done = build(*arguments, "--backend", "onnxruntime", cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "no.pth"], "no.pth does not exist: give a checkpoint file, or demo"),
        (["--weights", "folder"], "folder is a folder: give a checkpoint file"),
        (["--onnx", "no.onnx"], "no.onnx does not exist: give a file of export.to_onnx"),
        (["--onnx", "folder"], "folder is a folder: give a file of export.to_onnx"),
        (["--weights", "demo", "--output", "folder"], "folder is a folder: give the file to write"),
        (["--weights", "demo", "--output", "no/m.engine"], "no is not a folder: create it first"),
        (["--weights", "demo", "--layers", "no/l.json"], "no is not a folder: create it first"),
        ([*INT8, "no.mp4"], "no.mp4 does not exist: give a video file"),
        ([*INT8, "folder"], "folder has 0 PNG or JPEG images"),
        ([*INT8, "noise.mp4"], "noise.mp4 cannot be read as a video"),
    ],
)
def test_files_are_checked_before_anything_is_imported_or_built(
    tmp_path, monkeypatch, capsys, arguments, message
):
    def fail(*_, **__):
        raise AssertionError("work has begun")

    for name in ("_build_onnx", "_build_engines"):
        monkeypatch.setattr(build_engine, name, fail)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "noise.mp4").write_bytes(b"noise")
    arguments = arguments if "--output" in arguments else [*arguments, "--output", "m.onnx"]
    with pytest.raises(SystemExit) as left:
        build_engine.main(arguments)
    assert left.value.code == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["openvino", "tensorrt"])
@pytest.mark.parametrize(
    ("options", "noted"),
    [
        (["--weights", "demo", "--size", "1081x1920"], True),
        (["--weights", "demo", "--size", "1081x1920", "--flow-scale", "1"], False),
        (["--weights", "demo", "--size", "1080x1920"], False),
        (["--onnx", "m.onnx"], False),
    ],
)
def test_a_flow_scale_is_recommended_before_the_work_begins(
    tmp_path, monkeypatch, capsys, backend, options, noted
):
    def stop(*_, **__):
        raise ExportError("stopped")

    for name in (
        "from_checkpoint.checked_from_checkpoint", "from_checkpoint.source_from_checkpoint",
        "candidate.checked_from_onnx", "source.source_from_onnx",
    ):  # fmt: skip
        monkeypatch.setattr(f"export.{name}", stop)
    target = SimpleNamespace(
        trt=SimpleNamespace(__version__="10.3.0"), gpu=SimpleNamespace(name="H200")
    )
    monkeypatch.setattr("export.trt.engine.target_at", lambda _: target)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").touch()
    with pytest.raises(SystemExit):
        build_engine.main([*options, "--backend", backend, "--output", "out.onnx"])
    printed = capsys.readouterr()
    assert printed.err.endswith("stopped\n")
    assert printed.out.count("1081x1920 without --flow-scale") == noted
    assert len(printed.out.splitlines()) == noted


def test_the_help_names_all_rewrites():
    parser = build_engine.make_parser()
    (rewrite,) = (action for action in parser._actions if action.dest == "rewrite")
    names = rewrite.help.partition("of the graph, of ")[2].partition(" (default")[0]
    assert names.replace(" and ", ", ").split(", ") == list(REWRITES)


def test_debug_shows_the_traceback(tmp_path):
    done = run_module(
        "export.build_engine", "--onnx", "no.onnx", "--backend", "onnxruntime", "--output",
        "o.onnx", "--debug", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_the_source_is_checked_before_anything_is_built(models, tmp_path):
    model = onnx.load(models / "frames.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="has no ifrnet-deploy metadata"):
        checked_from_onnx(tmp_path / "foreign.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ExportError, match=r"noise\.onnx"):
        checked_from_onnx(tmp_path / "noise.onnx")


def test_a_tuned_file_is_refused_as_source(models, tmp_path):
    write_artefact(checked_from_onnx(models / "frames.onnx"), tmp_path / "m.onnx", started=0.0)
    with pytest.raises(ExportError, match=r"tuned for cpu already: give the file"):
        checked_from_onnx(tmp_path / "m.onnx", tuned_for="any")


def test_a_model_that_fails_the_gate_is_refused(monkeypatch, models):
    monkeypatch.setitem(REQUIRED_DB, "fp32", 1000.0)
    with pytest.raises(GateError, match="1000 dB are required"):
        checked_from_onnx(models / "frames.onnx")


def test_a_file_that_the_runtime_cannot_open_does_not_replace_the_old_one(models, tmp_path):
    checked = checked_from_onnx(models / "frames.onnx")
    kept = tmp_path / "model.onnx"
    write_artefact(checked, kept, started=0.0)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    del checked.model.metadata_props[:]
    with pytest.raises(ModelError):
        write_artefact(checked, kept, started=0.0)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_rebuilding_replaces_artefact_and_manifest_together(models, tmp_path):
    path = tmp_path / "model.onnx"
    for source in ("frames.onnx", "three.onnx"):
        write_artefact(checked_from_onnx(models / source), path, started=0.0)
        steps = EngineManifest.read(path).model.steps_per_call
        assert steps == (1 if source == "frames.onnx" else 3)
    assert json.loads(manifest_path(path).read_text())["model"]["steps_per_call"] == 3
