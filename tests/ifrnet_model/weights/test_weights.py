"""The table of known checkpoints, and the commands that list, inspect and convert."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open

from bench.data.protocols import PROTOCOLS
from bench.runs.authors import random_network
from distributions import build_wheel, copy_packages
from export import from_checkpoint
from export.errors import ExportError
from export.from_checkpoint import checked_from_checkpoint
from export.progress import Stages
from export.store import write_artefact
from export.wrapper import ExportOptions
from ifrnet_model import VARIANTS, CheckpointError, IFRNet, load_checkpoint
from ifrnet_model.probe import try_time_steps
from ifrnet_model.weights import (
    CHECKPOINTS,
    DEMO_WEIGHTS,
    __main__,
    convert,
    convert_checkpoint,
    inspect_checkpoint,
)
from ifrnet_model.weights import table as table_module
from ifrnet_model.weights.inspection import inspection_lines
from ifrnet_model.weights.table import checkpoint_named
from paths import ROOT
from runtime.manifest import EngineManifest

BYTES_OF_A_WEIGHT = 4


@pytest.fixture
def command(capsys):
    """Runs the command in this process; returns (exit code, standard output, standard error)."""

    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            __main__.main([str(argument) for argument in arguments])
        return ended.value.code, *capsys.readouterr()

    return command


def test_the_table_has_the_hash_of_the_shipped_file():
    known = checkpoint_named("demo")
    content = DEMO_WEIGHTS.read_bytes()
    assert known.sha256 == hashlib.sha256(content).hexdigest(), "the table is of other weights"
    assert known.megabytes == round(len(content) / 1e6, 1)
    checkpoint = load_checkpoint("demo")
    assert known.variant == checkpoint.network.config.variant
    assert (
        known.time_steps == checkpoint.time_steps == try_time_steps(checkpoint.network).time_steps
    )


def test_the_table_has_eight_published_checkpoints_and_the_demo():
    found = {k.name: (k.publisher, k.variant, k.time_steps) for k in CHECKPOINTS}
    assert found == {
        "IFRNet_S_Vimeo90K.pth": ("authors", "small", "midpoint"),
        "IFRNet_S_GoPro.pth": ("authors", "small", "arbitrary"),
        "IFRNet_Vimeo90K.pth": ("authors", "base", "midpoint"),
        "IFRNet_GoPro.pth": ("authors", "base", "arbitrary"),
        "IFRNet_L_Vimeo90K.pth": ("authors", "large", "midpoint"),
        "IFRNet_L_GoPro.pth": ("authors", "large", "arbitrary"),
        "IFRNet_vimeo90k-7a66b214.pth": ("mmagic", "base", "midpoint"),
        "IFRNet_gopro-5d2f805a.pth": ("mmagic", "base", "arbitrary"),
        DEMO_WEIGHTS.name: ("ifrnet-deploy", "small", "arbitrary"),
    }
    assert {k.name: (k.sha256, k.url) for k in CHECKPOINTS if k.publisher == "mmagic"} == {
        f"IFRNet_{name}.pth": (
            name.split("-")[1],
            f"https://download.openmmlab.com/mmediting/ifrnet/IFRNet_{name}.pth",
        )
        for name in ("vimeo90k-7a66b214", "gopro-5d2f805a")
    }
    for known in CHECKPOINTS:
        assert known.variant in VARIANTS
        assert set(known.figures) <= set(PROTOCOLS)
        assert known.url or known.publisher != "mmagic"


def test_sizes_are_those_of_float32_weights():
    for known in CHECKPOINTS:
        if known.publisher == "authors":
            with torch.device("meta"):
                network = IFRNet(VARIANTS[known.variant])
            parameters = sum(p.numel() for p in network.parameters())
            weights = parameters * BYTES_OF_A_WEIGHT / 1e6
            assert weights <= known.megabytes + 0.05 < 1.05 * weights


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("IFRNet_S_GoPro", "IFRNet_S_GoPro.pth"),
        ("ifrnet_vimeo90k", "IFRNet_Vimeo90K.pth"),
        ("IFRNet_vimeo90k-7a66b214.pth", "IFRNet_vimeo90k-7a66b214.pth"),
        ("demo", DEMO_WEIGHTS.name),
    ],
)
def test_checkpoints_are_found_with_or_without_suffix(name, found):
    assert checkpoint_named(name).name == found


def test_the_error_for_an_unknown_name_suggests_similar_names():
    with pytest.raises(
        CheckpointError, match="is not a known checkpoint: use one of IFRNet_S_GoPro, "
    ):
        checkpoint_named("IFRNet_S_Gopr")


def test_the_list_is_printed_as_text_or_json(tmp_path, command):
    code, out, _ = command("list")
    assert code == 0
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    for known in CHECKPOINTS:
        line = lines[Path(known.name).stem]
        assert known.variant in line
        assert known.time_steps in line
    listed = json.loads(command("list", "--json")[1])
    assert [entry["name"] for entry in listed] == [k.name for k in CHECKPOINTS]
    assert command("list", "--json", tmp_path / "list.json")[:2] == (0, out)
    assert json.loads((tmp_path / "list.json").read_text()) == listed
    assert listed[0]["figures"]["vimeo90k"]["psnr"] == 35.59


WITHOUT_TORCH = """
import sys
sys.modules.update(torch=None, numpy=None, safetensors=None, onnx=None)
sys.path.insert(0, {path!r})
sys.argv = ["weights", *{arguments!r}]
import runpy
runpy.run_module("ifrnet_model.weights", run_name="__main__")
"""


def without_torch(*arguments, path=ROOT, cwd=None):
    code = WITHOUT_TORCH.format(path=str(path), arguments=[str(a) for a in arguments])
    return subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-c", code],
        capture_output=True, text=True, cwd=cwd, check=False,
    )  # fmt: skip


def test_list_and_download_need_no_torch_and_inspect_says_what_it_needs(tmp_path):
    assert "IFRNet_L_GoPro" in without_torch("list").stdout
    done = without_torch("download", "demo", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / DEMO_WEIGHTS.name).read_bytes() == DEMO_WEIGHTS.read_bytes()
    done = without_torch("download", "IFRNet_S_GoPro", "--output", tmp_path)
    assert done.returncode == 1
    assert "checkpoints/IFRNet_small/IFRNet_S_GoPro.pth" in done.stderr
    done = without_torch("inspect", "demo")
    assert done.returncode == 1
    assert "the package torch is not installed: pip install 'ifrnet-deploy[export]'" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["list"], ["download"], ["inspect"], ["convert"]])
def test_help_shows_an_example(command, arguments):
    code, out, _ = command(*arguments, "--help")
    assert code == 0
    assert "example:\n  python -m ifrnet_model.weights " in out


def test_a_wheel_has_the_weights_and_the_model_card(tmp_path):
    with zipfile.ZipFile(build_wheel(copy_packages(tmp_path / "copy"))) as archive:
        archive.extractall(tmp_path / "installed")
    installed = tmp_path / "installed" / "ifrnet_model" / "weights"
    for name in (DEMO_WEIGHTS.name, "MODEL_CARD.md", "fast_motion.jpg"):
        assert (installed / name).read_bytes() == DEMO_WEIGHTS.with_name(name).read_bytes()
    out = tmp_path / "out"
    done = without_torch(
        "download", "demo", "--output", out, path=tmp_path / "installed", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.iterdir()] == [DEMO_WEIGHTS.name]


def save_as(path):
    torch.save(random_network("small").state_dict(), path)
    return path


def test_a_known_name_identifies_weights_of_the_right_variant(tmp_path):
    fits = load_checkpoint(save_as(tmp_path / "IFRNet_S_Vimeo90K.pth"))
    assert fits.identity.known.name == "IFRNet_S_Vimeo90K.pth"
    assert (fits.identity.by, fits.time_steps) == ("name", "midpoint")
    other = load_checkpoint(save_as(tmp_path / "IFRNet_L_Vimeo90K.pth"))
    assert (other.identity, other.time_steps) == (None, None)


def test_a_known_hash_identifies_weights_under_any_name(tmp_path, monkeypatch):
    path = save_as(tmp_path / "mine.pth")
    assert load_checkpoint(path).identity is None
    know_hash_of(path, monkeypatch)
    found = load_checkpoint(path)
    assert (found.identity.by, found.time_steps) == ("sha256", "midpoint")


def know_hash_of(path, monkeypatch):
    """Gives a checkpoint of the table the hash of this file."""
    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    known = replace(checkpoint_named("IFRNet_S_Vimeo90K"), sha256=digits)
    monkeypatch.setattr(table_module, "CHECKPOINTS", (known,))


def test_time_steps_of_the_table_are_in_the_onnx_file_and_its_manifest(tmp_path):
    """The name of a published checkpoint decides, here given to the demo weights: no trial runs."""
    path = tmp_path / "IFRNet_S_Vimeo90K.pth"
    torch.save(load_checkpoint("demo").network.state_dict(), path)
    checked = checked_from_checkpoint(path, ExportOptions(height=32, width=48))
    properties = {entry.key: entry.value for entry in checked.model.metadata_props}
    assert properties["ifrnet.time_steps"] == "midpoint"
    write_artefact(checked, tmp_path / "model.onnx", started=0.0)
    manifest = EngineManifest.read(tmp_path / "model.onnx")
    assert manifest.model.time_steps == "midpoint"
    assert manifest.model.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_export_notes_that_it_tried_the_time_steps(midpoint_checkpoint):
    notes = []
    stages = Stages.silent()
    stages.note = notes.append
    assert (
        from_checkpoint._probe_time_steps(load_checkpoint(midpoint_checkpoint).network, stages)
        == "midpoint"
    )
    assert len(notes) == 1
    assert re.search(r"midpoint, found by a trial.* t = 0.25 [\d.]+ dB .*--time", notes[0])


def test_a_trial_of_time_steps_has_figures(demo_network, midpoint_checkpoint):
    knows = try_time_steps(demo_network)
    blind = try_time_steps(load_checkpoint(midpoint_checkpoint).network)
    untrained = try_time_steps(random_network("small"))
    assert [step.t for step in knows.steps] == [0.25, 0.5, 0.75]
    for early, late in ((knows.steps[0], knows.steps[2]), (blind.steps[0], blind.steps[2])):
        # Blended frames on both sides are equally far from the middle.
        assert early.blend_db == pytest.approx(late.blend_db, abs=1.0)
    assert all(s.true_db > s.middle_db for s in knows.steps if s.t != 0.5)
    assert all(s.true_db < s.middle_db for s in blind.steps if s.t != 0.5)
    assert knows.steps[1].true_db == knows.steps[1].middle_db
    assert (knows.follows_motion, blind.follows_motion, untrained.follows_motion) == (
        True,
        True,
        False,
    )


def test_a_network_that_only_blends_supports_only_the_midpoint():
    class Blending(torch.nn.Module):
        def forward(self, img0, img1, timestep):
            return torch.lerp(img0, img1, timestep)

    trial = try_time_steps(Blending())
    assert trial.time_steps == "midpoint"
    assert not trial.follows_motion


def test_inspect_shows_wrappers_prefixes_and_variant(tmp_path, command):
    path = tmp_path / "weights.pth"
    state = {f"module.generator.{k}": v for k, v in random_network("base").state_dict().items()}
    torch.save({"state_dict": state, "meta": {}}, path)
    found = json.loads(command("inspect", path, "--json")[1])
    assert found["wrappers"] == ["state_dict"]
    assert found["prefixes"] == ["module.", "generator."]
    assert found["variant"] == "base"
    assert found["parameters"] == 4959692
    assert found["dtypes"] == {"float32": 104}
    assert found["known"] is None
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found["time_steps"] == {
        "used": "midpoint", "stated": None, "published": None, "tried": "midpoint",
    }  # fmt: skip
    assert [step["t"] for step in found["trial"]["steps"]] == [0.25, 0.5, 0.75]


def save_both_kinds(path):
    state = random_network("small").state_dict()
    average = {f"module.{name}": tensor / 2 for name, tensor in state.items()}
    torch.save({"params": state, "params_ema": average}, path)
    return {name: tensor / 2 for name, tensor in state.items()}


NOTE = (
    "the averaged weights (params_ema, module.) are taken, not the ordinary ones (params) that the "
    "file also has"
)


def test_inspect_shows_that_averaged_weights_are_used(tmp_path, command):
    path = tmp_path / "weights.pth"
    save_both_kinds(path)
    found = json.loads(command("inspect", path, "--json")[1])
    assert (found["averaged"], found["ordinary"]) == (True, "params")
    lines = command("inspect", path)[1].splitlines()
    assert "names       wrapped in params_ema, prefix module." in lines
    assert f"weights     {NOTE}" in lines
    assert json.loads(command("inspect", "demo", "--json")[1])["averaged"] is False
    assert not any(
        line.startswith("weights  ") for line in command("inspect", "demo")[1].splitlines()
    )


def test_convert_writes_the_averaged_weights_and_prints_a_note(tmp_path, command):
    average = save_both_kinds(tmp_path / "weights.pth")
    code, out, _ = command("convert", tmp_path / "weights.pth", tmp_path / "out.SafeTensors")
    assert code == 0
    assert (
        "  parameter names in the source: wrapped in params_ema, prefix module." in out.splitlines()
    )
    assert f"  {NOTE}" in out.splitlines()
    converted = load_checkpoint(tmp_path / "out.SafeTensors")
    assert converted.note is None
    for name, tensor in converted.network.state_dict().items():
        assert torch.equal(tensor, average[name])


def test_an_export_notes_that_averaged_weights_are_used(tmp_path, monkeypatch):
    save_both_kinds(tmp_path / "weights.pth")
    notes = []
    stages = Stages.silent()
    stages.note = notes.append

    def stop(*_):
        raise ExportError("not traced in this test")

    monkeypatch.setattr(from_checkpoint, "_trace", stop)
    with pytest.raises(ExportError, match="not traced"):
        from_checkpoint.source_from_checkpoint(
            tmp_path / "weights.pth", ExportOptions(64, 64), time_steps="midpoint", stages=stages
        )
    assert notes == [f"weights: {NOTE}"]


def test_inspect_shows_stated_published_and_measured_time_steps(tmp_path, command):
    path = tmp_path / "IFRNet_S_Vimeo90K.pth"
    torch.save(load_checkpoint("demo").network.state_dict(), path)
    code, out, _ = command("inspect", path)
    assert code == 0
    assert "IFRNet_S_Vimeo90K.pth (by its name only" in out
    assert (
        "midpoint (stated by the file: nothing; published: midpoint; found by trial: arbitrary)"
        in out
    )
    assert "the trial contradicts the time steps" in out
    assert "vimeo90k: 35.59 dB, ssim_3d 0.9786 (IFRNet, CVPR 2022" in out


def test_inspect_finds_no_contradiction_in_the_demo_weights():
    found = inspect_checkpoint("demo")
    assert (found.stated, found.published, found.trial.time_steps) == ("arbitrary",) * 3
    assert found.identity.by == "sha256"
    assert not any(line.startswith("note") for line in inspection_lines(found))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_converted_file_has_the_same_weights_and_its_origin(
    tmp_path, monkeypatch, command, dtype
):
    source, target = save_as(tmp_path / "mine.pth"), tmp_path / "mine.safetensors"
    know_hash_of(source, monkeypatch)
    code, out, _ = command("convert", source, target, "--dtype", dtype)
    assert code == 0
    assert "read back and compared with" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.pth", "mine.safetensors"]
    with safe_open(target, framework="pt") as file:
        metadata = file.metadata()
        assert {file.get_tensor(name).dtype for name in file.keys()} == {getattr(torch, dtype)}  # noqa: SIM118
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    assert metadata == {
        "format": "pt", "variant": "small", "timesteps": "midpoint", "timesteps_from": "published",
        "source": "mine.pth", "source_sha256": sha256,
    }  # fmt: skip
    wanted, found = load_checkpoint(source), load_checkpoint(target)
    assert found.identity == (wanted.identity.known, "source_sha256")
    for name, tensor in wanted.network.state_dict().items():
        rounded = tensor.to(getattr(torch, dtype)).float()
        assert torch.equal(found.network.state_dict()[name], rounded)


def test_a_file_that_is_converted_twice_keeps_its_origin(tmp_path, midpoint_checkpoint):
    first = convert_checkpoint(midpoint_checkpoint, tmp_path / "a.safetensors")
    second = convert_checkpoint(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert first.metadata == second.metadata
    assert second.metadata["timesteps_from"] == "trial"
    assert second.metadata["timesteps"] == "midpoint"
    assert first.largest_difference == second.largest_difference == 0
    third = convert_checkpoint(first.path, tmp_path / "c.safetensors", time_steps="arbitrary")
    assert load_checkpoint(third.path).time_steps == "arbitrary"
    assert third.metadata["timesteps_from"] == "user"


@pytest.mark.parametrize("option", ["--overwrite", "--force"])  # --force is the earlier name.
def test_a_conversion_replaces_a_file_only_with_overwrite(tmp_path, command, option):
    target = tmp_path / "out.safetensors"
    target.write_bytes(b"mine")
    code, _, err = command("convert", "demo", target)
    assert code == 1
    assert "exists already: replace it with --overwrite" in err
    assert target.read_bytes() == b"mine"
    assert command("convert", "demo", target, option)[0] == 0
    assert load_checkpoint(target).time_steps == "arbitrary"


def test_weights_outside_the_range_of_float16_are_refused(tmp_path):
    state = random_network("small").state_dict()
    state["encoder.pyramid1.0.0.bias"][0] = 1e5
    torch.save(state, tmp_path / "large.pth")
    with pytest.raises(
        CheckpointError, match=r"encoder\.pyramid1\.0\.0\.bias has values .*float32"
    ):
        convert_checkpoint(tmp_path / "large.pth", tmp_path / "out.safetensors", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["large.pth"]
    assert convert_checkpoint(tmp_path / "large.pth", tmp_path / "out.safetensors")


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    from ifrnet_model.weights import convert

    target = tmp_path / "out.safetensors"
    target.write_bytes(b"mine")

    def full(_state, path, _metadata):
        path.write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(convert, "save_file", full)
    with pytest.raises(CheckpointError, match=r"out\.safetensors.* exists already"):
        convert_checkpoint("demo", target)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space"):
        convert_checkpoint("demo", target, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.safetensors"]
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_pth_file_has_the_authors_form(tmp_path, midpoint_checkpoint, dtype):
    done = convert_checkpoint(midpoint_checkpoint, tmp_path / "out.pth", dtype=dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["out.pth"]
    state = torch.load(tmp_path / "out.pth", weights_only=True)
    assert type(state).__name__ == "OrderedDict"
    wanted = load_checkpoint(midpoint_checkpoint).network.state_dict()
    assert state.keys() == wanted.keys()
    assert {tensor.dtype for tensor in state.values()} == {getattr(torch, dtype)}
    for name, tensor in wanted.items():
        assert torch.equal(state[name], tensor.to(getattr(torch, dtype)))
    assert done.sha256 == hashlib.sha256((tmp_path / "out.pth").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("out.onnx", "has the suffix '.onnx': use NAME.safetensors or NAME.pth"),
        ("out", "has the suffix '': use NAME.safetensors or NAME.pth"),
        ("none/out.safetensors", "folder .* is missing"),
        (DEMO_WEIGHTS.name, "is the name of the shipped file"),
    ],
)
def test_invalid_targets_are_refused(tmp_path, target, message):
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint("demo", tmp_path / target)


@pytest.mark.parametrize("wrong", [{"dtype": "int8"}, {"time_steps": "any"}])
def test_invalid_options_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"(dtype|time_steps) is '(int8|any)': use '"):
        convert_checkpoint("demo", tmp_path / "out.safetensors", **wrong)


@pytest.mark.parametrize("arguments", [["inspect"], ["convert"]])
def test_errors_are_one_sentence_and_a_traceback_on_request(tmp_path, command, arguments):
    arguments = [*arguments, tmp_path / "none.pth"]
    if "convert" in arguments:
        arguments.append(tmp_path / "out.safetensors")
    code, out, err = command(*arguments)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "cannot be read" in err
    with pytest.raises(CheckpointError):
        __main__.main([*map(str, arguments), "--debug"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_converted_file_that_reads_back_other_weights_is_not_kept(tmp_path, monkeypatch, suffix):
    honest = convert.load_checkpoint

    def damaged(path):
        checkpoint = honest(path)
        with torch.no_grad():
            checkpoint.network.decoder1.convblock[2].bias[0] += 1
        return checkpoint

    monkeypatch.setattr(convert, "load_checkpoint", damaged)
    with pytest.raises(CheckpointError, match="has other weights when it is read back: check the"):
        convert_checkpoint("demo", tmp_path / f"made{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_sigterm_ends_a_command_like_ctrl_c():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), __main__._terminable():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_of_the_process_for_sigterm_is_kept():
    received = []

    def handler(number, _):
        received.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with __main__._terminable():
            signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
