"""No package that this project imports sends telemetry or writes identifiers of the machine."""

import ast
import json
import os
import subprocess
import sys

import pytest

from paths import ROOT
from runtime.telemetry import import_quietly

QUIET = {"onnxruntime", "openvino"}
"""Packages whose import starts telemetry. Ray sends telemetry from the clusters that it starts."""

FOLDERS = ("runtime", "export", "bench", "tools", "tests")

RECORDER = """
import os, socket
def refuse(host, *args, **kwargs):
    if host not in (None, "localhost"):
        with open(os.environ["LOOKED_UP"], "a") as file:
            file.write(f"{host}\\n")
    raise socket.gaierror(socket.EAI_NONAME, "no names in this test")
for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    setattr(socket, name, refuse)
"""

RUN = """
import sys
import numpy as np
from runtime import Interpolator
with Interpolator.open(sys.argv[1], backend=sys.argv[2]) as vfi:
    vfi.interpolate(*np.zeros((2, 50, 70, 3), np.uint8))
"""

WAIT = """
import os, time
end = time.monotonic() + 10
while not os.path.exists(os.environ["LOOKED_UP"]) and time.monotonic() < end:
    time.sleep(0.02)
"""
"""Waits for the lookup: OpenVINO does it in a fork, which Python 3.12 refuses at exit."""


def environment(tmp_path, **more):
    """The environment of a new user: an empty home folder, and a record of all DNS lookups."""
    (tmp_path / "home").mkdir()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(RECORDER)  # Also in child processes.
    paths = [tmp_path / "site", ROOT, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, paths))),
        "LOOKED_UP": str(tmp_path / "looked up"),
        **more,
    }


def traces(tmp_path):
    """Files in the home folder except our own cache, and the host names looked up."""
    home, names = tmp_path / "home", tmp_path / "looked up"
    own = home / ".cache" / "ifrnet-deploy"
    return {
        *(str(p.relative_to(home)) for p in home.rglob("*") if not {p, *p.parents} & {own}),
        *(names.read_text().split() if names.exists() else ()),
    } - {".cache"}


def run(tmp_path, *arguments, **more):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True, text=True, cwd=tmp_path, env=environment(tmp_path, **more),
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return traces(tmp_path)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_pair_leaves_no_trace(models, tmp_path, backend):
    assert run(tmp_path, "-c", RUN, models / "frames.onnx", backend) == set()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_build_leaves_no_trace(models, tmp_path, backend):
    build = ("-m", "export.build_engine", "--onnx", models / "frames.onnx", "--backend", backend)
    assert run(tmp_path, *build, "--output", tmp_path / "made.onnx") == set()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_cold_start_leaves_no_trace(models, tmp_path, backend):
    request = {
        "model": str(models / "frames.onnx"),
        "backend": backend,
        "options": {},
        "size": [50, 70],
        "factor": 2,
    }
    assert run(tmp_path, "-m", "bench.harness.cold_start", json.dumps(request)) == set()


def test_the_doctor_leaves_no_trace(tmp_path):
    assert run(tmp_path, "-m", "runtime.doctor") == set()


def test_traces_of_a_plain_import_are_found(tmp_path):
    """A plain import of OpenVINO looks up a host name in another thread and process."""
    pytest.importorskip("openvino_telemetry")
    found = run(tmp_path, "-c", f"import openvino\n{WAIT}")
    assert {"intel", "intel/openvino_ga_cid", "www.google-analytics.com"} <= found


def test_telemetry_that_the_user_has_chosen_is_kept(tmp_path):
    pytest.importorskip("openvino_telemetry")
    code = (
        "import os, sys, openvino_telemetry\n"
        "from runtime.telemetry import import_quietly\n"
        "import_quietly('onnxruntime')\n"
        "import_quietly('openvino')\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'\n"
        "assert sys.modules['openvino_telemetry'] is openvino_telemetry\n"
    )
    found = run(tmp_path, "-c", code + WAIT, ORT_DISABLE_TELEMETRY="0")
    assert {"intel/openvino_ga_cid", "www.google-analytics.com"} <= found


def test_openvino_telemetry_can_be_imported_afterwards(tmp_path):
    pytest.importorskip("openvino_telemetry")
    code = (
        "from runtime.telemetry import import_quietly\n"
        "import_quietly('openvino')\n"
        "import openvino_telemetry\n"
    )
    assert run(tmp_path, "-c", code) == set()


@pytest.mark.parametrize(("chosen", "expected"), [(None, False), ("1", True), ("0", False)])
def test_ray_reports_usage_only_if_the_user_has_chosen_it(monkeypatch, chosen, expected):
    ray = pytest.importorskip("ray")
    try:
        from ray._common.usage.usage_lib import usage_stats_enabled
    except ModuleNotFoundError:  # The place in older versions.
        from ray._private.usage.usage_lib import usage_stats_enabled

    from runtime.cluster.pool import ClusterError, connected

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", chosen or "")
    if chosen is None:
        monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    seen = []

    def init(address, **options):
        seen.append(usage_stats_enabled())
        raise RuntimeError("no cluster is started here")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ClusterError), connected("local"):
        pass
    assert seen == [expected]


def imports(path):
    """The packages with telemetry that a file imports, by a statement or by importlib."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "importlib.import_module", "import_module", "__import__", "pytest.importorskip",
        }:  # fmt: skip
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
        yield from {str(name).partition(".")[0] for name in names} & QUIET


@pytest.mark.parametrize("folder", FOLDERS)
def test_packages_with_telemetry_are_imported_quietly(folder):
    paths = list((ROOT / folder).rglob("*.py"))
    assert paths
    assert [(str(path), name) for path in paths for name in imports(path)] == []


def test_other_modules_are_imported_normally(monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert import_quietly("json") is json
    with pytest.raises(ImportError, match="no_such_module"):
        import_quietly("no_such_module")
    assert "ORT_DISABLE_TELEMETRY" not in os.environ
