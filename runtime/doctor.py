"""Reports which backends run on this machine, and what to install for the others.

python -m runtime.doctor --measure
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from runtime.backends.demo import DEMO, demo_model
from runtime.backends.ort.cuda_provider import PROVIDER, ProviderProblem, cuda_provider_problem
from runtime.backends.trt.engine import import_tensorrt
from runtime.cli.command import command_parser, run_command
from runtime.errors import BackendError, ModelError, counted, first_line, install_command
from runtime.files import written_beside
from runtime.machine import (
    GpuDriver,
    available_cpus,
    cpu_name,
    gpu_driver,
    installed_versions,
)
from runtime.telemetry import import_quietly

_INSTALL_NUMPY = "pip install numpy"
_PROG = "python -m runtime.doctor"

_TYPES = ("FP32", "BF16", "FP16", "INT8")
"""The capabilities of a CPU in OpenVINO's list that are types of numbers."""


@dataclass(frozen=True)
class BackendState:
    """Whether a backend runs on this machine.

    Attributes:
        name: Backend and device, for example "onnxruntime cpu".
        ready: Whether it runs.
        detail: Its version where it is ready, otherwise the problem.
        remedy: What to do about the problem; None where it is ready.
    """

    name: str
    ready: bool
    detail: str
    remedy: str | None = None


def backend_states(
    versions: dict[str, str],
    driver: GpuDriver,
    providers: Sequence[str],
    tensorrt_problem: str | None = None,
    openvino_problem: str | None = None,
    cuda_problem: ProviderProblem | None = None,
) -> Iterator[BackendState]:
    """The state of each backend, in a fixed order.

    Args:
        versions: Installed packages and their versions.
        driver: The GPUs that the NVIDIA driver reports.
        providers: Execution providers of ONNX Runtime.
        tensorrt_problem: Why TensorRT does not load; None if it loads or was not tried.
        openvino_problem: Why OpenVINO does not load; None if it loads or was not tried.
        cuda_problem: Why ONNX Runtime's CUDA provider cannot run; None if it can or is missing.
    """
    both = {"onnxruntime", "onnxruntime-gpu"} <= versions.keys()
    version = versions.get("onnxruntime-gpu") or versions.get("onnxruntime")
    conflict = (
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
        "pip uninstall onnxruntime onnxruntime-gpu, then install one of them"
    )
    for device, provider, extra in (
        ("cpu", "CPUExecutionProvider", "cpu"),
        ("cuda", PROVIDER, "gpu"),
    ):
        name = f"onnxruntime {device}"
        if both:
            yield BackendState(name, False, "two packages in one folder", conflict)
        elif provider not in providers:
            problem = f"{version} without {provider}" if version else "not installed"
            first = "pip uninstall onnxruntime, then " if version else ""
            yield BackendState(name, False, problem, f"{first}{install_command(extra)}")
        elif device == "cuda" and cuda_problem is not None:
            yield BackendState(name, False, cuda_problem.problem, cuda_problem.remedy)
        else:
            yield BackendState(name, True, f"{version}, {provider}")
    yield _openvino_state(versions, openvino_problem)
    yield _tensorrt_state(versions, driver, tensorrt_problem)


def _openvino_state(versions: dict[str, str], problem: str | None) -> BackendState:
    install = install_command("openvino")
    if "openvino" not in versions:
        return BackendState("openvino cpu", False, "not installed", install)
    if problem is not None:
        return BackendState("openvino cpu", False, problem, f"repair the installation: {install}")
    return BackendState("openvino cpu", True, versions["openvino"])


def _tensorrt_state(
    versions: dict[str, str], driver: GpuDriver, problem: str | None
) -> BackendState:
    version = versions.get("tensorrt")
    install = install_command("tensorrt")
    if driver.problem:
        remedy = "install an NVIDIA driver, or use onnxruntime"
        return BackendState("tensorrt", False, driver.problem, remedy)
    if version is None:
        jetson = "; on a Jetson, apt install python3-libnvinfer"
        return BackendState("tensorrt", False, "not installed", install + jetson)
    if "cuda-bindings" not in versions:
        remedy = "pip install cuda-bindings of the driver's CUDA version"
        return BackendState("tensorrt", False, f"{version} without cuda-bindings", remedy)
    if problem is not None:
        return BackendState("tensorrt", False, problem, f"repair the installation: {install}")
    names = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in driver.gpus)
    return BackendState("tensorrt", True, f"{version}, {names}")


