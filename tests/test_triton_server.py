"""A real Triton server with its Python backend: `make test-triton`; see tools/triton_server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands import run_module
from export.gate.cases import moving_frames
from export.store import write_artefact, write_onnx
from export.triton.repository import Serving, write_served_model
from runtime import BackendError, FrameError, Interpolator, ModelError

pytestmark = pytest.mark.triton

MEMORY = ["", "?shared_memory=system"]
SIZE = {"height": 50, "width": 70}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A tritonserver process, in its own process group."""

    def __init__(self, repository: Path, log: Path, *options: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        port = self.address.rpartition(":")[2]
        environment = {**os.environ, "LD_LIBRARY_PATH": os.environ["TRITON_LIBRARIES"]}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        # The server's Python imports this checkout, as an installed package would be.
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        self.log = log
        with log.open("w") as said:
            self.process = subprocess.Popen(
                [
                    os.environ["TRITON_SERVER"], "--model-repository", str(repository),
                    "--backend-directory", os.environ["TRITON_BACKENDS"],
                    "--grpc-address", "127.0.0.1", "--grpc-port", port,
                    "--allow-http", "false", "--allow-metrics", "false", *options,
                ],
                env=environment, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip

    def url(self, model: str, more: str = "") -> str:
        return f"triton://{self.address}/{model}{more}"

    def wait(self) -> Server:
        import tritonclient.grpc as grpc

        ends = time.monotonic() + 120
        with grpc.InferenceServerClient(self.address) as client:
            while time.monotonic() < ends and self.process.poll() is None:
                try:
                    if client.is_server_ready():
                        return self
                except grpc.InferenceServerException:
                    pass
                time.sleep(0.2)
        self.stop()
        raise AssertionError(f"the server does not start:\n{self.log.read_text()[-3000:]}")

    def stop(self, kind: signal.Signals = signal.SIGINT) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, kind)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory, export: Any) -> Path:
    """Artefacts: small (frames), planes (float), several (free pairs), three (steps), OpenVINO."""
    folder = tmp_path_factory.mktemp("artefacts")
    for name, options in {
        "small": SIZE,
        "planes": {"height": 64, "width": 80, "io": "float"},
        "several": {**SIZE, "max_batch": 4},
        "three": {**SIZE, "timesteps": 3},
        "pair": {**SIZE, "batch": 2},
        "any": {"height": 64, "width": 80, "dynamic": True},
    }.items():
        write_onnx(export(**options).model, folder / f"{name}.onnx")
    checked = export(**SIZE)
    write_artefact(
        checked._replace(backend="openvino"), folder / "ov.onnx", started=time.perf_counter()
    )
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, artefacts: Path) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("triton")
    for path in sorted(artefacts.glob("*.onnx")):
        serving = Serving(backend="python", threads=1, queue_delay_us=300_000)
        write_served_model(path, folder / "repository", serving=serving)
    running = Server(folder / "repository", folder / "log").wait()
    yield running
    running.stop()


@pytest.fixture
def local(artefacts: Path) -> Callable[[str], Interpolator]:
    """Opens an artefact in this process with the options that the server uses."""
    return lambda name: Interpolator.open(artefacts / f"{name}.onnx", threads=1)


def frames_of(name: str, seed: int = 0) -> tuple[Any, Any]:
    return moving_frames(*((64, 80) if name == "planes" else (50, 70)), 4.0, seed=seed)


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("name", ["small", "planes", "several", "three", "pair", "any", "ov"])
def test_a_served_model_equals_the_model_in_process_bit_for_bit(
    server: Server, local: Callable[[str], Interpolator], name: str, memory: str
) -> None:
    frames = frames_of(name)
    steps = [0.25, 0.5, 0.75]
    with local(name) as here, Interpolator.open(server.url(name, memory)) as there:
        expected = here.interpolate(*frames, timesteps=steps)
        made = there.interpolate(*frames, timesteps=steps)
        assert there.info == here.info
        assert there.backend.startswith("triton 2.")
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.flags.writeable  # The caller owns the array.


