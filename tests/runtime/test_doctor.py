import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from commands import WITHOUT_NUMPY, run_main
from openvino_types import claim_types
from runtime.backends.ort.cuda_provider import ProviderProblem
from runtime.doctor import _report_lines, backend_states, examine, recommendation
from runtime.machine import Gpu, GpuDriver

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
NO_GPU = GpuDriver(problem="no NVIDIA driver was found")
GPU = GpuDriver([Gpu("NVIDIA H200", "9.0")], "13.0")


def states(versions, driver, providers, **missing):
    found = backend_states(versions, driver, providers, **missing)
    return {state.name: state for state in found}


def test_cpu_package_on_a_cpu():
    found = states({"onnxruntime": "1.30"}, NO_GPU, [CPU])
    assert found["onnxruntime cpu"].ready
    assert not found["onnxruntime cuda"].ready
    assert "[gpu]" in found["onnxruntime cuda"].remedy


@pytest.mark.parametrize(
    ("what", "remedy"),
    [
        (NO_GPU.problem, "install an NVIDIA driver, or use device='cpu'"),
        ("libcudnn.so.9 is not found", "pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'"),
    ],
)
def test_gpu_package_without_its_libraries_names_a_remedy(what, remedy):
    missing = ProviderProblem(what, remedy)
    found = states({"onnxruntime-gpu": "1.30"}, NO_GPU, [CUDA, CPU], cuda_problem=missing)
    assert found["onnxruntime cpu"].ready
    state = found["onnxruntime cuda"]
    assert (state.ready, state.detail, state.remedy) == (False, what, remedy)


@pytest.mark.parametrize(("missing", "ready"), [([], True), (["libcublasLt.so.13"], False)])
def test_the_libraries_of_the_gpu_package_are_loaded(monkeypatch, missing, ready):
    ort = SimpleNamespace(
        __version__="1.31.1", cuda_version="13.0", get_available_providers=lambda: [CUDA, CPU]
    )
    monkeypatch.setattr("runtime.doctor.import_quietly", lambda _: ort)
    monkeypatch.setattr("runtime.doctor.gpu_driver", lambda: GPU)
    monkeypatch.setattr("runtime.doctor.installed_versions", lambda: {"onnxruntime-gpu": "1.31.1"})
    monkeypatch.setattr("runtime.backends.ort.cuda_provider.load_libraries", lambda _: missing)
    found = {state["name"]: state for state in examine()["backends"]}
    assert found["onnxruntime cpu"]["ready"]
    assert found["onnxruntime cuda"]["ready"] is ready
    assert ready or found["onnxruntime cuda"]["detail"] == "libcublasLt.so.13 is not found"


def test_gpu_package_with_a_gpu():
    assert states({"onnxruntime-gpu": "1.30"}, GPU, [CUDA, CPU])["onnxruntime cuda"].ready


def test_both_packages_at_once_are_a_conflict():
    found = states({"onnxruntime": "1.30", "onnxruntime-gpu": "1.30"}, GPU, [CUDA, CPU])
    for name in ("onnxruntime cpu", "onnxruntime cuda"):
        assert not found[name].ready
        assert "pip uninstall onnxruntime onnxruntime-gpu" in found[name].remedy


def test_without_packages_no_backend_is_ready():
    found = states({}, NO_GPU, [])
    assert not any(state.ready for state in found.values())
    assert found["onnxruntime cpu"].remedy == "pip install 'ifrnet-deploy[cpu]'"


ENGINES = {"tensorrt": "10.3.0", "cuda-bindings": "12.9.10"}


def test_tensorrt_with_everything_it_needs_is_ready():
    state = states(ENGINES, GPU, [])["tensorrt"]
    assert state.ready
    assert state.detail == "10.3.0, NVIDIA H200 (9.0)"


@pytest.mark.parametrize(
    ("versions", "driver", "problem", "detail", "remedy"),
    [
        (ENGINES, NO_GPU, None, "no NVIDIA driver was found", "install an NVIDIA driver"),
        ({}, GPU, None, "not installed", "apt install python3-libnvinfer"),
        ({"tensorrt": "10.3.0"}, GPU, None, "10.3.0 without cuda-bindings", "cuda-bindings of"),
        (ENGINES, GPU, "libnvinfer.so.10 is missing", "libnvinfer.so.10 is missing", "repair"),
    ],
)
def test_tensorrt_without_something_it_needs_names_a_remedy(
    versions, driver, problem, detail, remedy
):
    found = {s.name: s for s in backend_states(versions, driver, [], problem)}["tensorrt"]
    assert not found.ready
    assert found.detail == detail
    assert remedy in found.remedy


@pytest.mark.parametrize("name", ["onnxruntime cpu", "onnxruntime cuda", "tensorrt"])
def test_every_backend_that_is_not_ready_has_a_remedy(name):
    for versions in ({}, {"onnxruntime": "1.30"}, {"tensorrt": "10.3"}):
        for driver in (NO_GPU, GPU):
            state = states(versions, driver, [CPU] if versions else [])[name]
            assert state.ready or state.remedy


