"""Files of earlier versions still open and give the same results; see data/SOURCES.md."""

from __future__ import annotations

import json
import lzma
import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from bench.quality.record import ParityRecord
from export.triton.repository import write_served_model
from fake_triton import serve
from paths import DATA
from runtime import Interpolator
from runtime.backends.onnx_format import read_onnx
from runtime.cluster.worker import ModelChoice, VideoWorker
from runtime.manifest import EngineManifest, file_sha256, manifest_path
from runtime.model_info import PROPERTY_PREFIX
from runtime.video.options import VideoOptions
from runtime.video.segments.jobs import Done
from runtime.video.segments.video import BatchOptions, Video
from video_parts import times_and_hashes

FORMATS = DATA / "formats"
WRITTEN_AT = 1_700_000_000
"""Modification time of clip.mkv in seconds, when the segments were rendered; part of their keys."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The ONNX artefact with its manifest."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(lzma.decompress((FORMATS / "model.onnx.xz").read_bytes()))
    shutil.copy(FORMATS / "model.onnx.json", path.parent)
    return path


@pytest.fixture(scope="module")
def frames():
    with np.load(FORMATS / "frames.npz") as file:
        return file["frame0"], file["frame1"], file["middle"]


def assert_within_a_level(made, expected):
    """Compares frames; another ONNX Runtime may sum in another order, which changes bytes by 1."""
    assert made.dtype == expected.dtype
    assert np.abs(made.astype(int) - expected).max() <= 1


def test_a_model_still_computes_the_same_frame(model, frames):
    frame0, frame1, middle = frames
    with Interpolator.open(model, threads=1) as vfi:
        assert vfi.backend == "onnxruntime cpu"
        assert_within_a_level(vfi.interpolate(frame0, frame1), middle)


def test_metadata_of_a_model_is_read_and_written_unchanged(model):
    onnx = pytest.importorskip("onnx")
    stored = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    ours = {key: value for key, value in stored.items() if key.startswith(PROPERTY_PREFIX)}
    assert len(ours) == 15
    assert read_onnx(model).info.to_properties() == ours


@pytest.mark.parametrize("name", ["model.onnx.json", "model.engine.json"])
def test_a_manifest_that_is_read_and_written_has_the_same_bytes(tmp_path, name):
    artefact = tmp_path / name.removesuffix(".json")
    artefact.write_bytes(b"an artefact")
    text = (FORMATS / name).read_text()
    text = text.replace(json.loads(text)["artefact_sha256"], file_sha256(artefact))
    manifest_path(artefact).write_text(text)
    EngineManifest.read(artefact).write(artefact)
    assert manifest_path(artefact).read_text() == text


def test_a_model_repository_gets_the_same_configuration(model, tmp_path):
    text_format = pytest.importorskip("google.protobuf.text_format")
    config = pytest.importorskip("tritonclient.grpc.model_config_pb2").ModelConfig
    write_served_model(model, tmp_path / "repository")
    made, expected = (
        text_format.Parse(path.read_text(), config())
        for path in (tmp_path / "repository" / "model" / "config.pbtxt", FORMATS / "config.pbtxt")
    )
    assert made == expected


def test_a_repository_of_an_earlier_version_is_served(model, frames, tmp_path, monkeypatch):
    """The repository has an old 1/model.py, which imports the current `runtime`."""
    frame0, frame1, middle = frames
    version = tmp_path / "1"
    version.mkdir()
    for file in (model, manifest_path(model)):
        shutil.copy(file, version)
    shutil.copy(FORMATS / "served_model.py", version / "model.py")
    assert_within_a_level(serve(tmp_path, frame0, frame1, monkeypatch), middle)


@pytest.mark.parametrize(
    ("folder", "reused"),
    [
        ("out.mkv.segments", False),  # Its packets have no durations, so it is rendered again.
        ("timed.mkv.segments", True),
    ],
)
def test_segments_of_an_interrupted_run_are_reused_and_joined(model, tmp_path, folder, reused):
    clip = Path(shutil.copy(FORMATS / "clip.mkv", tmp_path))
    os.utime(clip, (WRITTEN_AT, WRITTEN_AT))
    made = tmp_path / "out.mkv"
    shutil.copytree(FORMATS / folder, tmp_path / "out.mkv.segments")
    options = VideoOptions(codec="ffv1", cuts=None)
    video = Video(clip, made, BatchOptions(2, None, options, Fraction("0.15"), "0" * 64, True))
    worker = VideoWorker(ModelChoice(model, file_sha256(model), "onnxruntime", threads=1))
    jobs = video.first()
    steps = []
    while jobs:
        job = jobs.pop(0)
        steps.append(job.method)
        result = getattr(worker, job.method)(**job.arguments)
        jobs += video.after(Done(job, result, None, 0.0), "midpoint")
    rendered = [] if reused else ["render"] * 3
    assert steps == ["scan", "look", "look", "look", *rendered, "join"]
    assert video.resumed == (3 if reused else 0)
    expected = json.loads((FORMATS / "shown.json").read_text())
    written = times_and_hashes(made)
    assert [time for time, _ in written] == [Fraction(time) for time, _ in expected]
    if reused:  # Another ONNX Runtime may render frames that differ in the last bit.
        assert [digest for _, digest in written] == [digest for _, digest in expected]


def test_a_parity_record_is_resumed(tmp_path):
    path = Path(shutil.copy(FORMATS / "parity.jsonl", tmp_path))
    first, *_, last = map(json.loads, path.read_text().splitlines())
    with ParityRecord(path, first["configuration"], resume=True, overwrite=False) as record:
        assert record.done == {"frame 0", "frame 2", "frame 4"}
        record.finish(last["summary"])
    assert path.read_bytes() == (FORMATS / "parity.jsonl").read_bytes()