def _tensorrt_problem(versions: dict[str, str], driver: GpuDriver) -> str | None:
    """Why TensorRT does not load; None if it does, or without a driver (loading would crash)."""
    if driver.problem or "tensorrt" not in versions:
        return None
    try:
        import_tensorrt()
    except BackendError as error:
        return str(error)
    return None


def _onnxruntime(
    versions: dict[str, str], driver: GpuDriver
) -> tuple[list[str], ProviderProblem | None]:
    """The execution providers of ONNX Runtime, and why its CUDA provider cannot run."""
    if not {"onnxruntime", "onnxruntime-gpu"} & versions.keys():
        return [], None
    try:
        ort = import_quietly("onnxruntime")
        providers: list[str] = ort.get_available_providers()
    except (ImportError, AttributeError):  # A half-removed installation raises these.
        return [], None
    return providers, cuda_provider_problem(ort, driver) if PROVIDER in providers else None


def _openvino(versions: dict[str, str]) -> tuple[list[str], str | None]:
    """The precisions that OpenVINO can compute in on this CPU, and why it does not load."""
    if "openvino" not in versions:
        return [], None
    from runtime.backends.ov.compilation import capabilities, import_openvino

    try:
        return capabilities(import_openvino())[1], None
    except (BackendError, RuntimeError) as error:
        return [], str(error)


def _shipped_precision(openvino_types: Sequence[str]) -> dict[str, str | None] | None:
    """The precision of the shipped model in OpenVINO and a note; None if OpenVINO does not run."""
    if not openvino_types:
        return None
    from runtime.backends.onnx_format import read_onnx
    from runtime.backends.ov.automatic import automatic_precision
    from runtime.backends.ov.compilation import import_openvino

    path = demo_model("openvino")
    try:
        return automatic_precision(import_openvino(), read_onnx(path))._asdict()
    except (ModelError, OSError):  # A program that embeds the runtime may leave the models out.
        return None


def _numpy_problem() -> str | None:
    """Why NumPy, which every backend needs, does not load; None if it does."""
    try:
        importlib.import_module("numpy")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "numpy"
        return "not installed" if missing else first_line(error)
    return None


def _without_numpy(state: BackendState, versions: dict[str, str]) -> BackendState:
    """The state of a backend where NumPy is missing: not ready, if the backend is installed."""
    package = state.name.split()[0]
    if not {package, f"{package}-gpu"} & versions.keys():
        return state
    return replace(state, ready=False, detail="needs NumPy", remedy=_INSTALL_NUMPY)


def examine() -> dict[str, Any]:
    """Examines the machine; returns the object that --json writes, without the trial."""
    versions, driver = installed_versions(), gpu_driver()
    if numpy_problem := _numpy_problem():
        openvino_types: list[str] = []
        providers: list[str] = []
        states = [_without_numpy(state, versions) for state in backend_states(versions, driver, [])]
    else:
        providers, cuda_problem = _onnxruntime(versions, driver)
        problem = _tensorrt_problem(versions, driver)
        openvino_types, openvino_problem = _openvino(versions)
        states = list(
            backend_states(versions, driver, providers, problem, openvino_problem, cuda_problem)
        )
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "processor": cpu_name(),
        "processors": available_cpus(),
        "versions": versions,
        "gpu": asdict(driver),
        "numpy_problem": numpy_problem,
        "providers": providers,
        "backends": [asdict(state) for state in states],
        "openvino_computes_in": openvino_types,
        "shipped_model": _shipped_precision(openvino_types),
        "recommended": recommendation(states, openvino_types),
        "video": "av" in versions,
    }


def recommendation(states: Sequence[BackendState], openvino_types: Sequence[str]) -> str:
    """The backend to use on this CPU, as text.

    Args:
        states: The states of all backends.
        openvino_types: OpenVINO's names of the types that the CPU computes in.
    """
    ready = {state.name for state in states if state.ready}
    if "openvino cpu" not in ready:
        if "onnxruntime cpu" not in ready:
            return "none, because no backend is ready"
        return f"onnxruntime (OpenVINO may be faster: {install_command('openvino')})"
    lower = next((name.lower() for name in ("BF16", "FP16") if name in openvino_types), None)
    if lower is None:
        return "openvino, in fp32 (onnxruntime may be as fast: compare them with --measure)"
    return (
        f"openvino, which computes in {lower} if the model's manifest proves {lower} for this CPU, "
        "and otherwise in fp32"
    )