@pytest.mark.parametrize("memory", MEMORY)
def test_a_stream_equals_that_in_process_and_frees_its_shared_memory(
    server: Server, local: Callable[[str], Interpolator], memory: str
) -> None:
    clip = [frames_of("small", seed=k)[k % 2] for k in range(6)]
    with local("small") as here:
        expected = list(here.stream(clip, factor=4))
    with Interpolator.open(server.url("small", memory)) as there:
        made = list(there.stream(clip, factor=4))
        slots = list(Path("/dev/shm").glob(f"ifrnet-{os.getpid()}-*"))
        assert bool(slots) == bool(memory)
        assert len(slots) < 3 * 6  # Fewer than frames: slots are reused.
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not list(Path("/dev/shm").glob(f"ifrnet-{os.getpid()}-*"))


def test_requests_of_several_clients_are_batched(
    server: Server, local: Callable[[str], Interpolator]
) -> None:
    import tritonclient.grpc as grpc

    def executions() -> tuple[int, int]:
        with grpc.InferenceServerClient(server.address) as client:
            stats = client.get_inference_statistics("several").model_stats[0]
            return stats.inference_count, stats.execution_count

    pairs = [frames_of("several", seed=k) for k in range(4)]
    with local("several") as here:
        expected = [here.interpolate(*two) for two in pairs]
    before = executions()
    together = threading.Barrier(4)

    def client(two: tuple[Any, Any]) -> Any:
        with Interpolator.open(server.url("several")) as there:
            together.wait(60)
            return there.interpolate(*two)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(client, pairs))
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    ends = time.monotonic() + 30
    while executions()[0] < before[0] + 4 and time.monotonic() < ends:
        time.sleep(0.1)  # The server updates its statistics after it has answered.
    made_count, executed = (b - a for a, b in zip(before, executions(), strict=True))
    assert made_count == 4
    assert executed < 4


def test_several_threads_share_one_client(
    server: Server, local: Callable[[str], Interpolator]
) -> None:
    pairs = [frames_of("small", seed=k) for k in range(4)]
    with local("small") as here:
        expected = [here.interpolate(*two) for two in pairs]
    with (
        Interpolator.open(server.url("small", MEMORY[1])) as there,
        ThreadPoolExecutor(4) as pool,
    ):
        made = list(pool.map(lambda two: there.interpolate(*two), pairs * 3))
    for one, other in zip(made, expected * 3, strict=True):
        np.testing.assert_array_equal(one, other)


