import hashlib
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from bench.runs.authors import random_network
from ifrnet_model import CheckpointError, load_checkpoint, probe_time_steps
from ifrnet_model.weights import DEMO_WEIGHTS, table
from ifrnet_model.weights.table import checkpoint_named


@pytest.fixture(scope="module")
def state():
    return random_network("small").state_dict()


def assert_loads(path, state):
    checkpoint = load_checkpoint(path)
    loaded = checkpoint.network.state_dict()
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(loaded[name], tensor.float(), atol=0, rtol=0)
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    return checkpoint


@pytest.mark.parametrize("variant", ["small", "base", "large"])
def test_the_authors_file_and_its_variant(tmp_path, variant):
    state = random_network(variant).state_dict()
    torch.save(state, tmp_path / "IFRNet.pth")
    assert assert_loads(tmp_path / "IFRNet.pth", state).network.config.variant == variant


@pytest.mark.parametrize("prefix", ["module.", "generator.", "module.generator."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_prefixes_and_wrappers(tmp_path, state, prefix, wrapped):
    prefixed = {prefix + name: tensor for name, tensor in state.items()}
    saved = {"state_dict": prefixed, "meta": {"epoch": 300}} if wrapped else prefixed
    torch.save(saved, tmp_path / "weights.pth")
    assert_loads(tmp_path / "weights.pth", state)


def test_safetensors_in_float16(tmp_path, state):
    half = {name: tensor.half() for name, tensor in state.items()}
    save_file(half, tmp_path / "weights.safetensors")
    assert_loads(tmp_path / "weights.safetensors", half)


def test_demo_weights_are_the_shipped_file():
    checkpoint = load_checkpoint("demo")
    assert checkpoint.network.config.variant == "small"
    assert checkpoint.time_steps == "arbitrary"
    assert not checkpoint.network.training


def test_demo_weights_with_another_content_are_refused(tmp_path):
    damaged = tmp_path / DEMO_WEIGHTS.name
    content = bytearray(DEMO_WEIGHTS.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"has sha256 .* as published .* download"):
        load_checkpoint(damaged)


@pytest.mark.parametrize("name", ["IFRNet_vimeo90k-7a66b214.pth", "IFRNet_gopro-5d2f805a.pth"])
def test_openmmlab_names_promise_a_hash(tmp_path, state, name):
    torch.save(state, tmp_path / name)
    with pytest.raises(CheckpointError, match="has sha256"):
        load_checkpoint(tmp_path / name)


def test_openmmlab_name_with_the_right_hash_loads(tmp_path, state, monkeypatch):
    path = tmp_path / "IFRNet_gopro-5d2f805a.pth"
    torch.save({"generator." + k: v for k, v in state.items()}, path)
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    known = replace(checkpoint_named(path.name), sha256=digits)
    monkeypatch.setattr(table, "CHECKPOINTS", (known,))
    assert assert_loads(path, state).time_steps == "arbitrary"


@pytest.mark.parametrize(
    ("name", "time_steps"),
    [
        ("IFRNet_S_Vimeo90K.pth", "midpoint"),
        ("ifrnet_s_gopro.pt", "arbitrary"),
        ("mine.pth", None),
        ("my_vimeo_run.pth", None),
    ],
)
def test_published_names_say_what_the_weights_know_of_time(tmp_path, state, name, time_steps):
    torch.save(state, tmp_path / name)
    assert load_checkpoint(tmp_path / name).time_steps == time_steps


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, zipped):
    target, path = tmp_path / "pwned", tmp_path / "weights.pth"
    payload = {"encoder.pyramid1.0.0.weight": Attack(target)}
    if zipped:
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_truncated_files(tmp_path, state, suffix, kept):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(CheckpointError, match=r"copy or download it again|was not loaded"):
        load_checkpoint(path)


def test_missing_unexpected_and_misshapen_tensors_are_named_together(tmp_path, state):
    state = dict(state)
    del state["encoder.pyramid2.0.0.bias"]
    state["decoder5.convblock.0.0.weight"] = torch.zeros(1)
    state["decoder1.convblock.2.bias"] = torch.zeros(9)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "weights.pth")
    message = str(error.value)
    assert "1 missing (encoder.pyramid2.0.0.bias)" in message
    assert "1 unexpected (decoder5.convblock.0.0.weight)" in message
    assert "1 of another shape (decoder1.convblock.2.bias: (9,), not (8,))" in message


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"conv.weight": torch.zeros(3)}, "give an IFRNet checkpoint"),
        (
            {"encoder.pyramid1.0.0.weight": torch.zeros(10, 3, 3, 3)},
            r"not one of \(24, 3, 3, 3\) \(small\)",
        ),
        ([torch.zeros(3)], "not a state_dict"),
        ({}, "give an IFRNet checkpoint"),
        ({"a": 1}, "not tensors"),
    ],
)
def test_other_contents(tmp_path, saved, message):
    torch.save(saved, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "weights.pth")


def test_not_a_number_is_refused(tmp_path, state):
    state = {name: tensor.clone() for name, tensor in state.items()}
    state["decoder1.convblock.2.bias"][0] = float("nan")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="NaN"):
        load_checkpoint(tmp_path / "weights.pth")


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "none.pth")


def test_probe_tells_weights_that_know_time(demo_network, midpoint_checkpoint):
    assert probe_time_steps(demo_network) == "arbitrary"
    assert probe_time_steps(load_checkpoint(midpoint_checkpoint).network) == "midpoint"
    assert probe_time_steps(random_network("small")) == "midpoint"


def test_a_pth_file_needs_nothing_but_pytorch(tmp_path, state):
    torch.save(state, tmp_path / "weights.pth")
    code = (
        "import sys; sys.modules['safetensors'] = None\n"
        "from ifrnet_model import load_checkpoint\n"
        "print(load_checkpoint(sys.argv[1]).network.config.variant)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "weights.pth")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "small\n", done.stderr
