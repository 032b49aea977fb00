"""What ONNX Runtime needs for its CUDA provider: a driver, CUDA's libraries, and its options.

ONNX Runtime itself goes on with the CPU where the provider does not load, and tells the reason to
its log alone. The libraries come with NVIDIA's packages, which PyTorch for CUDA brings too.
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
"""By `sys.platform`; the one that every ONNX Runtime with `preload_dlls` is built for."""

_NOT_LOADED = re.compile(r"Failed to load (.+?): ")
"""What `preload_dlls` prints, with the name or the path of a library."""

_CUDA_FAILURE = re.compile(r"\b(?:CUDA|CUDNN|CUBLAS)\w* failure \d+: [^;\n]*[^;\n ]")


class Missing(NamedTuple):
    """Why the CUDA provider cannot run here, and what to do."""

    what: str
    remedy: str


def missing_for_cuda(ort: Any, driver: GpuDriver, device: int = 0) -> Missing | None:
    """What the CUDA provider lacks on this machine; loads the libraries that it has.

    Args:
        ort: The module onnxruntime, built with the provider.
        driver: What the driver says.
        device: Index of the GPU.
    """
    if driver.problem:
        return Missing(driver.problem, "install an NVIDIA driver, or use device='cpu'")
    if device >= len(driver.gpus):
        names = ", ".join(f"cuda:{k} {gpu.name}" for k, gpu in enumerate(driver.gpus))
        return Missing(f"the driver sees {names}", "use one of these")
    built_for = getattr(ort, "cuda_version", "").partition(".")[0]
    if built_for and driver.cuda_version and _major(driver.cuda_version) < int(built_for):
        return Missing(
            f"onnxruntime-gpu {ort.__version__} needs CUDA {built_for}, the driver has "
            f"{driver.cuda_version}",
            f"update the driver, or install an onnxruntime-gpu for CUDA "
            f"{_major(driver.cuda_version)}",
        )
    if missing := load_libraries(ort):
        return Missing(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not found",
            f"pip install 'onnxruntime-gpu[cuda,cudnn]=={ort.__version__}', "
            f"or install PyTorch for CUDA {built_for}",
        )
    return None


def load_libraries(ort: Any) -> list[str]:
    """Loads the libraries of CUDA and cuDNN for ONNX Runtime, which then finds them by name.

    Its own `preload_dlls` looks beside ONNX Runtime and where the system looks. The folders of
    NVIDIA's packages elsewhere, for example beside a PyTorch in another folder of packages, are
    given to it one by one; nothing of PyTorch is imported.

    Returns:
        The libraries that it needs and that do not load. Nothing is known, and none returned, of
        ONNX Runtime before 1.21, which has no `preload_dlls`, and of a build that does not tell
        its version of CUDA, for which that does nothing.
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
    """One call of `preload_dlls`; returns what does not load after it."""
    said = io.StringIO()
    # It prints what it has not found yet, and standard output may carry a program's result.
    with contextlib.redirect_stdout(said):
        ort.preload_dlls(directory=None if folder is None else str(folder))
    # A library that is printed may have been found at the second try. cuDNN is not printed by
    # versions that run without it; convolutions do not.
    printed = [Path(name).name for name in _NOT_LOADED.findall(said.getvalue())]
    cudnn = [_CUDNN[sys.platform]] if sys.platform in _CUDNN else []
    return [name for name in dict.fromkeys([*printed, *cudnn]) if not loads_library(name)]


def _library_folders() -> Iterator[Path]:
    """Where the packages of NVIDIA (nvidia-cublas, nvidia-cudnn-cu13, ...) have their libraries."""
    found = importlib.util.find_spec("nvidia")
    for place in (found and found.submodule_search_locations) or ():
        yield from sorted(folder for folder in Path(place).glob("*/lib") if folder.is_dir())


def provider_options(device: int, info: ModelInfo) -> dict[str, str]:
    """The options of the CUDA provider for a model.

    Those that are not here have their documented defaults: no other is known to pay before it is
    measured on a GPU.
    """
    options = {"device_id": str(device)}
    if info.precision != "fp16":
        # On by default: from Ampere on, float32 convolutions would round their inputs to 10 bits of
        # mantissa. Not with float16, though: switching TF32 off takes the tensor cores from every
        # convolution, and fp16 models have none in float32.
        options["use_tf32"] = "0"
    return options


def cuda_failure(error: Exception) -> str | None:
    """The call of CUDA, cuDNN or cuBLAS that failed, out of a message of ONNX Runtime."""
    found = _CUDA_FAILURE.search(str(error))
    return found.group() if found else None


def reason(error: Exception) -> str:
    """What went wrong, in a line out of the many of ONNX Runtime."""
    return cuda_failure(error) or first_line(error)


def why_not_loaded(ort: Any) -> str | None:
    """Why the provider's library did not load, after a session without it.

    A session tells its log alone. Registering the library as a plugin fails for the same reason and
    raises an error (since ONNX Runtime 1.22).
    """
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not hasattr(ort, "register_execution_provider_library") or not library.is_file():
        return None
    try:
        ort.register_execution_provider_library(PROVIDER, str(library))
    except Exception as error:  # ONNX Runtime's classes share no base but this one.
        return cuda_failure(error) or str(error).strip().rpartition("with error: ")[2]
    ort.unregister_execution_provider_library(PROVIDER)
    return None


def _major(version: str) -> int:
    return int(version.partition(".")[0])
