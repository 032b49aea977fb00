"""Fixtures that several files share: networks, exported models, engines and frames."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest
from filelock import FileLock
from numpy.typing import NDArray

import gpu_fakes
from commands import need_torch
from export.candidate import CheckedModel
from export.gate.cases import moving_frames
from export.source import SourceGraph, source_from_model
from export.store import write_onnx
from export.trt.build import BuildOptions
from export.trt.engine import EngineRequest, target_at, write_engine
from runtime.manifest import manifest_path

if TYPE_CHECKING:
    from onnx import ModelProto
    from torch import nn

    from export.wrapper import ExportOptions
    from ifrnet_model import IFRNet

# The tests that need a GPU run where there is neither PyTorch nor hypothesis.
with contextlib.suppress(ImportError):
    from hypothesis import settings

    # No deadline: machines differ. CI always runs the same examples, so that a failure recurs.
    settings.register_profile("ours", deadline=None, derandomize="CI" in os.environ)
    settings.load_profile("ours")

# A shell makes its background jobs ignore SIGINT, and processes that tests start inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


Frames = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Export = Callable[..., CheckedModel]
TracedOnce = Callable[[], contextlib.AbstractContextManager[None]]
Made = TypeVar("Made")
Once = Callable[[str, Callable[[], Made]], Made]


LONGEST = (
    "docs/test_commands.py",
    "tools/test_gpu_check_fakes.py",
    "runtime/cluster/test_cluster.py",
    "export/test_tta.py",
    "export/test_to_onnx.py",
    "bench/test_latency.py",
    "export/graph/test_for_tensorrt.py",
    "export/trt/test_engine.py",
    "runtime/backends/trt/test_backend.py",
    "runtime/video/reading/test_seeking.py",
    "bench/quality/test_parity.py",
    "runtime/backends/trt/test_execution.py",
    "runtime/backends/ov/test_backend.py",
    "tools/test_fuzz.py",
    "export/graph/test_passes.py",
    "tools/test_gpu_check_process.py",
)
"""The slowest files. They run first, so that none is still running when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the files of LONGEST to the front; the others keep their order."""
    order = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gives the tests their own cache of compiled models instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def _only_new_garbage() -> None:
    """Frees what earlier files left; then makes collections skip what is still in use.

    PyTorch's objects alone make each collection take 0.5 s.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def demo_network() -> IFRNet:
    need_torch()
    from ifrnet_model import load_checkpoint

    return load_checkpoint("demo").network


@pytest.fixture(scope="session")
def midpoint_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo weights, changed to ignore the time step, as the Vimeo90K weights do."""
    need_torch()
    import torch

    from ifrnet_model import load_checkpoint

    state = load_checkpoint("demo").network.state_dict()
    weight = state["decoder4.convblock.0.0.weight"]
    state["decoder4.convblock.0.0.bias"] += 0.5 * weight[:, -1].sum((1, 2))
    weight[:, -1] = 0
    path = tmp_path_factory.mktemp("weights") / "blind.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once[Any]:
    """`once(name, make)` calls `make` once for all workers of this run and stores the result.

    An export takes seconds. IFRNET_TEST_EXPORTS names a folder that several runs share, also runs
    without PyTorch.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # The folder that the workers of this run share.
    folder = Path(os.environ.get("IFRNET_TEST_EXPORTS", folder))

    def once(name: str, make: Callable[[], Any]) -> Any:
        kind = "trace" if name.startswith("trace ") else "once"
        digest = hashlib.sha256(name.encode()).hexdigest()
        kept = folder / f"{kind}-{digest}"
        with FileLock(folder / f"lock-{digest}"):
            if not kept.exists():
                new = folder / f"new-{digest}"
                new.write_bytes(pickle.dumps(make()))
                new.replace(kept)
        return pickle.loads(kept.read_bytes())  # Written by this project's tests.

    return once


@pytest.fixture(scope="session")
def traced_once(once: Once[ModelProto]) -> TracedOnce:
    """`with traced_once():` traces equal networks with equal options once, in all workers.

    A trace takes 4 s, and 20 s if the size is free. Not for tests that change the code that is
    traced.
    """

    @contextlib.contextmanager
    def traced_once() -> Iterator[None]:
        need_torch()
        from export import from_checkpoint

        real = from_checkpoint._trace

        def trace(module: nn.Module, options: ExportOptions) -> ModelProto:
            digest = hashlib.sha256(repr(options).encode())
            for name, tensor in module.state_dict().items():
                digest.update(name.encode() + tensor.numpy().tobytes())
            return once(f"trace {digest.hexdigest()}", lambda: real(module, options))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(from_checkpoint, "_trace", trace)
            yield

    return traced_once


