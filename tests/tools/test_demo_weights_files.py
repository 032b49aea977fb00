"""tools/demo_weights: clips on disk, packing, and the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from demo_weights import train
from demo_weights.clips import Clip, decoded, find_clips, find_photos
from demo_weights.errors import TrainingError
from demo_weights.pack import pack, unpack
from demo_weights.store import load_store
from demo_weights.trainer import load_state
from ifrnet_model import load_checkpoint
from paths import DATA, ROOT

CPU = torch.device("cpu")
LONG = 80


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Uses one thread: on a busy machine threads wait for each other in these small layers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_clip(path: Path, frames: NDArray[np.uint8]) -> None:
    """Writes a lossless clip in FFV1."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def moving(count: int, height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Frames of a smooth, brownish image that moves by two pixels a frame."""
    grey = np.random.default_rng(seed).integers(40, 256, (6, 8, 1))
    noise = (grey * [1.0, 0.9, 0.8]).astype(np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((width + 2 * count, height), Image.BICUBIC))
    return np.stack([image[:, 2 * k : 2 * k + width] for k in range(count)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips/ with two clips, the first with a cut before its frame 12; photos/ with one photograph.

    The second clip is longer than the delay of the encoder.
    """
    folder = tmp_path_factory.mktemp("data")
    (folder / "clips").mkdir()
    (folder / "photos").mkdir()
    scenes = moving(12, 48, 64), 255 - moving(12, 48, 64, seed=1)
    write_clip(folder / "clips" / "cut.mkv", np.concatenate(scenes))
    write_clip(folder / "clips" / "walk.mkv", moving(LONG, 96, 128, seed=2))
    Image.fromarray(moving(1, 60, 80)[0]).save(folder / "photos" / "photo.png")
    return folder


def arguments(data: Path, output: Path, *more: object) -> list[str]:
    options = ["--clips", data / "clips", "--photos", data / "photos", "--output", output]
    options += ["--crop", 32, "--batch", 1, "--validation-windows", 1, "--device", "cpu"]
    return [*map(str, options), *map(str, more)]


def test_clips_are_decoded_into_one_store(data: Path) -> None:
    clips = find_clips(data / "clips")
    store = load_store(clips, find_photos(data / "photos"), device=CPU, short_side=720)
    assert store.names == ["cut", "walk", "photo"]
    assert store.cuts == [frozenset({12}), frozenset(), frozenset()]
    assert [tuple(map(int, v)) for v in (store.frames, store.heights, store.widths)] == [
        (24, LONG, 1),
        (48, 96, 60),
        (64, 128, 80),
    ]
    for item, expected in (
        (0, 255 - moving(12, 48, 64, seed=1)),
        (1, moving(LONG, 96, 128, seed=2)),
    ):
        number = store.sizes[item].frames - 2
        frame = (store.frame(item, number) * 255).round().byte()[0].permute(1, 2, 0)
        np.testing.assert_array_equal(frame.numpy(), expected[-2])


def test_large_frames_are_scaled_down(data: Path) -> None:
    clip = Clip(data / "clips" / "walk.mkv")
    frames = [frame for frame, _ in decoded(clip, 48)]
    assert frames[0].shape == (48, 64, 3)
    blocks = moving(LONG, 96, 128, seed=2)[3].reshape(48, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(frames[3] - blocks).mean() < 1.5


def test_packed_data_round_trip(data: Path, tmp_path: Path) -> None:
    clips, photos = find_clips(data / "clips"), find_photos(data / "photos")
    folder = tmp_path / "packed"
    packed = pack(clips, photos, folder, short_side=48, part_bytes=30_000)
    assert (packed.clips, packed.frames, packed.photos) == (2, 24 + LONG, 1)
    parts = sorted(folder.glob("part-*"))
    assert len(parts) == packed.parts > 1
    assert [part.stat().st_size <= 30_000 for part in parts] == [True] * len(parts)
    assert not list(folder.glob("**/*.npy"))

    target = tmp_path / "unpacked"
    target.mkdir()
    unpacked = unpack(folder, target)
    found = find_clips(unpacked[0])
    assert [(c.path.name, c.frames, c.cuts) for c in found] == [
        ("cut.mkv", 24, (12,)),
        ("walk.mkv", LONG, ()),
    ]
    assert found[0].path.read_bytes() == clips[0].path.read_bytes()
    assert find_photos(unpacked[1])[0].read_bytes() == photos[0].read_bytes()
    scaled = [frame for frame, _ in decoded(clips[1], 48)]
    again = [frame for frame, _ in decoded(found[1], 48)]
    assert len(again) == len(scaled)
    assert np.abs(np.stack(again).astype(int) - np.stack(scaled)).mean() < 2  # H.264, 4:2:0.

    parts[1].write_bytes(parts[1].read_bytes()[:-1] + b"\0")
    with pytest.raises(TrainingError, match="part-001 is missing or damaged: copy it again"):
        unpack(folder, target)


def test_the_command_packs_trains_and_records(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "packed", tmp_path / "small.safetensors"
    source = ["--clips", str(data / "clips"), "--photos", str(data / "photos")]
    train.main([*source, "--pack", str(folder)])
    assert f"av=={av.__version__}" in capsys.readouterr().out

    options = ["--crop", "32", "--batch", "2", "--validation-windows", "1", "--device", "cpu"]
    command = ["--packed", str(folder), "--output", str(output), *options]
    train.main([*command, "--steps", "3", "--held-out", "walk"])
    trained = load_checkpoint(output)
    assert trained.time_steps == "arbitrary"
    record = json.loads(output.with_suffix(".json").read_text())
    assert record["weights_sha256"] == trained.sha256 != load_checkpoint("demo").sha256
    assert record["settings"]["held_out"] == ["walk"]
    assert (record["steps"], record["device"]["type"]) == (3, "cpu")
    assert record["losses"][-1]["step"] == 3
    last = record["validations"][-1]["results"]
    assert last["middle"]["gain_db"] == pytest.approx(
        last["middle"]["psnr_db"] - last["middle"]["blending_db"]
    )
    assert [name for name in last if name != "middle"] == [f"t = {k / 8:g}" for k in range(1, 8)]


def test_a_killed_training_continues_from_its_checkpoint(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "small.safetensors"
    state = output.with_suffix(".state")
    options = arguments(data, output, "--checkpoint-seconds", 0)
    command = [sys.executable, str(ROOT / "tools" / "demo_weights" / "train.py"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--steps", "100000"], cwd=tmp_path, env=environment
    ) as process:
        deadline = time.monotonic() + 120
        while not state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    done = load_state(state)["step"]
    assert done > 0

    with pytest.raises(SystemExit, match="the checkpoint of an interrupted training: continue"):
        train.main([*options, "--steps", str(done + 2)])
    with pytest.raises(SystemExit, match=r"with motion 40\.0 and this run has 9\.0"):
        train.main([*options, "--steps", str(done + 2), "--resume", "--motion", "9"])
    train.main([*options, "--steps", str(done + 2), "--resume"])
    assert json.loads(output.with_suffix(".json").read_text())["steps"] == done + 2
    assert not state.exists()


def refused(data: Path, tmp_path: Path, *more: object) -> str:
    """Runs the command, which must fail and write nothing; returns its error."""
    output = tmp_path / "small.safetensors"
    with pytest.raises(SystemExit) as exit_:
        train.main(arguments(data, output, "--steps", 1, *more))
    assert not list(tmp_path.glob("small*"))
    message = str(exit_.value)
    assert message.startswith("train.py: ")
    assert "\n" not in message
    return message


def test_missing_requirements_of_the_machine_are_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no CUDA GPU" in refused(data, tmp_path, "--device", "cuda")
    assert "may take 0.0 GiB: raise --frames-memory" in refused(
        data, tmp_path, "--frames-memory", 0.0001
    )
    monkeypatch.setitem(sys.modules, "av", None)
    assert "PyAV cannot be imported" in refused(data, tmp_path)


def test_missing_and_unsuitable_data_are_named(data: Path, tmp_path: Path) -> None:
    empty, own = tmp_path / "empty", tmp_path / "own"
    empty.mkdir()
    own.mkdir()
    assert "holds no clip" in refused(data, tmp_path, "--clips", empty)
    assert "is not a folder" in refused(data, tmp_path, "--clips", tmp_path / "none")
    assert "holds no photograph" in refused(data, tmp_path, "--photos", empty)
    assert "there is no such clip, choose from cut, walk" in refused(
        data, tmp_path, "--held-out", "run"
    )
    assert "all clips are held out" in refused(data, tmp_path, "--held-out", "cut", "walk")
    assert "do not fit the frames of cut" in refused(data, tmp_path, "--crop", 64)
    assert "give a multiple of 16" in refused(data, tmp_path, "--crop", 40)
    assert "give auto or a whole number" in refused(data, tmp_path, "--batch", "many")
    assert "does not exist: start the training without" in refused(data, tmp_path, "--resume")
    assert "is not what --pack wrote" in refused_packed(empty, tmp_path)
    write_clip(own / "a.mkv", moving(12, 48, 64))
    write_clip(own / "short.mkv", moving(8, 48, 64))
    assert "short.mkv has 8 frames and at least 9" in refused(data, tmp_path, "--clips", own)
    (own / "short.mkv").unlink()
    (own / "b.webm").write_bytes((DATA / "invalid-bitstream.webm").read_bytes())
    assert "b.webm cannot be decoded" in refused(data, tmp_path, "--clips", own)
    (own / "b.webm").write_bytes(b"not a video")
    assert "b.webm cannot be decoded" in refused(data, tmp_path, "--clips", own)
    (own / "index.json").write_text('[{"file": "a.mkv", "frames": 11, "cuts": []}]')
    (own / "b.webm").unlink()
    write_clip(own / "b.mkv", moving(12, 48, 64))
    entries = [{"file": f"{name}.mkv", "frames": 13, "cuts": []} for name in "ab"]
    (own / "index.json").write_text(json.dumps(entries))
    assert "has 12 frames and its index declares 13" in refused(data, tmp_path, "--clips", own)
    (empty / "bad.png").write_bytes(b"not a photograph")
    assert "bad.png is not a readable photograph" in refused(data, tmp_path, "--photos", empty)


def refused_packed(folder: Path, tmp_path: Path) -> str:
    output = str(tmp_path / "small.safetensors")
    with pytest.raises(SystemExit) as exit_:
        train.main(["--packed", str(folder), "--output", output, "--steps", "1"])
    return str(exit_.value)


def test_contradicting_options_are_refused(data: Path, tmp_path: Path) -> None:
    assert "give the length of the training" in refused(data, tmp_path, "--minutes", 1)
    assert "give the data as --clips and --photos" in refused(data, tmp_path, "--packed", data)
    assert "name the file of the weights" in refused(data, tmp_path, "--output", tmp_path / "x.pth")
    assert "does not exist: create the folder" in refused(
        data, tmp_path, "--output", tmp_path / "none" / "x.safetensors"
    )
    with pytest.raises(SystemExit, match="takes --clips and --photos, not --packed"):
        train.main(["--packed", str(data), "--pack", str(tmp_path / "new")])
    with pytest.raises(SystemExit, match="is not empty: name a new folder"):
        train.main([*arguments(data, tmp_path / "x.safetensors"), "--pack", str(data)])


def test_the_batch_size_depends_on_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    free = {"bytes": 80 << 30}
    monkeypatch.setattr(train, "free_memory", lambda _: free["bytes"])
    assert train.chosen_batch("auto", 224, "bf16", gpu) == 64
    free["bytes"] = 8 << 30
    assert train.chosen_batch("auto", 224, "bf16", gpu) == 24
    free["bytes"] = 1 << 28
    with pytest.raises(TrainingError, match="too small for a crop of 224 pixels"):
        train.chosen_batch("auto", 224, "bf16", gpu)
    assert train.chosen_batch("12", 224, "bf16", gpu) == 12
