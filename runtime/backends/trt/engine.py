"""A deserialised TensorRT engine, and the checks before it is loaded."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from runtime.backends.registry import installed_backend
from runtime.errors import BackendError, ModelError, install_command
from runtime.machine import Gpu, gpu_driver
from runtime.manifest import EngineBuild, EngineManifest
from runtime.model_info import ModelInfo

_NEXT_GENERATION = {8: 10, 10: 11}
"""Major version of TensorRT that built a version-compatible engine -> the next one that loads it.
NVIDIA documents 8 -> 10 and 10 -> 11; each removed interfaces, so 8 -> 11 is not supported."""

_SHOWN_ERRORS = 3
"""Number of TensorRT's errors in a message; the first ones name the cause."""

_STORED_ERRORS = 100
"""Number of TensorRT's latest errors that the logger stores."""


def import_tensorrt() -> Any:
    """Imports the module `tensorrt`; call it only where there is a driver, or its classes crash.

    Raises:
        BackendError: If it is not installed or does not load.
    """
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(
            f"TensorRT cannot be imported ({error}): {install_command('tensorrt')}, "
            "or on a Jetson use the system's own tensorrt"
        ) from error


def gpu_at(device: int) -> Gpu:
    """The GPU with this index, as the driver (not TensorRT) reports it.

    Raises:
        BackendError: If there is no driver or no such GPU.
    """
    driver = gpu_driver()
    if driver.problem:
        raise BackendError(
            f"TensorRT needs an NVIDIA GPU, and {driver.problem}: build for the CPU with python -m "
            f"export.build_engine --backend {installed_backend()}"
        )
    if device >= len(driver.gpus):
        names = ", ".join(f"cuda:{k} {gpu.name}" for k, gpu in enumerate(driver.gpus))
        raise BackendError(
            f"device cuda:{device} was asked for, the driver sees {names}: use one of these"
        )
    return driver.gpus[device]


_log: tuple[Any, Any] | None = None


def logger_for(trt: Any) -> Any:
    """The logger of the process for TensorRT, which uses the first logger and warns of others.

    Its method `take_errors()` returns the errors that were reported since the last call.
    """
    global _log
    if _log is not None and _log[0] is trt:
        return _log[1]

    class Log(trt.ILogger):  # type: ignore[misc]  # the module is not known before it is loaded
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self._errors.append(msg.strip())
                del self._errors[:-_STORED_ERRORS]

        def take_errors(self) -> list[str]:
            taken, self._errors = self._errors, []
            return taken

    _log = trt, Log()
    return _log[1]


def checked_manifest(path: Path, version: str, gpu: Gpu) -> EngineManifest:
    """Reads the manifest of an engine, and checks that the engine fits TensorRT and the GPU.

    Args:
        path: Path of the engine.
        version: Version of the installed TensorRT.
        gpu: The GPU to run it on.

    Raises:
        ModelError: If the manifest is missing or belongs to another file, or the engine needs
            another TensorRT or another GPU; the message has the command that builds it again.
    """
    manifest = EngineManifest.read(path)
    build = manifest.engine
    if manifest.backend != "tensorrt" or build is None:
        raise ModelError(f"{path} is for {manifest.backend}, not for TensorRT: use its own backend")
    problem = _incompatibility(build, version, gpu)
    if problem:
        raise ModelError(f"{path} {problem}: build it here with {build.command}")
    return manifest


def _incompatibility(build: EngineBuild, version: str, gpu: Gpu) -> str | None:
    """Why an engine does not run on this TensorRT and GPU, as a predicate; None if it does."""
    here = f"{gpu.name} ({gpu.compute_capability})"
    if build.portable:
        installed, built = (_numbers(v) for v in (version, build.tensorrt))
        later = _NEXT_GENERATION.get(built[0])
        if installed < built or installed[0] not in (built[0], later):
            releases = f"{built[0]}.x" + (f" and {later}.x" if later else "")
            return (
                f"was built with TensorRT {build.tensorrt} and is portable to later {releases}, "
                f"here is {version}"
            )
        # None: built before this was recorded, when every portable engine ran on any GPU.
        if build.any_gpu is not False:
            if _numbers(gpu.compute_capability) < (8, 0):
                return f"is portable to GPUs from compute capability 8.0 on, here is {here}"
            return None
    elif version != build.tensorrt:
        return f"was built with TensorRT {build.tensorrt}, here is {version}"
    if (gpu.name, gpu.compute_capability) != (build.gpu, build.compute_capability):
        return f"was built for {build.gpu} ({build.compute_capability}), here is {here}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