@pytest.fixture(scope="session")
def export(once: Once[CheckedModel], traced_once: TracedOnce) -> Export:
    """`export(weights="demo", **ExportOptions)`; each combination is exported once."""

    def exported(weights: str | Path, options: dict[str, object]) -> CheckedModel:
        with traced_once():
            from export.from_checkpoint import checked_from_checkpoint
            from export.wrapper import ExportOptions

            return checked_from_checkpoint(weights, ExportOptions(**options))  # type: ignore[arg-type]

    def export(weights: str | Path = "demo", **options: object) -> CheckedModel:
        return once(
            f"{weights_key(weights)} {sorted(options.items())}", lambda: exported(weights, options)
        )

    return export


def weights_key(weights: str | Path) -> str:
    """A key for weights that is the same in every worker: the SHA-256 of a file, or a name."""
    path = Path(weights)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(weights)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, export: Export) -> Iterator[Path]:
    """A folder with small models: frames.onnx, float.onnx, three.onnx and dynamic.onnx."""
    folder = tmp_path_factory.mktemp("models")
    for name, options in {
        "frames": {"height": 50, "width": 70},
        "float": {"height": 64, "width": 80, "io": "float"},
        "three": {"height": 50, "width": 70, "timesteps": 3},
        "dynamic": {"height": 64, "width": 80, "dynamic": True},
    }.items():
        write_onnx(export(**options).model, folder / f"{name}.onnx")
    return folder


@pytest.fixture(scope="session")
def midpoint_model(
    tmp_path_factory: pytest.TempPathFactory, midpoint_checkpoint: Path, export: Export
) -> Path:
    path = tmp_path_factory.mktemp("midpoint") / "midpoint.onnx"
    write_onnx(export(midpoint_checkpoint, height=50, width=70).model, path)
    return path


GRAPHS: dict[str, dict[str, object]] = {
    "frames": {},
    "fp16": {"precision": "fp16"},
    "float": {"height": 48, "width": 64, "io": "float"},
    "three": {"timesteps": 3},
    "batch": {"batch": 2},
    "dynamic": {"height": 64, "width": 80, "dynamic": True},
    "free pairs": {"max_batch": 3},
}


class Sources(dict[str, SourceGraph]):
    """The graphs from which engines are built, by name: those of GRAPHS, and "midpoint".

    Each is exported when it is first asked for.
    """

    def __init__(self, export: Export, midpoint: Path) -> None:
        self._export, self._midpoint = export, midpoint

    def __missing__(self, name: str) -> SourceGraph:
        weights = self._midpoint if name == "midpoint" else "demo"
        options = {} if name == "midpoint" else GRAPHS[name]
        checked = self._export(weights, **{"height": 50, "width": 70, **options})
        self[name] = source_from_model(checked.model, checked.info, checked.onnx_sha256)
        return self[name]


@pytest.fixture(scope="session")
def sources(midpoint_checkpoint: Path, export: Export) -> Sources:
    return Sources(export, midpoint_checkpoint)


@pytest.fixture(params=gpu_fakes.VERSIONS)
def trt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The fake `tensorrt` of each generation, on a simulated machine with a GPU."""
    with gpu_fakes.machine(request.param, monkeypatch) as module:
        yield module


@pytest.fixture
def trt8(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The fake TensorRT 8.6, on a simulated machine with a GPU."""
    with gpu_fakes.machine("8.6.0", monkeypatch) as module:
        yield module


@pytest.fixture
def trt10(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The fake TensorRT 10.3, on a simulated machine with a GPU."""
    with gpu_fakes.machine("10.3.0", monkeypatch) as module:
        yield module


@pytest.fixture(scope="session")
def built_engines() -> dict[object, tuple[bytes, bytes]]:
    """(engine, manifest) by TensorRT version, graph and options: each is built once a session."""
    return {}


@pytest.fixture
def engine(
    tmp_path: Path,
    sources: Sources,
    built_engines: dict[object, tuple[bytes, bytes]],
) -> Callable[..., Path]:
    """Builds an engine from one of `sources` with the fake TensorRT of the test."""

    def build(graph: str = "frames", **options: object) -> Path:
        path = tmp_path / f"{graph}.engine"
        target = target_at(0)
        key = (target.trt.__version__, graph, *sorted(options.items()))
        if key not in built_engines:
            request = EngineRequest(BuildOptions(**options), command="rebuild it")  # type: ignore[arg-type]
            write_engine(target, sources[graph], path, request)
            built_engines[key] = path.read_bytes(), manifest_path(path).read_bytes()
        for file, content in zip((path, manifest_path(path)), built_engines[key], strict=True):
            file.write_bytes(content)
        return path

    return build


@pytest.fixture
def frames() -> Frames:
    """Two 50x70 frames that move by four pixels."""
    return moving_frames(50, 70, 4.0)
