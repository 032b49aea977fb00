"""tools/soak.py: growth is recognised, and a short run is flat."""

import json
import mmap
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import soak
from commands import need_torch
from paths import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


def test_growth_of_memory_files_threads_and_other_results_is_recognised(tmp_path):
    kept = []

    def leak_memory(_):
        kept.append(mmap.mmap(-1, 2 << 20))
        kept[-1].write(b"x" * (2 << 20))
        return True

    def leak_file(_):
        kept.append((tmp_path / "f").open("w"))
        return True

    def leak_thread(_):
        end = threading.Event()
        threading.Thread(target=end.wait).start()
        kept.append(end)
        return True

    good = soak.repeated("good", 100, lambda _: True)
    assert good.is_flat
    assert (good.count, good.different, good.descriptors, good.threads) == (100, 0, 0, 0)
    memory = soak.repeated("memory", 100, leak_memory)
    assert memory.growth_mib > 60
    assert not memory.is_flat
    kept.clear()
    files = soak.repeated("files", 50, leak_file)
    assert files.descriptors > 30
    assert not files.is_flat
    for file in kept:
        file.close()
    kept.clear()
    threads = soak.repeated("threads", 50, leak_thread)
    assert threads.threads > 30
    assert not threads.is_flat
    for end in kept:
        end.set()
    other = soak.repeated("other", 50, lambda number: number != 7)
    assert other.different == 1
    assert not other.is_flat


def test_a_short_run_is_flat(tmp_path):
    """Runs in a process of its own: that of the tests has used and freed gigabytes."""
    need_torch()
    path = tmp_path / "soak.json"
    counts = ["--inferences", "40", "--openings", "10", "--videos", "20", "--json", str(path)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "soak.py"), *counts],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(path.read_text())
    assert [step["name"] for step in record["steps"]] == [
        *(
            f"{backend}: {kind}"
            for backend in soak.BACKENDS
            for kind in ("inferences", "inferences in 8 threads", "openings")
        ),
        "videos",
    ]
    assert all(step["different"] == 0 for step in record["steps"])
