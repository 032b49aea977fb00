"""Use of a model after a fork is refused; real backends, each in its own process."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PROGRAM = """
import os, signal, sys, warnings
import numpy as np
from runtime import BackendError, Interpolator, PairRequest
from runtime.live import Live

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork with threads.
model, backend, end = sys.argv[1:]
frames = np.random.default_rng(0).integers(0, 256, (4, 50, 70, 3), np.uint8)
vfi = Interpolator.open(model, backend=backend, threads=2)
expected = vfi.interpolate(*frames[:2])
stream, live = vfi.stream(iter(frames)), vfi.live()
next(stream), next(stream), live.push(0, frames[0])

def refused(call):
    try:
        call()
    except BackendError as error:
        wanted = (
            f"this Interpolator was opened in process {parent}, this is process {os.getpid()}, "
            "which was forked from it: open it in this process"
        )
        assert str(error) == wanted, error
    else:
        raise AssertionError("it was not refused")

parent = os.getpid()
child = os.fork()
if child == 0:
    signal.alarm(60)
    refused(lambda: vfi.interpolate(*frames[:2]))
    refused(lambda: list(stream))
    refused(lambda: list(vfi.interpolate_each([PairRequest(*frames[:2], (0.5,))])))
    refused(lambda: live.push(1, frames[1]))
    assert len(live.reset()) == 1
    assert vfi.info.size == (50, 70) and vfi.backend.startswith(backend)
    with Interpolator.open(model, backend=backend, threads=2) as own:
        assert np.array_equal(own.interpolate(*frames[:2]), expected)
    if end == "close":
        vfi.close()
        vfi.close()
    elif end == "with":
        with vfi:
            pass
    elif end == "delete":
        del vfi, stream, live, refused
    sys.exit(0)  # Frees the objects of all modules.
_, status = os.waitpid(child, 0)
assert status == 0, status
assert np.array_equal(vfi.interpolate(*frames[:2]), expected)  # The parent goes on.
assert len(list(stream)) == 5
vfi.close()
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("end", ["close", "with", "delete", "exit"])
def test_a_model_is_not_used_in_a_forked_process(models, backend, end):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, models / "frames.onnx", backend, end],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def test_a_pool_of_processes_gets_the_error(models):
    program = (
        "import multiprocessing, sys, warnings; import numpy as np\n"
        "from runtime import Interpolator\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "vfi = Interpolator.open(sys.argv[1], backend='openvino')\n"
        "frame = np.zeros((50, 70, 3), np.uint8)\n"
        "def work(_):\n"
        "    try: vfi.interpolate(frame, frame)\n"
        "    except Exception as error: return str(error)\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool: print(*pool.map(work, [1, 2]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, models / "frames.onnx"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("which was forked from it: open it in this process") == 2
