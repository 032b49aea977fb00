"""Reads and compiles ONNX files with OpenVINO; a model of free size for one size of frames."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runtime.backends.base import NO_CACHE, InferencePrecision
from runtime.backends.ov.cache import CacheEntry
from runtime.errors import BackendError, install_command
from runtime.files import distrust
from runtime.machine import cache_folder
from runtime.model_info import ModelInfo
from runtime.telemetry import import_quietly

_HINTS: dict[InferencePrecision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES: dict[InferencePrecision, str] = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


@dataclass(frozen=True)
class Compilation:
    """Options of the compilation of a model.

    Attributes:
        precision: Type in which convolutions are computed.
        streams: Number of inferences that run at the same time.
        threads: Number of CPUs that they share.
        cache: Folder for compiled models; None for no cache.
        profile: Whether OpenVINO measures the time of each layer, which slows the model a little.
    """

    precision: InferencePrecision
    streams: int
    threads: int
    cache: Path | None
    profile: bool = False

    def check(self, openvino: Any) -> None:
        """Checks that OpenVINO supports these options on this CPU.

        Raises:
            BackendError: If the CPU does not compute in the precision, or there are fewer threads
                than streams.
        """
        if self.streams > self.threads:
            raise BackendError(
                f"streams={self.streams} was given with {self.threads} threads, each stream needs "
                "one: use fewer streams"
            )
        _check_capability(_core(openvino), self.precision)

    def settings(self) -> dict[str, str]:
        """The options as properties of OpenVINO."""
        return {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "PERFORMANCE_HINT": "LATENCY" if self.streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": str(self.streams),
            "INFERENCE_NUM_THREADS": str(self.threads),
            **({"PERF_COUNT": "YES"} if self.profile else {}),
        }


def trusted_cache(asked: str | None) -> tuple[Path | None, str | None]:
    """The folder of the cache, and a note.

    Args:
        asked: A folder; None for the default folder, "none" for no cache.

    Returns:
        The folder, None for no cache; and a note for the user if a folder is not used, because
        other users can write to it.
    """
    if asked == NO_CACHE:
        return None, None
    folder = cache_folder() / "openvino" if asked is None else Path(asked)
    if why := distrust(folder):
        return None, f"compiled models are not cached, {why}: make it yours alone (chmod 700)"
    return folder, None


def compiled_model(
    openvino: Any,
    content: bytes,
    options: Compilation,
    *,
    shapes: Mapping[str, list[int]] | None = None,
) -> Any:
    """Compiles an ONNX file, or reads the compiled model from the cache.

    Args:
        openvino: The module.
        content: The ONNX file.
        options: How it is compiled; `Compilation.check` must have passed.
        shapes: Shapes to which inputs are fixed, by name; -1 for a free axis. None: as in the file.

    Returns:
        An openvino.CompiledModel.

    Raises:
        BackendError: If this OpenVINO cannot keep the coordinates in float32.
        RuntimeError: If OpenVINO cannot read the file.
    """
    core, settings = _core(openvino), options.settings()
    entry = None
    if options.cache is not None:
        entry = CacheEntry(options.cache, openvino, core, content, settings, shapes)
        if (compiled := entry.read()) is not None:
            return compiled
    model = from_onnx(openvino, content)
    if shapes is not None:
        model.reshape({name: openvino.PartialShape(shape) for name, shape in shapes.items()})
    if options.precision == "fp32":
        compiled = core.compile_model(model, "CPU", settings)
    else:
        from runtime.backends.ov.precision import compiled_with_float32

        compiled = compiled_with_float32(openvino, core, model, settings)
    if entry is not None:
        entry.write(compiled)
    return compiled


def shapes_at(info: ModelInfo, size: tuple[int, int]) -> dict[str, list[int]] | None:
    """The shapes of the inputs of a model of free size at a size of frames or planes.

    Args:
        info: Metadata of the model.
        size: (height, width) of the model's images in pixels.

    Returns:
        Name -> shape, -1 for a free axis; None if the size of the model is fixed.
    """
    if info.size is not None:
        return None
    ports = replace(info, height=size[0], width=size[1]).ports()
    return {name: list(port.dims) for name, port in ports.items() if port.is_input}


def import_openvino() -> Any:
    """Imports the module `openvino`, with its telemetry off.

    Raises:
        BackendError: If it is not installed or does not load.
    """
    try:
        return import_quietly("openvino")
    except ImportError as error:
        raise BackendError(
            f"OpenVINO cannot be imported ({reason(error)}): {install_command('openvino')}, or "
            "use backend='onnxruntime'"
        ) from error


def from_onnx(openvino: Any, content: bytes) -> Any:
    """Reads an ONNX file as an openvino.Model.

    `Core.read_model` is not used: it also accepts OpenVINO's own format, and would read bytes that
    are valid in both formats as another model than the one that was checked.

    Raises:
        RuntimeError: If OpenVINO cannot read the file.
    """
    reader = openvino.frontend.FrontEndManager().load_by_framework("onnx")
    try:
        return reader.convert(reader.load(io.BytesIO(content)))
    except Exception as error:  # The front end's errors have no other base class.
        raise RuntimeError(str(error)) from error


def capabilities(openvino: Any) -> tuple[str, list[str]]:
    """The name of the CPU and the types that it computes in: "FP32", "BF16", "INT8" and others."""
    core = _core(openvino)
    return (
        str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip(),
        list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
    )


def native_precisions(openvino: Any) -> list[InferencePrecision]:
    """The precisions below float32 that this CPU computes in natively, the fastest first."""
    available = capabilities(openvino)[1]
    order: tuple[InferencePrecision, ...] = ("bf16", "fp16")
    return [name for name in order if _CAPABILITIES[name] in available]


@functools.cache
def _core(openvino: Any) -> Any:
    """The openvino.Core of the process, which owns the plugin and its threads."""
    return openvino.Core()


def _check_capability(core: Any, precision: InferencePrecision) -> None:
    """Checks that the CPU computes in a type natively.

    For another type OpenVINO would use float32 or emulate it.

    Raises:
        BackendError: If it does not.
    """
    available = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if _CAPABILITIES[precision] not in available:
        usable = [name for name, capability in _CAPABILITIES.items() if capability in available]
        raise BackendError(
            f"precision={precision!r} was asked for, this CPU has {', '.join(usable)} only: "
            "leave it out"
        )


def reason(error: BaseException) -> str:
    """The first line of an OpenVINO error that is not a location in OpenVINO's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (reasons or lines or [type(error).__name__])[0]
