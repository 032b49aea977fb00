"""A TensorRT engine and all that must hold before it is loaded."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from runtime.errors import BackendError, ModelError
from runtime.machine import Gpu, gpu_driver
from runtime.manifest import EngineBuild, EngineManifest
from runtime.model_info import ModelInfo

_NEXT_GENERATION = {8: 10, 10: 11}
"""Major version of TensorRT that built a version-compatible engine -> the next one that loads it.
NVIDIA documents 8 -> 10 and 10 -> 11; each removed interfaces, so 8 -> 11 is not promised."""

_SAID, _KEPT = 3, 100
"""Messages of TensorRT that go into ours (the first ones name the cause), and that are kept."""


def import_tensorrt() -> Any:
    """The module `tensorrt`, for which a driver must be there: its classes crash without one.

    Raises:
        BackendError: If it is not installed, or its libraries are missing.
    """
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(
            f"TensorRT cannot be imported ({error}): pip install 'ifrnet-deploy[tensorrt]', "
            "or on a Jetson use the system's own tensorrt"
        ) from error


def gpu_at(device: int) -> Gpu:
    """The GPU with this index, asked of the driver and not of TensorRT.

    Raises:
        BackendError: If there is no driver or no such GPU.
    """
    driver = gpu_driver()
    if driver.problem:
        raise BackendError(
            f"TensorRT needs an NVIDIA GPU, and {driver.problem}: use ONNX Runtime, which runs on "
            "any processor (build_engine --backend onnxruntime)"
        )
    if device >= len(driver.gpus):
        names = ", ".join(f"cuda:{k} {gpu.name}" for k, gpu in enumerate(driver.gpus))
        raise BackendError(f"cuda:{device} was asked for, the driver sees {names}")
    return driver.gpus[device]


_log: tuple[Any, Any] | None = None


def logger_for(trt: Any) -> Any:
    """The process's logger for TensorRT, which uses the first one for ever and warns of others.

    Its `take_errors()` gives what was reported since the last call.
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
                del self._errors[:-_KEPT]

        def take_errors(self) -> list[str]:
            taken, self._errors = self._errors, []
            return taken

    _log = trt, Log()
    return _log[1]


def checked_manifest(path: Path, version: str, gpu: Gpu) -> EngineManifest:
    """The manifest of an engine that this TensorRT and this GPU can run.

    Args:
        path: The engine.
        version: Of TensorRT here.
        gpu: Where it shall run.

    Raises:
        ModelError: If the manifest is missing or not the file's, or names another TensorRT or
            another GPU; the message holds the command that builds it again.
    """
    manifest = EngineManifest.read(path)
    build = manifest.engine
    if manifest.backend != "tensorrt" or build is None:
        raise ModelError(f"{path} is for {manifest.backend}, not for TensorRT: use its own backend")
    problem = _misfit(build, version, gpu)
    if problem:
        raise ModelError(f"{path} {problem}: build it here with {build.command}")
    return manifest


def _misfit(build: EngineBuild, version: str, gpu: Gpu) -> str | None:
    here = f"{gpu.name} ({gpu.compute_capability})"
    there = f"{build.gpu} ({build.compute_capability})"
    if build.portable:
        found, built = (_numbers(v) for v in (version, build.tensorrt))
        later = _NEXT_GENERATION.get(built[0])
        if found < built or found[0] not in (built[0], later):
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
        return f"was built for {there}, here is {here}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


class Engine:
    """A deserialised engine with what must outlive it.

    Attributes:
        version: Of TensorRT.
        limits: Smallest and largest shape of an image without the batch axis where it is free,
            else None.
        best: The shape that a free engine is fastest for, else None.
    """

    def __init__(self, plan: bytes, info: ModelInfo, *, portable: bool) -> None:
        trt = import_tensorrt()
        self.version: str = trt.__version__
        self._trt = trt
        self._log = logger_for(trt)
        self._log.take_errors()  # Whoever they concern was told.
        self._runtime = trt.Runtime(self._log)
        if portable:
            # A version-compatible plan brings the code of its own runtime along.
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ModelError(f"TensorRT {self.version} cannot load the engine{self.said()}")
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
        """A new execution context, with the engine's profile selected where it has one.

        Before TensorRT 10 the first context alone has a profile from the start.

        Args:
            stream: Handle of the stream that selects the profile.

        Raises:
            BackendError: If there is no memory for it, or the profile cannot be used by one more
                context.
        """
        context = self._engine.create_execution_context()
        if context is None:
            raise BackendError("TensorRT could not make an execution context")
        if self._has_profile and not context.set_optimization_profile_async(0, stream):
            raise BackendError(
                "TensorRT gave the engine's one profile to another context already: build the "
                "engine again with this version of ifrnet-deploy, or use one stream"
            )
        return context

    def layers(self) -> str:
        """What the engine inspector says, as JSON."""
        inspector = self._engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text

    def said(self) -> str:
        """The errors that TensorRT has reported since, in brackets, or nothing."""
        errors = self._log.take_errors()
        return f" ({'; '.join(errors[:_SAID])})" if errors else ""

    def close(self) -> None:
        """Frees engine and runtime, in that order; contexts must be gone."""
        self._engine = None
        self._runtime = None

    def _check_interface(self, info: ModelInfo) -> None:
        """The engine must have the inputs and the output that its manifest promises."""
        engine, kinds = self._engine, self._trt.DataType
        types = {"uint8": "UINT8", "float32": "FLOAT"}
        promised = {
            name: (getattr(kinds, types[port.dtype]), port.dims)
            for name, port in info.ports().items()
        }
        names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        found = {
            name: (engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name)))
            for name in names
        }

        def fits(name: str) -> bool:
            (kind, shape), (wanted_kind, wanted) = found[name], promised[name]
            # Where sizes are free, every axis may be said as free that could depend on them.
            free = (-1,) if info.size is None else ()
            return (
                kind == wanted_kind
                and len(shape) == len(wanted)
                and all(n in (w, *free) for n, w in zip(shape, wanted, strict=True))
            )

        if found.keys() != promised.keys() or not all(map(fits, promised)):
            raise ModelError(
                f"the engine has {found}, its manifest promises {promised}: build it again"
            )
