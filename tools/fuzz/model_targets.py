"""Artefacts, manifests, metadata, ONNX files and cached models."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from fuzz.mutate import TEXTS, mutated, mutated_json
from fuzz.outcomes import Target, WrongResultError
from runtime import Interpolator
from runtime.backends.onnx_format import read_onnx, read_self_contained
from runtime.errors import InterpolationError
from runtime.files import SHIPPED_MODELS
from runtime.manifest import EngineManifest, backend_in_manifest, manifest_path
from runtime.model_info import ModelInfo

_FRAMES = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), np.uint8)


class _Artefact(NamedTuple):
    path: Path
    content: bytes
    manifest: Any
    result: Any


def _prepare(folder: Path, backend: str = "onnxruntime") -> _Artefact:
    shipped = SHIPPED_MODELS / f"demo_{backend}.onnx"
    path = folder / "model.onnx"
    shutil.copy(shipped, path)
    shutil.copy(manifest_path(shipped), manifest_path(path))
    options: dict[str, Any] = {"cache": "none"} if backend == "openvino" else {}
    with Interpolator.open(path, backend=backend, threads=1, **options) as vfi:
        result = vfi.interpolate(*_FRAMES)
    return _Artefact(path, path.read_bytes(), json.loads(manifest_path(path).read_bytes()), result)


def _onnx_file(made: _Artefact, rng: Random) -> None:
    """A mutated ONNX file without a manifest: its content and its metadata."""
    manifest_path(made.path).unlink(missing_ok=True)
    made.path.write_bytes(mutated(rng, made.content))
    read_self_contained(made.path)
    read_onnx(made.path)


def _artefact(made: _Artefact, rng: Random) -> None:
    """A mutated ONNX file beside its manifest, or a mutated manifest beside its ONNX file."""
    content, manifest = made.content, json.dumps(made.manifest).encode()
    if rng.random() < 0.5:
        content = mutated(rng, content)
    else:
        manifest = mutated_json(rng, made.manifest)
    made.path.write_bytes(content)
    manifest_path(made.path).write_bytes(manifest)
    with Interpolator.open(made.path, backend="onnxruntime", threads=1) as vfi:
        result = vfi.interpolate(*_FRAMES)
    if not np.array_equal(result, made.result):
        raise WrongResultError("an artefact with another content than its manifest was opened")


def _manifest(made: _Artefact, rng: Random) -> None:
    made.path.write_bytes(b"model")
    good = {**made.manifest, "artefact_sha256": hashlib.sha256(b"model").hexdigest()}
    manifest_path(made.path).write_bytes(mutated_json(rng, good))
    backend_in_manifest(made.path)
    EngineManifest.read(made.path)


def _metadata(made: _Artefact, rng: Random) -> None:
    properties = ModelInfo(**made.manifest["model"]).to_properties()
    for name in rng.sample(sorted(properties), rng.randint(1, 3)):
        if rng.random() < 0.2:
            del properties[name]
        else:
            properties[name] = rng.choice(TEXTS)
    info = ModelInfo.from_properties(properties, source="model.onnx")
    info.ports()


def _prepare_cache(folder: Path) -> _Artefact:
    return _prepare(folder, "openvino")


def _cached(made: _Artefact, rng: Random) -> None:
    """A mutated compiled model in OpenVINO's cache must be compiled again."""
    cache = made.path.parent / "cache"
    opening: dict[str, Any] = {"backend": "openvino", "cache": cache, "threads": 1}
    with Interpolator.open(made.path, **opening) as vfi:
        vfi.interpolate(*_FRAMES)
    for blob in cache.iterdir():
        blob.write_bytes(mutated(rng, blob.read_bytes()))
    try:
        with Interpolator.open(made.path, **opening) as vfi:
            result = vfi.interpolate(*_FRAMES)
    except InterpolationError as error:
        raise WrongResultError(f"a damaged cache is an error: {error}") from error
    if not np.array_equal(result, made.result):
        raise WrongResultError("a damaged compiled model was used")


TARGETS = (
    Target("ONNX file", _prepare, _onnx_file, weight=3),
    Target("artefact", _prepare, _artefact),
    Target("manifest", _prepare, _manifest, weight=3),
    Target("metadata", _prepare, _metadata),
    Target("compiled model in the cache", _prepare_cache, _cached, weight=0.15),
)