class Engine:
    """A deserialised engine, with the runtime and the logger that must outlive it.

    Args:
        plan: The serialised engine.
        info: Metadata of the model, from the manifest.
        portable: Whether the engine is version-compatible.

    Attributes:
        version: Version of TensorRT.
        limits: Smallest and largest shape of an image, without the batch axis; None if the size is
            fixed.
        best: The shape that the engine is optimised for, without the batch axis; None if the size
            is fixed.

    Raises:
        ModelError: If TensorRT cannot load it, or it does not have the inputs and the output of
            `info`.
        BackendError: If TensorRT cannot be imported.
    """

    def __init__(self, plan: bytes, info: ModelInfo, *, portable: bool) -> None:
        trt = import_tensorrt()
        self.version: str = trt.__version__
        self._trt = trt
        self._log = logger_for(trt)
        self._log.take_errors()  # Drops the errors of earlier calls.
        self._runtime = trt.Runtime(self._log)
        if portable:
            # A version-compatible plan contains the code of its own runtime.
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ModelError(
                f"TensorRT {self.version} cannot load the engine{self.error_suffix()}: build it "
                "again"
            )
        self._check_interface(info)
        self.limits: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self.best: tuple[int, ...] | None = None
        self._has_profile = info.size is None or info.max_pairs is not None
        if info.size is None:
            low, best, high = (
                tuple(shape)[1:] for shape in self._engine.get_tensor_profile_shape("img0", 0)
            )
            self.limits, self.best = (low, high), best

    @property
    def handle(self) -> Any:
        """TensorRT's ICudaEngine."""
        return self._engine

    def context(self, stream: int) -> Any:
        """Creates an execution context and selects the engine's profile, if it has one.

        Before TensorRT 10 only the first context has a selected profile when it is created.

        Args:
            stream: Handle of the stream on which the profile is selected.

        Raises:
            BackendError: If there is no memory for the context, or another context uses the profile
                and the engine cannot share it.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise BackendError(
                f"TensorRT could not create an execution context{self.error_suffix()}: use fewer "
                "streams, or free memory on the GPU"
            )
        if self._has_profile and not context.set_optimization_profile_async(0, stream):
            raise BackendError(
                "TensorRT uses the engine's only profile in another context already: build the "
                "engine again with this version of ifrnet-deploy, or use one stream"
            )
        return context

    def layers(self) -> str:
        """The engine inspector's information on the layers, as JSON."""
        inspector = self._engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text

    def error_suffix(self) -> str:
        """The errors that TensorRT reported since the last call, as " (...)"; "" if none."""
        errors = self._log.take_errors()
        return f" ({'; '.join(errors[:_SHOWN_ERRORS])})" if errors else ""

    def close(self) -> None:
        """Frees the engine, then the runtime; call it after the contexts are freed."""
        self._engine = None
        self._runtime = None

    def _check_interface(self, info: ModelInfo) -> None:
        """Checks that the engine has the inputs and the output that its manifest declares."""
        engine, dtypes = self._engine, self._trt.DataType
        names_of_dtypes = {"uint8": "UINT8", "float32": "FLOAT"}
        declared = {
            name: (getattr(dtypes, names_of_dtypes[port.dtype]), port.dims)
            for name, port in info.ports().items()
        }
        names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        actual = {
            name: (engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name)))
            for name in names
        }

        def fits(name: str) -> bool:
            (dtype, shape), (declared_dtype, dims) = actual[name], declared[name]
            # Where sizes are free, TensorRT may report any axis that depends on them as free.
            free = (-1,) if info.size is None else ()
            return (
                dtype == declared_dtype
                and len(shape) == len(dims)
                and all(n in (d, *free) for n, d in zip(shape, dims, strict=True))
            )

        if actual.keys() != declared.keys() or not all(map(fits, declared)):
            raise ModelError(
                f"the engine has {actual}, its manifest declares {declared}: build it again"
            )