def test_recursion_through_the_server_equals_recursion_in_process(
    tmp_path: Path, midpoint_model: Path, frames: Any
) -> None:
    write_served_model(
        midpoint_model, tmp_path / "repository", serving=Serving(backend="python", threads=1)
    )
    server = Server(tmp_path / "repository", tmp_path / "log").wait()
    try:
        with Interpolator.open(midpoint_model, threads=1) as here:
            expected = here.interpolate(*frames, timesteps=[0.25, 0.5, 0.75])
        for memory in MEMORY:
            with Interpolator.open(server.url("midpoint", memory)) as there:
                made = there.interpolate(*frames, timesteps=[0.25, 0.5, 0.75])
            for one, other in zip(made, expected, strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        server.stop()


def test_a_served_model_writes_the_same_video(
    server: Server, artefacts: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    for number, frame in enumerate((*frames_of("small"), frames_of("small")[0])):
        Image.fromarray(frame).save(pictures / f"{number:03d}.png")
    done = {}
    for name, model in {
        "served": server.url("small", MEMORY[1]),
        "local": artefacts / "small.onnx",
    }.items():
        one = ["--threads", 1] if name == "local" else []
        ended = run_module("runtime", pictures, tmp_path / name, "--model", model, *one)
        assert ended.returncode == 0, ended.stderr
        done[name] = [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]
    assert len(done["local"]) >= 5
    assert done["served"] == done["local"]


def test_errors_name_the_model_the_version_or_the_server(server: Server) -> None:
    with pytest.raises(BackendError, match=r"does not serve nothing, it has any, ov, pair"):
        Interpolator.open(server.url("nothing"))
    with pytest.raises(BackendError, match=r"does not serve small version 7"):
        Interpolator.open(server.url("small/7"))
    with Interpolator.open(server.url("small/1")) as there:
        wrong = np.zeros((32, 32, 3), np.uint8)
        with pytest.raises(FrameError, match="this model takes 50x70 only"):
            there.interpolate(wrong, wrong)
        there.close()
        with pytest.raises(BackendError, match="the model is closed"):
            there.interpolate(*frames_of("small"))
    with pytest.raises(BackendError, match=r"no Triton server answers at 127\.0\.0\.1:1 "):
        Interpolator.open("triton://127.0.0.1:1/small")


@pytest.mark.parametrize("memory", MEMORY)
def test_a_server_that_dies_raises_an_error_instead_of_blocking(
    tmp_path: Path, artefacts: Path, memory: str
) -> None:
    write_served_model(
        artefacts / "small.onnx", tmp_path / "repository", serving=Serving(backend="python")
    )
    server = Server(tmp_path / "repository", tmp_path / "log").wait()
    try:
        with Interpolator.open(server.url("small", memory)) as there:
            there.interpolate(*frames_of("small"))
            server.stop(signal.SIGKILL)
            with pytest.raises(BackendError, match="no Triton server answers at"):
                there.interpolate(*frames_of("small", seed=1))
    finally:
        server.stop()
    assert not list(Path("/dev/shm").glob(f"ifrnet-{os.getpid()}-*"))


def test_the_error_of_a_failing_model_is_in_the_message(tmp_path: Path, artefacts: Path) -> None:
    write_served_model(
        artefacts / "any.onnx", tmp_path / "repository", serving=Serving(backend="python")
    )
    server = Server(tmp_path / "repository", tmp_path / "log").wait()
    try:
        with Interpolator.open(server.url("any")) as there:
            there.interpolate(*frames_of("any"))
            # Bypasses the client's checks.
            one, other = (
                there._backend.put(np.zeros((1, side, side, 3), np.uint8)) for side in (32, 64)
            )
            (image,) = there._backend.submit([(one, other)], np.full((1, 1, 1, 1), 0.5, np.float32))
            with pytest.raises(BackendError, match=r"refused a request to any \(.*failed"):
                there._backend.download(image)()
            there.interpolate(*frames_of("any"))  # The model still works.
    finally:
        server.stop()


def test_a_new_version_takes_over_without_a_restart(tmp_path: Path, artefacts: Path) -> None:
    repository = tmp_path / "repository"
    write_served_model(artefacts / "small.onnx", repository, serving=Serving(backend="python"))
    server = Server(
        repository, tmp_path / "log", "--model-control-mode", "poll", "--repository-poll-secs", "1"
    ).wait()
    try:
        write_served_model(
            artefacts / "small.onnx", repository, version=2, serving=Serving(backend="python")
        )
        ends = time.monotonic() + 60
        while True:
            try:
                with Interpolator.open(server.url("small/2")) as there:
                    there.interpolate(*frames_of("small"))
                break
            except BackendError:
                assert time.monotonic() < ends, server.log.read_text()[-2000:]
                time.sleep(0.3)
        with Interpolator.open(server.url("small")) as there:
            there.interpolate(*frames_of("small"))
    finally:
        server.stop()


@pytest.mark.parametrize("name", ["small", "several", "three", "any"])
def test_a_repository_for_onnx_runtime_lacks_only_the_backend(
    tmp_path: Path, artefacts: Path, name: str
) -> None:
    """This server has no ONNX Runtime backend: that must be its only complaint."""
    serving = Serving(warm_up=(64, 80) if name == "any" else None)
    write_served_model(artefacts / f"{name}.onnx", tmp_path / "repository", serving=serving)
    server = Server(
        tmp_path / "repository", tmp_path / "log", "--exit-on-error", "false",
        "--strict-readiness", "false",
    ).wait()  # fmt: skip
    try:
        with pytest.raises(BackendError, match="no model that is ready"):
            Interpolator.open(server.url(name))
    finally:
        server.stop()
    said = server.log.read_text()
    assert f"failed to load '{name}'" in said
    assert "unable to find backend library for backend 'onnxruntime'" in said


def test_a_model_of_another_project_is_refused(tmp_path: Path, artefacts: Path) -> None:
    folder = write_served_model(
        artefacts / "small.onnx", tmp_path / "repository", serving=Serving(backend="python")
    )
    config = folder / "config.pbtxt"
    lines = config.read_text().replace('key: "ifrnet.variant"', 'key: "their.variant"')
    config.write_text(lines)
    server = Server(tmp_path / "repository", tmp_path / "log").wait()
    try:
        with pytest.raises(ModelError, match=r"missing or unknown fields \(variant\)"):
            Interpolator.open(server.url("small"))
    finally:
        server.stop()