def _row(name: str, text: str) -> str:
    """A line of the report: a name, or "" for a further line of the last one, and its value."""
    return f"{name:17} {text}"


def _report_lines(report: dict[str, Any]) -> Iterator[str]:
    """The result of `examine` as text."""
    yield _row("platform", f"{report['platform']}, Python {report['python']}")
    yield _row("CPU", f"{report['processor']}, {counted(report['processors'], 'usable core')}")
    driver = report["gpu"]
    for gpu in driver["gpus"]:
        yield _row(
            "GPU",
            f"{gpu['name']}, compute capability {gpu['compute_capability']}, "
            f"driver for CUDA {driver['cuda_version']}",
        )
    if driver["problem"]:
        yield _row("GPU", f"none: {driver['problem']}")
    installed = ", ".join(f"{name} {v}" for name, v in report["versions"].items())
    yield _row("packages", installed or "none")
    if report["numpy_problem"]:
        yield _row("numpy", f"not ready: {report['numpy_problem']}")
        yield _row("", f"-> {_INSTALL_NUMPY}")
    for state in report["backends"]:
        verdict = "ready" if state["ready"] else "not ready"
        yield _row(state["name"], f"{verdict}: {state['detail']}")
        if state["remedy"]:
            yield _row("", f"-> {state['remedy']}")
        if state["name"] == "openvino cpu":
            yield from _openvino_lines(report)
    for trial in report.get("trial", []):
        yield _row(
            trial["name"],
            f"{trial['milliseconds']:.0f} ms per pair of {trial['size']} frames, the fastest of "
            f"{counted(trial['pairs'], 'pair')}",
        )
    if not report["video"]:
        yield _row("video files", "not ready: PyAV is not installed")
        yield _row("", f"-> {install_command('video')}")
    else:
        yield _row("video files", f"ready: PyAV {report['versions']['av']}")
    yield f"recommended on this CPU: {report['recommended']}"
    yield (
        "recommended for frames above 1920x1080: a model built with --flow-scale 0.5, which was "
        "3.5 times as fast at 4K on a CPU and lost at most 0.7 dB of PSNR"
    )


def _openvino_lines(report: dict[str, Any]) -> Iterator[str]:
    types = [name.lower() for name in report["openvino_computes_in"] if name in _TYPES]
    if types:
        yield _row("", f"computes in {', '.join(types)} on this CPU")
    if shipped := report["shipped_model"]:
        yield _row("", f"computes the shipped model in {shipped['precision']}")
        if shipped["note"]:
            yield _row("", shipped["note"])


def _doctor(args: argparse.Namespace) -> int:
    if args.model is not None and not args.measure:
        raise ModelError("--model was given without --measure: give both")
    report = examine()
    if args.measure:
        from runtime.backend_trial import time_backends

        trials = time_backends(args.model or DEMO, report["openvino_computes_in"])
        report["trial"] = [asdict(trial) for trial in trials]
        report["recommended"] = f"{trials[0].name}, the fastest of those measured"
    text = json.dumps(report, indent=2)
    print(text if args.json == "-" else "\n".join(_report_lines(report)))
    if args.json not in (None, "-"):
        with written_beside(Path(args.json)) as temporary:
            temporary.write_text(text + "\n")
    return 0 if any(state["ready"] for state in report["backends"]) else 1


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Reports which backends run on this machine, and what to install for the others.",
        "%(prog)s",
        "%(prog)s --measure",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="also time a pair of frames in each backend on the CPU, which takes about 5 s in all",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="MODEL",
        help="artefact to time with --measure, an ONNX file (default demo, the shipped model)",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write the report as JSON; without FILE, print JSON instead of text",
    )
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """The command line; exits with 1 if no backend runs."""
    run_command(make_parser(prog), _doctor, extra="cpu", argv=argv)


if __name__ == "__main__":
    main()