def test_openvino_is_ready_or_has_a_remedy():
    assert states({"openvino": "2026.4"}, NO_GPU, [])["openvino cpu"].ready
    missing = states({}, NO_GPU, [])["openvino cpu"]
    assert (missing.ready, missing.remedy) == (False, "pip install 'ifrnet-deploy[openvino]'")
    broken = {s.name: s for s in backend_states({"openvino": "1"}, NO_GPU, [], None, "no libtbb")}
    assert broken["openvino cpu"].detail == "no libtbb"
    assert "repair" in broken["openvino cpu"].remedy


@pytest.mark.parametrize(
    ("versions", "computes_in", "expected"),
    [
        ({"openvino": "2026.4.1"}, ["FP32", "BF16"], "openvino, which computes in bf16 if"),
        ({"openvino": "2026.10"}, ["FP32", "BF16"], "openvino, which computes in bf16 if"),
        ({"openvino": "2025.0.0"}, ["FP32", "BF16"], "openvino, which computes in bf16 if"),
        ({"openvino": "2027.0"}, ["FP32", "FP16"], "openvino, which computes in fp16 if"),
        ({"openvino": "1"}, ["FP32"], "openvino, in fp32"),
        ({"onnxruntime": "1"}, [], "onnxruntime (OpenVINO may be faster"),
        ({}, [], "none, because"),
    ],
)
def test_the_recommended_backend(versions, computes_in, expected):
    found = list(backend_states(versions, NO_GPU, [CPU] if "onnxruntime" in versions else []))
    assert recommendation(found, computes_in).startswith(expected)


def test_the_precision_of_the_shipped_model_is_reported(monkeypatch):
    def lines():
        report = examine()
        return report["shipped_model"], list(_report_lines(report))

    claim_types(monkeypatch, "FP32")
    shipped, said = lines()
    assert shipped == {"precision": "fp32", "note": None}
    assert f"{'':17} computes the shipped model in fp32" in said
    claim_types(monkeypatch, "FP32", "FP16")
    shipped, said = lines()
    assert shipped["precision"] == "fp32"
    assert "prove it with python -m export.prove demo" in shipped["note"]
    place = said.index(f"{'':17} computes the shipped model in fp32")
    assert said[place - 2].startswith("openvino cpu")
    assert said[place + 1].strip() == shipped["note"]


def test_a_runtime_without_the_shipped_models_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr("runtime.doctor.demo_model", lambda _: tmp_path / "no.onnx")
    assert examine()["shipped_model"] is None


def test_a_measurement_times_every_backend(models):
    done = run_main("runtime.doctor", "--measure", "--model", models / "frames.onnx", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"onnxruntime cpu", "openvino cpu fp32"} <= {one["name"] for one in found["trial"]}
    assert [one["milliseconds"] for one in found["trial"]] == sorted(
        one["milliseconds"] for one in found["trial"]
    )
    assert found["recommended"].startswith(found["trial"][0]["name"])


def test_a_model_without_a_measurement_is_refused():
    done = run_main("runtime.doctor", "--model", "model.onnx")
    assert done.returncode == 1
    assert "--model was given without --measure" in done.stderr


def test_the_command_prints_the_state_of_every_backend():
    done = run_main("runtime.doctor")
    assert done.returncode == 0, done.stderr
    assert "onnxruntime cpu   ready" in done.stdout
    assert "Warning" not in done.stderr


def test_the_command_writes_json_beside_the_text(tmp_path):
    done = run_main("runtime.doctor", "--json", tmp_path / "doctor.json")
    assert done.stdout.startswith("platform ")
    assert "versions" in json.loads((tmp_path / "doctor.json").read_text())


def test_the_command_prints_json():
    found = json.loads(run_main("runtime.doctor", "--json").stdout)
    assert found["processors"] >= 1
    assert "CPUExecutionProvider" in found["providers"]
    assert {state["name"] for state in found["backends"]} >= {"onnxruntime cpu", "tensorrt"}


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_the_command_works_without_numpy(option):
    code = WITHOUT_NUMPY + (
        f"import runpy; sys.argv = ['doctor', *{option}];"
        "runpy.run_module('runtime.doctor', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    if option:
        found = json.loads(done.stdout)
        assert found["numpy_problem"] == "not installed"
        assert not any(state["ready"] for state in found["backends"])
        assert found["recommended"].startswith("none, because")
        return
    lines = [line.split() for line in done.stdout.splitlines()]
    place = lines.index(["numpy", "not", "ready:", "not", "installed"])
    assert lines[place + 1] == ["->", "pip", "install", "numpy"]
    assert ["onnxruntime", "cpu", "not", "ready:", "needs", "NumPy"] in lines


def test_a_numpy_that_does_not_load_is_named(monkeypatch):
    def fail(name):
        raise ImportError(f"{name}: libopenblas.so.0 is missing\nand a page of advice")

    monkeypatch.setattr("runtime.doctor.importlib.import_module", fail)
    assert examine()["numpy_problem"] == "numpy: libopenblas.so.0 is missing"
