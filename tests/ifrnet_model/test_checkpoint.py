import argparse
import datetime
import hashlib
import importlib
import os
import pickle
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bench.runs.authors import random_network
from ifrnet_model import CheckpointError, load_checkpoint, probe_time_steps
from ifrnet_model.checkpoint_file import read_checkpoint
from ifrnet_model.state_dict import STEM
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
def test_the_variant_of_an_authors_file_is_recognised(tmp_path, variant):
    state = random_network(variant).state_dict()
    torch.save(state, tmp_path / "IFRNet.pth")
    assert assert_loads(tmp_path / "IFRNet.pth", state).network.config.variant == variant


@pytest.mark.parametrize("prefix", ["module.", "generator.", "module.generator."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_with_prefixes_and_wrappers_load(tmp_path, state, prefix, wrapped):
    prefixed = {prefix + name: tensor for name, tensor in state.items()}
    saved = {"state_dict": prefixed, "meta": {"epoch": 300}} if wrapped else prefixed
    torch.save(saved, tmp_path / "weights.pth")
    assert_loads(tmp_path / "weights.pth", state)


def test_safetensors_in_float16_load(tmp_path, state):
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
def test_a_file_with_another_hash_than_its_openmmlab_name_is_refused(tmp_path, state, name):
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


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Writes a small file, and reads it with another hash published for IFRNet_gopro-5d2f805a."""

    def read(suffix, digits_of):
        path = tmp_path / f"IFRNet_gopro-5d2f805a{suffix}"
        save = save_file if suffix == ".safetensors" else torch.save
        save({STEM: torch.ones(2)}, path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        known = replace(checkpoint_named(path.name), sha256=digits_of(sha256))
        monkeypatch.setattr(table, "CHECKPOINTS", (known,))
        return read_checkpoint(path).sha256 == sha256

    return read


def other(digit):
    return "1" if digit == "0" else "0"


DIGITS = {
    "all": (lambda sha256: sha256, True),
    "first": (lambda sha256: sha256[:8], True),
    "later": (lambda sha256: sha256[1:9], False),
    "first but one": (lambda sha256: sha256[:7] + other(sha256[7]), False),
    "all but one": (lambda sha256: sha256[:-1] + other(sha256[-1]), False),
}


@pytest.mark.parametrize("suffix", [".pth", ".PTH"])
@pytest.mark.parametrize("digits", DIGITS)
def test_a_hash_must_begin_with_the_published_digits(published, suffix, digits):
    digits_of, matches = DIGITS[digits]
    if matches:
        assert published(suffix, digits_of)
    else:
        with pytest.raises(CheckpointError, match=r"has sha256 .* as published for that name"):
            published(suffix, digits_of)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_converted_file_may_have_another_hash_than_its_published_name(published, suffix):
    assert published(suffix, lambda _: "0" * 8)


def test_a_checkpoint_is_identified_by_the_first_digits_of_its_hash(monkeypatch):
    known = replace(checkpoint_named("IFRNet_gopro-5d2f805a"), sha256="12345678")
    monkeypatch.setattr(table, "CHECKPOINTS", (replace(known, sha256=None), known))
    assert table.find_by_sha256("12345678" + "9" * 56) is known
    assert table.find_by_sha256("9" + "12345678" + "9" * 55) is None
    assert table.find_by_sha256("") is None


@pytest.mark.parametrize(
    ("name", "time_steps"),
    [
        ("IFRNet_S_Vimeo90K.pth", "midpoint"),
        ("ifrnet_s_gopro.pt", "arbitrary"),
        ("mine.pth", None),
        ("my_vimeo_run.pth", None),
    ],
)
def test_published_names_determine_the_time_steps(tmp_path, state, name, time_steps):
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
    with pytest.raises(CheckpointError, match="could run code, and was not loaded: save "):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_an_entry_beside_the_weights_that_runs_code_is_refused_and_not_run(tmp_path, state, zipped):
    target, path = tmp_path / "pwned", tmp_path / "weights.pth"
    saved = {"state_dict": state, "meta": Attack(target)}
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"contains the Python object (posix|nt)\.system,"):
        load_checkpoint(path)
    assert not target.exists()


def named_class(monkeypatch, name, base):
    """A class that pickle stores under the name of a class of another package."""
    module, _, short = name.rpartition(".")
    made = type(short, (base,), {"__module__": module})
    parents = [module[:end] for end in range(len(module)) if module[end] == "."]
    for parent in parents:
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{short: made}))
    return made


@pytest.mark.parametrize("zipped", [False, True])
def test_other_objects_beside_the_weights_are_ignored(tmp_path, state, monkeypatch, zipped):
    config = named_class(monkeypatch, "easydict.EasyDict", dict)(rate=1e-4)
    config.rate = 1e-4
    history = named_class(monkeypatch, "mmengine.logging.history_buffer.HistoryBuffer", object)()
    history.values = np.zeros(3)
    saved = {
        "state_dict": state,
        "args": argparse.Namespace(output=Path("out"), started=datetime.datetime.now()),
        "best_psnr": np.float64(35.8),
        "config": config,
        "message_hub": {"loss": history},
    }
    path = tmp_path / "weights.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    allowed = set(torch.serialization.get_safe_globals())
    monkeypatch.undo()  # The file is loaded without these packages.
    assert_loads(path, state)
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_an_object_in_place_of_a_weight_is_refused(tmp_path, state):
    torch.save({**state, "decoder1.convblock.2.bias": np.zeros(8)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"not tensors \(decoder1\.convblock\.2\.bias\)"):
        load_checkpoint(tmp_path / "weights.pth")


def test_a_whole_model_is_refused_with_its_class(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"object torch\.nn\.modules\.linear\.Linear, could"):
        load_checkpoint(tmp_path / "model.pth")


def test_averaged_weights_are_loaded_and_noted(tmp_path, state):
    average = {f"module.{name}": tensor / 2 for name, tensor in state.items()}
    path = tmp_path / "weights.pth"
    torch.save({"params": state, "params_ema": average}, path)
    checkpoint = assert_loads(path, {name: tensor / 2 for name, tensor in state.items()})
    assert checkpoint.note == (
        "the averaged weights (params_ema, module.) are taken, not the ordinary ones (params) "
        "that the file also has"
    )
    torch.save({"params_ema": average}, path)
    assert load_checkpoint(path).note is None


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path, state, suffix, kept):
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(CheckpointError, match=r"copy or download it again$"):
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
def test_files_without_ifrnet_weights_are_refused(tmp_path, saved, message):
    torch.save(saved, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "weights.pth")


def test_weights_with_nan_are_refused(tmp_path, state):
    state = {name: tensor.clone() for name, tensor in state.items()}
    state["decoder1.convblock.2.bias"][0] = float("nan")
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"NaN \(decoder1\.convblock\.2\.bias\): give"):
        load_checkpoint(tmp_path / "weights.pth")


def test_integer_weights_are_refused(tmp_path, state):
    quantised = {name: tensor.to(torch.int8) for name, tensor in state.items()}
    torch.save(quantised, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"not of a float type \(.* and 100 more\): give the"):
        load_checkpoint(tmp_path / "weights.pth")


def test_a_web_page_under_a_published_name_is_recognised(tmp_path):
    path = tmp_path / "IFRNet_vimeo90k-7a66b214.pth"
    path.write_text("<!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(CheckpointError, match="is a web page"):
        load_checkpoint(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "none.pth")


def test_the_probe_recognises_weights_that_use_the_time_step(demo_network, midpoint_checkpoint):
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


def test_a_safetensors_file_of_an_unknown_type_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({STEM: torch.ones(2)}, path)
    content = path.read_bytes()
    assert content.count(b"F32") == 1
    path.write_bytes(content.replace(b"F32", b"Q32"))
    with pytest.raises(CheckpointError, match=r"is not a readable safetensors file \("):
        read_checkpoint(path)


@pytest.mark.parametrize("module", ["ifrnet_model", "ifrnet_model.weights"])
def test_an_unknown_name_of_a_package_is_named(module):
    with pytest.raises(AttributeError, match=f"^module '{module}' has no attribute 'missing'$"):
        _ = importlib.import_module(module).missing
