"""The programs of examples/, which use our files without our runtime: `make test-examples`."""

from __future__ import annotations

import base64
import functools
import io
import json
import queue
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import chromium
from export.gate.cases import moving_frames
from paths import ROOT
from runtime import Interpolator
from runtime.backends.demo import demo_model
from runtime.manifest import file_sha256, manifest_path
from runtime.telemetry import import_quietly

pytestmark = pytest.mark.foreign

EXAMPLES = ROOT / "examples"
FOREIGN = ROOT / ".foreign"
"""Folder with the packages of npm."""


@pytest.fixture(scope="module")
def pair():
    return moving_frames(50, 70, 4.0)


@pytest.fixture
def folder(tmp_path, pair):
    """A folder with the pair as a.png and b.png, and the shipped model as model.onnx."""
    for name, frame in zip("ab", pair, strict=True):
        Image.fromarray(frame).save(tmp_path / f"{name}.png")
    model = demo_model("openvino")
    shutil.copy(model, tmp_path / "model.onnx")
    shutil.copy(manifest_path(model), tmp_path / "model.onnx.json")
    return tmp_path


def add_model(folder, path, **changes):
    """Copies a model to model.onnx, with a manifest in which some fields of "model" differ."""
    shutil.copy(path, folder / "model.onnx")
    file = folder / "model.onnx.json"
    manifest = json.loads(file.read_text())
    manifest["artefact_sha256"] = file_sha256(folder / "model.onnx")
    manifest["model"].update(changes)
    file.write_text(json.dumps(manifest))


def expected(pair, time, backend):
    """The new frame of our runtime with the shipped model."""
    options = {"precision": "fp32"} if backend == "openvino" else {}
    with Interpolator.open(demo_model("openvino"), backend=backend, threads=1, **options) as vfi:
        (frame,) = vfi.interpolate(*pair, timesteps=[time])
    return frame.astype(np.int16)


def pixels(image):
    return np.asarray(Image.open(image).convert("RGB")).astype(np.int16)


def assert_close(found, wanted, pair):
    """Fails unless only a few samples differ, by one level, and the frame is none of the two."""
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1
    assert np.count_nonzero(found - wanted) < 0.01 * found.size
    assert all(np.abs(found - frame).max() > 50 for frame in pair)


# C++


