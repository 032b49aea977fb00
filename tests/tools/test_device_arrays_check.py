"""The check of GPU arrays with PyTorch, over FakeCuda, which finds missing synchronisation."""

import importlib
import json
import subprocess
import sys

import pytest

import fake_cuda
from fake_torch import FakeTorch
from paths import ROOT
from runtime.backends.cuda.arrays import DeviceFrame

WAYS = 7
REFUSED = 8


@pytest.fixture(scope="module")
def tool():
    return importlib.import_module("device_arrays_check")


@pytest.fixture(params=["late", "others"])
def cuda(request, monkeypatch):
    made = fake_cuda.FakeCuda(mode=request.param)
    fake_cuda.install(monkeypatch, made)
    return made


def problems(checks):
    return {check.name: check.problem for check in checks if check.problem}


def test_with_correct_synchronisation_all_checks_pass_and_nothing_leaks(tool, cuda, capsys):
    checks = tool.run_checks(FakeTorch(cuda))
    assert problems(checks) == {}
    assert len(checks) == len({check.name for check in checks}) == WAYS * 4 + REFUSED * 2 + 1
    assert len(capsys.readouterr().out.splitlines()) == len(checks)
    cuda.assert_nothing_left()


def test_a_frame_without_a_wait_for_its_stream_is_found(tool, cuda, monkeypatch):
    monkeypatch.setattr(DeviceFrame, "_make_wait", lambda *_: None)
    found = problems(tool.run_checks(FakeTorch(cuda)))
    assert "race: copy DeviceToDevice on stream" in found["from_dlpack, another stream, uint8"]
    assert "race: copy DeviceToDevice on stream" in found["from_dlpack, default stream, float32"]


def test_a_tensor_that_is_requested_on_another_stream_is_found(tool, cuda, monkeypatch):
    real = tool.device_view
    monkeypatch.setattr(tool, "device_view", lambda array, **k: real(array, **{**k, "stream": 0}))
    found = problems(tool.run_checks(FakeTorch(cuda)))
    assert "race: copy DeviceToHost" in found["device_view by DLPack, another stream, uint8"]


def test_a_frame_at_another_address_fails(tool, cuda):
    class Copies(FakeTorch):
        def from_dlpack(self, frame):
            return self.from_numpy(super().from_dlpack(frame).cpu().numpy()).cuda()

    found = problems(tool.run_checks(Copies(cuda)))
    assert len(found) == 12
    assert all("the pointer is" in problem for problem in found.values())


def test_a_frame_with_other_values_fails(tool, cuda, monkeypatch):
    monkeypatch.setattr(tool.CudaStreams, "copied", lambda *_: 0)
    found = problems(tool.run_checks(FakeTorch(cuda)))
    assert len(found) == 12
    assert all("the number of wrong values is" in problem for problem in found.values())


def test_an_array_that_is_wrongly_accepted_fails(tool, cuda, monkeypatch):
    monkeypatch.setattr(tool, "device_view", lambda *_, **__: None)
    found = problems(tool.run_checks(FakeTorch(cuda)))
    refused = [problem for name, problem in found.items() if name.startswith("refused")]
    assert refused == ["it was accepted"] * 2 * REFUSED


def test_a_refusal_with_another_exception_fails(tool, cuda, monkeypatch):
    def raises(*_, **__):
        raise KeyError("torch.float8")

    monkeypatch.setattr(tool, "device_view", raises)
    found = problems(tool.run_checks(FakeTorch(cuda)))
    assert found["refused by DLPack: int64"] == "KeyError: 'torch.float8'"


def test_if_no_transfer_was_pending_the_order_was_not_tested(tool, cuda):
    cuda.cudaStreamQuery = lambda _: (cuda.cudaError_t.cudaSuccess,)
    found = problems(tool.run_checks(FakeTorch(cuda)))
    assert len(found) == WAYS * 4
    assert all("in 3 tries: the order was not tested" in problem for problem in found.values())


def test_a_frame_that_is_never_released_fails(tool, cuda, monkeypatch):
    kept = []

    def keeps(machine, values, *_):
        kept.append(machine.frame(values))
        return True

    monkeypatch.setattr(tool, "frame_to_torch", keeps)
    found = problems(tool.run_checks(FakeTorch(cuda)))
    assert found == {"memory is released": "0 of 16 frames were released"}


@pytest.fixture
def command(tool, monkeypatch):
    def run(torch, *arguments):
        monkeypatch.setitem(sys.modules, "torch", torch)
        with pytest.raises(SystemExit) as ended:
            tool.main(list(arguments))
        return ended.value.code

    return run


def test_the_command_writes_its_results(command, cuda, tmp_path, capsys):
    path = tmp_path / "found.json"
    assert command(FakeTorch(cuda), "--json", str(path)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "45 checks, 0 failed"
    record = json.loads(path.read_text())
    assert len(record["checks"]) == 45
    assert record["checks"][0] == {
        "name": "from_dlpack, another stream, uint8", "problem": ""
    }  # fmt: skip
    assert record["pytorch"] == FakeTorch.__version__
    assert "versions" in record["environment"]


def test_one_failure_makes_the_command_fail(tool, command, cuda, monkeypatch):
    monkeypatch.setattr(tool, "device_view", lambda *_, **__: None)
    assert command(FakeTorch(cuda)) == 1


def test_without_a_gpu_the_error_is_one_sentence():
    done = subprocess.run(
        [sys.executable, "tools/device_arrays_check.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "finds no CUDA GPU here: run this with" in done.stderr
    assert len(done.stderr.splitlines()) == 1
