"""Requirements and options of ONNX Runtime's CUDA provider: the driver, and CUDA's libraries.

If the provider does not load, ONNX Runtime uses the CPU and reports the reason in its log only. The
libraries are in NVIDIA's packages, which PyTorch for CUDA installs too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from runtime.errors import first_line
from runtime.machine import GpuDriver, loads_library
from runtime.model_info import ModelInfo

PROVIDER = "CUDAExecutionProvider"

_CUDNN = {"linux": "libcudnn.so.9", "win32": "cudnn64_9.dll"}
"""`sys.platform` -> the cuDNN that every ONNX Runtime with `preload_dlls` is built for."""

_NOT_LOADED = re.compile(r"Failed to load (.+?): ")
"""Matches the output of `preload_dlls` for a library that fails, with its name or path."""

_CUDA_FAILURE = re.compile(r"\b(?:CUDA|CUDNN|CUBLAS)\w* failure \d+: [^;\n]*[^;\n ]")


class ProviderProblem(NamedTuple):
    """Why the CUDA provider cannot run on this machine, and what to do."""

    problem: str
    remedy: str


def cuda_provider_problem(ort: Any, driver: GpuDriver, device: int = 0) -> ProviderProblem | None:
    """Checks whether the CUDA provider can run, and loads the libraries of CUDA.

    Args:
        ort: The module onnxruntime, built with the provider.
        driver: The GPUs that the driver reports.
        device: Index of the GPU.

    Returns:
        The first problem; None if the provider can run.
    """
    if driver.problem:
        return ProviderProblem(driver.problem, "install an NVIDIA driver, or use device='cpu'")
    if device >= len(driver.gpus):
        names = ", ".join(f"cuda:{k} {gpu.name}" for k, gpu in enumerate(driver.gpus))
        return ProviderProblem(f"the driver sees {names}", "use one of these")
    built_for = getattr(ort, "cuda_version", "").partition(".")[0]
    if built_for and driver.cuda_version and _major(driver.cuda_version) < int(built_for):
        return ProviderProblem(
            f"onnxruntime-gpu {ort.__version__} needs CUDA {built_for}, the driver has "
            f"{driver.cuda_version}",
            f"update the driver, or install an onnxruntime-gpu for CUDA "
            f"{_major(driver.cuda_version)}",
        )
    if missing := load_libraries(ort):
        return ProviderProblem(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not found",
            f"pip install 'onnxruntime-gpu[cuda,cudnn]=={ort.__version__}', "
            f"or install PyTorch for CUDA {built_for}",
        )
    return None


def load_libraries(ort: Any) -> list[str]:
    """Loads the libraries of CUDA and cuDNN, which ONNX Runtime then finds by name.

    `preload_dlls` of ONNX Runtime searches beside ONNX Runtime and the paths of the system. It is
    called again with each folder of NVIDIA's packages, which may be elsewhere, for example beside
    a PyTorch in another folder of packages; PyTorch is not imported.

    Returns:
        Names of the libraries that ONNX Runtime needs and that do not load. Always empty for ONNX
        Runtime before 1.21, which has no `preload_dlls`, and for builds without a CUDA version,
        for which `preload_dlls` does nothing.
    """
    if not hasattr(ort, "preload_dlls") or not getattr(ort, "cuda_version", ""):
        return []
    missing = _preload(ort)
    for folder in _library_folders():
        if not missing:
            break
        missing = _preload(ort, folder)
    return missing


def _preload(ort: Any, folder: Path | None = None) -> list[str]:
    """Calls `preload_dlls` once; returns the names of the libraries that still do not load."""
    output = io.StringIO()
    # It prints to standard output, which may carry the result of a program.
    with contextlib.redirect_stdout(output):
        ort.preload_dlls(directory=None if folder is None else str(folder))
    # A library in the output may have loaded at a second attempt. Versions that run without cuDNN
    # do not print it, but convolutions need it.
    printed = [Path(name).name for name in _NOT_LOADED.findall(output.getvalue())]
    cudnn = [_CUDNN[sys.platform]] if sys.platform in _CUDNN else []
    return [name for name in dict.fromkeys([*printed, *cudnn]) if not loads_library(name)]


def _library_folders() -> Iterator[Path]:
    """The library folders of NVIDIA's packages (nvidia-cublas, nvidia-cudnn-cu13, ...)."""
    spec = importlib.util.find_spec("nvidia")
    for location in (spec and spec.submodule_search_locations) or ():
        yield from sorted(folder for folder in Path(location).glob("*/lib") if folder.is_dir())


def provider_options(device: int, info: ModelInfo) -> dict[str, str]:
    """The options of the CUDA provider for a model.

    All other options keep their documented defaults until a measurement on a GPU shows a gain.
    """
    options = {"device_id": str(device)}
    if info.precision != "fp16":
        # TF32 is on by default: from Ampere on, float32 convolutions would round their inputs to 10
        # bits of mantissa. Not changed for fp16 models, which have no float32 convolution: without
        # TF32 no convolution uses tensor cores.
        options["use_tf32"] = "0"
    return options


def cuda_failure(error: Exception) -> str | None:
    """The failed call of CUDA, cuDNN or cuBLAS in a message of ONNX Runtime; None without one."""
    match = _CUDA_FAILURE.search(str(error))
    return match.group() if match else None


def reason(error: Exception) -> str:
    """The failed call of CUDA in an error of ONNX Runtime, else the first line of its message."""
    return cuda_failure(error) or first_line(error)


def why_not_loaded(ort: Any) -> str | None:
    """Why the library of the provider did not load, after a session without it; None if unknown.

    A session reports the reason in its log only. Registering the library as a plugin fails for the
    same reason and raises an error (since ONNX Runtime 1.22).
    """
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not hasattr(ort, "register_execution_provider_library") or not library.is_file():
        return None
    try:
        ort.register_execution_provider_library(PROVIDER, str(library))
    except Exception as error:  # ONNX Runtime's errors have no other base class.
        return cuda_failure(error) or str(error).strip().rpartition("with error: ")[2]
    ort.unregister_execution_provider_library(PROVIDER)
    return None


def _major(version: str) -> int:
    return int(version.partition(".")[0])