@pytest.fixture(scope="module")
def interpolate(tmp_path_factory):
    """The path of the C++ program for OpenVINO. Skips without CMake or a library."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    build = tmp_path_factory.mktemp("build")
    openvino = Path(import_quietly("openvino").__file__).parent / "cmake"
    configured = subprocess.run(
        ["cmake", "-S", EXAMPLES / "cpp", "-B", build, f"-DOpenVINO_DIR={openvino}",
         "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for missing in ("Could NOT find PNG", "Could NOT find OpenSSL", "No CMAKE_CXX_COMPILER"):
        if missing in configured.stderr:
            pytest.skip(f"CMake says: {missing}")
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(
        ["cmake", "--build", build, "--parallel", "2"], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return build / "interpolate"


def run(folder, *command):
    return subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip


FILES = ("model.onnx", "a.png", "b.png", "out.png")


@pytest.mark.parametrize("time", [0.5, 0.25])
def test_cpp_makes_the_frame_of_our_runtime(interpolate, folder, pair, time):
    done = run(folder, interpolate, *FILES, time)
    assert (done.returncode, done.stderr) == (0, "")
    assert np.array_equal(pixels(folder / "out.png"), expected(pair, time, "openvino"))


def test_cpp_pads_for_a_model_of_floats(interpolate, folder, models, pair):
    add_model(folder, models / "float.onnx")
    done = run(folder, interpolate, *FILES)
    assert (done.returncode, done.stderr) == (0, "")
    assert_close(pixels(folder / "out.png"), expected(pair, 0.5, "openvino"), pair)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (FILES[:3], "usage: MODEL FRAME0.png FRAME1.png OUTPUT.png [TIME]"),
        ((*FILES, "1"), "TIME is not between 0 and 1"),
        ((*FILES, "x"), "TIME is not a number"),
        (("model.onnx", "a.png", "small.png", "out.png"), "the frames have different sizes"),
        (("model.onnx", "tiny.png", "tiny.png", "out.png"), "the frames are smaller than 16x16 pi"),
        (("none.onnx", "a.png", "b.png", "out.png"), "none.onnx cannot be read"),
        (("model.onnx", "a.png", "model.onnx", "out.png"), "model.onnx cannot be read: "),
        (("model.onnx", "a.png", "b.png", "none/out.png"), "none/out.png cannot be written: "),
    ],
)
def test_cpp_names_what_is_wrong(interpolate, folder, arguments, message):
    for name, size in {"small": (70, 48), "tiny": (8, 8)}.items():
        Image.new("RGB", size).save(folder / f"{name}.png")
    done = run(folder, interpolate, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert not (folder / "out.png").exists()


def test_cpp_refuses_models_that_it_cannot_use(interpolate, folder, models, midpoint_model):
    def refused(*more):
        done = run(folder, interpolate, *FILES, *more)
        assert done.returncode == 1
        return done.stderr

    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    assert refused() == "model.onnx is not the file of its manifest: build it again\n"
    add_model(folder, models / "three.onnx")
    assert refused().startswith("model.onnx takes several frames at once")
    add_model(folder, models / "frames.onnx")
    Image.new("RGB", (80, 70)).save(folder / "c.png")
    done = run(folder, interpolate, "model.onnx", "c.png", "c.png", "out.png")
    assert done.stderr == "model.onnx was exported for frames of another size\n"
    add_model(folder, midpoint_model)
    assert refused("0.25") == "model.onnx knows the time 0.5 only\n"
    assert run(folder, interpolate, *FILES).returncode == 0


# JavaScript


@pytest.fixture(scope="module")
def node():
    """The command of the program for Node.js, beside the installed packages."""
    program = FOREIGN / "interpolate.mjs"
    shutil.copy(EXAMPLES / "node" / "interpolate.mjs", program)
    return ("node", program)


def test_the_packages_of_the_examples_are_those_that_are_tested():
    tested = json.loads((ROOT / "tools" / "foreign" / "package.json").read_text())["dependencies"]
    for name in ("node", "web"):
        described = json.loads((EXAMPLES / name / "package.json").read_text())
        assert described["dependencies"].items() <= tested.items()


@pytest.mark.parametrize("time", [0.5, 0.25])
def test_node_makes_the_frame_of_our_runtime(node, folder, pair, time):
    done = run(folder, *node, *FILES, time)
    assert (done.returncode, done.stderr) == (0, "")
    assert_close(pixels(folder / "out.png"), expected(pair, time, "onnxruntime"), pair)


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        (FILES[:3], {}, "usage: node interpolate.mjs MODEL.onnx FRAME0.png FRAME1.png OUTPUT.png"),
        ((*FILES, "1"), {}, "TIME is not between 0 and 1"),
        (("model.onnx", "a.png", "small.png", "out.png"), {}, "the frames have different sizes"),
        (FILES, {"io": "float"}, "model.onnx takes floats: export it without --io float"),
        (FILES, {"steps_per_call": 3}, "model.onnx takes several frames at once"),
        (FILES, {"height": 50, "width": 72}, "model.onnx was exported for 50x72 frames"),
        ((*FILES, "0.25"), {"time_steps": "midpoint"}, "model.onnx knows the time 0.5 only"),
    ],
)
def test_node_names_what_is_wrong(node, folder, arguments, changes, message):
    Image.new("RGB", (70, 48)).save(folder / "small.png")
    add_model(folder, demo_model("openvino"), **changes)
    done = run(folder, *node, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert not (folder / "out.png").exists()


def test_node_refuses_a_file_that_is_not_that_of_its_manifest(node, folder):
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    done = run(folder, *node, *FILES)
    assert done.returncode == 1
    assert done.stderr == "model.onnx is not the file of its manifest: build it again\n"


# The page in a browser

REPORT = """<script>
const tell = () => {
  const [status, save] = ["status", "save"].map((id) => document.getElementById(id));
  const found = { status: status.textContent, image: save.hidden ? null : save.href };
  fetch("/result", { method: "POST", body: JSON.stringify(found) });
};
const all = { subtree: true, childList: true, attributes: true };
new MutationObserver(tell).observe(document.body, all);
</script>"""


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and puts what the page shows into `results` of the server."""

    def do_POST(self):
        self.server.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def browse(folder):
    """Opens the page in Chromium; returns the first result that `done` accepts."""
    page = (EXAMPLES / "web" / "index.html").read_text() + REPORT
    (folder / "index.html").write_text(page)
    (folder / "node_modules").symlink_to(FOREIGN / "node_modules")
    handler = functools.partial(Handler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.results = queue.Queue()
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def browse(query, done):
            command = [
                *chromium(), f"--user-data-dir={folder / 'profile'}",
                f"http://127.0.0.1:{server.server_port}/index.html?{query}",
            ]  # fmt: skip
            with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log) as one:
                try:
                    while not done(found := server.results.get(timeout=120)):
                        pass
                    return found
                finally:
                    one.terminate()

        yield browse
        server.shutdown()


def shown(found):
    """The pixels of a result of the page."""
    _, _, content = found["image"].partition("data:image/png;base64,")
    return pixels(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize("time", [0.5, 0.25])
def test_the_page_shows_the_frame_of_our_runtime(browse, folder, pair, time):
    found = browse(f"first=a.png&second=b.png&time={time}", lambda result: result["image"])
    assert found["status"].startswith(f"Time {time}, computed in ")
    assert_close(shown(found), expected(pair, time, "onnxruntime"), pair)


def test_the_page_shows_the_images_at_both_ends(browse, folder, pair):
    for time, frame in zip((0, 1), pair, strict=True):
        found = browse(f"first=a.png&second=b.png&time={time}", lambda result: result["image"])
        assert np.array_equal(shown(found), frame)


@pytest.mark.parametrize(
    ("query", "remove", "message"),
    [
        ("first=a.png&second=small.png", (), "The images have different sizes."),
        ("first=a.png&second=b.png", ("model.onnx",), "model.onnx"),
        ("first=a.png&second=log", (), "decoded"),
    ],
)
def test_the_page_says_what_is_wrong(browse, folder, query, remove, message):
    Image.new("RGB", (70, 48)).save(folder / "small.png")
    for name in remove:
        (folder / name).unlink()
    found = browse(query, lambda result: message in result["status"])
    assert found["image"] is None
