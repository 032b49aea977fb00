"""Builds a serialised TensorRT engine from an ONNX graph, on the machine that will run it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import onnx
from onnx import ModelProto

from export.errors import BuildError, ExportError
from export.progress import Stages
from export.request import Constraints
from export.trt import cache as trt_cache
from export.trt.versions import CONSTRAINTS, BuildMonitor, Generation, generation_of
from runtime.backends.cuda.runtime import Cuda
from runtime.backends.trt.engine import logger_for
from runtime.cli.interrupt import exit_code
from runtime.machine import is_jetson


@dataclass(frozen=True)
class Profile:
    """The range of sizes of an engine, each (height, width) in pixels; it is fastest at `opt`."""

    min: tuple[int, int]
    opt: tuple[int, int]
    max: tuple[int, int]

    def __post_init__(self) -> None:
        for low, middle, high in zip(self.min, self.opt, self.max, strict=True):
            if not low <= middle <= high:
                shown = ", ".join(
                    f"--{name} {size[0]}x{size[1]}" for name, size in asdict(self).items()
                )
                raise ExportError(f"the sizes are not in order ({shown}): use min <= opt <= max")


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        profile: The range of sizes; None if the graph has a fixed size.
        optimization_level: How long TensorRT looks for faster kernels, 0 to 5.
        workspace_mib: Limit of the scratch memory of kernels in MiB; None for all GPU memory.
        portable: Whether the engine also runs in later releases of TensorRT and, except on a
            Jetson, on any GPU from Ampere on.
        device: Index of the GPU.
        timing_cache: A file that makes further builds faster; None for no cache.
        max_pairs: Maximum number of pairs in a call, if the graph leaves that number free; the
            engine is fastest for that many.
        constraints: How strictly a weakly typed build (TensorRT 8.6) keeps the types of the graph;
            None as strictly as possible.

    Raises:
        ExportError: If a value is out of range.
    """

    profile: Profile | None = None
    optimization_level: int = 3
    workspace_mib: int | None = None
    portable: bool = False
    device: int = 0
    timing_cache: Path | None = None
    max_pairs: int | None = None
    constraints: Constraints | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.optimization_level <= 5:
            raise ExportError(f"--optimization-level is {self.optimization_level}: use 0 to 5")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ExportError(f"--workspace is {self.workspace_mib} MiB: use 1 or more")
        if self.constraints not in (None, *CONSTRAINTS):
            raise ExportError(
                f"--precision-constraints is {self.constraints}: use {', '.join(CONSTRAINTS)}"
            )

    @property
    def any_gpu(self) -> bool:
        """Whether the engine runs on any GPU from Ampere on, which is impossible on a Jetson."""
        return self.portable and not is_jetson()

    def flags(self) -> dict[str, Any]:
        """The options that change the engine, except for the profile."""
        return {
            "optimization_level": self.optimization_level,
            "workspace_mib": self.workspace_mib,
            "portable": self.portable,
            "precision_constraints": self.constraints,
            # TF32 would round the inputs of float32 convolutions to 10 bits.
            "tf32": False,
        }


class SerialisedEngine(NamedTuple):
    """A serialised engine.

    Attributes:
        plan: The bytes that TensorRT deserialises.
        seconds: Duration of the build in TensorRT in seconds.
        notes: Notes for the user, for example that the timing cache was damaged.
    """

    plan: bytes
    seconds: float
    notes: list[str]


def engine_from_onnx(
    trt: Any, model: ModelProto, options: BuildOptions, *, stages: Stages | None = None
) -> SerialisedEngine:
    """Parses a graph and builds an engine.

    Args:
        trt: The module `tensorrt`.
        model: An ONNX graph; if its sizes are free, `options.profile` is required.
        options: How the engine is built.
        stages: Shows the phases of the build.

    Raises:
        ExportError: If TensorRT cannot parse the graph; with TensorRT's messages.
        BuildError: If TensorRT cannot build the engine; with TensorRT's messages.
        KeyboardInterrupt: After Ctrl-C or SIGTERM has stopped the build.
    """
    generation = generation_of(trt)
    gpu = Cuda(options.device)
    stages = stages or Stages.silent()

    def work(monitor: BuildMonitor) -> SerialisedEngine:
        with gpu.current():  # The current device is that of a thread.
            return _build(trt, generation, model, options, monitor)

    with stages.phases() as monitor:
        return _in_thread(work, monitor, stages, can_be_cancelled=generation.can_be_cancelled)


def _build(
    trt: Any,
    generation: Generation,
    model: ModelProto,
    options: BuildOptions,
    monitor: BuildMonitor,
) -> SerialisedEngine:
    """Parses and builds on the current device of this thread."""
    log = logger_for(trt)
    log.take_errors()  # Errors of earlier calls were reported already.
    notes: list[str] = []
    builder = _builder(trt, log)
    network = generation.create_network(builder)
    # The parser must outlive the build, because the network refers to its weights.
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        raise ExportError(_parse_error(parser, trt.__version__))
    typing = generation.set_types(network, tensor_types(model), options.constraints)
    config = _config(trt, builder, network, options, typing)
    if config.num_optimization_profiles:
        generation.share_profile(config)
    _use_timing_cache(config, options.timing_cache, notes)
    started = time.perf_counter()
    with generation.monitored(config, monitor):
        plan = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - started
    if plan is None:
        raise BuildError(_build_error(trt.__version__, log.take_errors()))
    if options.timing_cache is not None:
        cache = bytes(config.get_timing_cache().serialize())
        trt_cache.write_timing_cache(options.timing_cache, cache)
    return SerialisedEngine(bytes(plan), seconds, notes)


def _builder(trt: Any, log: Any) -> Any:
    """Creates a builder.

    Raises:
        ExportError: If TensorRT cannot create one.
    """
    try:
        return trt.Builder(log)
    except TypeError as error:  # Raised by pybind11 if the factory returns null.
        reason = "; ".join(log.take_errors()) or str(error)
        remedy = "check the driver with nvidia-smi, and the installation of TensorRT"
        if "executable stack" in reason:
            remedy = (
                "this C library refuses libraries that ask for an executable stack: clear the "
                "flag with patchelf --clear-execstack, or use a newer TensorRT"
            )
        raise ExportError(
            f"TensorRT {trt.__version__} cannot create a builder ({reason}): {remedy}"
        ) from error


def _build_error(version: str, errors: Sequence[str]) -> str:
    reason = "; ".join(errors) or "no reason given"
    remedy = "give it more --workspace, a smaller --size, or free memory on the GPU"
    if "lean runtime" in reason:
        remedy = (
            f"--portable needs libnvinfer_lean, which the package of TensorRT {version} may lack: "
            f"pip install tensorrt-lean=={version} and add the folder of its library to "
            "LD_LIBRARY_PATH, or leave out --portable"
        )
    return f"TensorRT {version} could not build the engine ({reason}): {remedy}"


def tensor_types(model: ModelProto) -> dict[str, int]:
    """The element type (a value of TensorProto.DataType) of every tensor of a graph by name."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _config(
    trt: Any, builder: Any, network: Any, options: BuildOptions, typing: Mapping[str, Any]
) -> Any:
    """Creates the configuration of a build with Polygraphy.

    Args:
        trt: The module `tensorrt`.
        builder: TensorRT's builder.
        network: The parsed network.
        options: How the engine is built.
        typing: The arguments of CreateConfig that `Generation.set_types` returned.

    Raises:
        ExportError: If the sizes do not fit the graph, or this TensorRT lacks an option.
    """
    from polygraphy.backend.trt import CreateConfig
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    workspace, level = None, None
    if options.workspace_mib is not None:
        workspace = {trt.MemoryPoolType.WORKSPACE: options.workspace_mib << 20}
    if options.any_gpu:
        level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    # Polygraphy would print its actions, and each error that it raises.
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
        create = CreateConfig(
            profiles=_profiles(network, options),
            builder_optimization_level=options.optimization_level,
            # Lets the inspector show the type of every tensor; costs nothing at run time.
            profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
            memory_pool_limits=workspace,
            version_compatible=options.portable,
            hardware_compatibility_level=level,
            tf32=False,
            **typing,
        )
        try:
            return create(builder, network)
        except PolygraphyException as error:
            reason = str(error).rstrip(".")
            raise ExportError(
                f"TensorRT {trt.__version__} cannot be configured ({reason}): leave out the option "
                "that needs it"
            ) from error


def _profiles(network: Any, options: BuildOptions) -> list[Any]:
    """A profile of Polygraphy with the range of every input; none if all shapes are fixed."""
    from polygraphy.backend import trt as polygraphy_trt

    ports = [network.get_input(k) for k in range(network.num_inputs)]
    if not any(-1 in tuple(port.shape) for port in ports):
        if options.profile is not None:
            raise ExportError("the graph has a fixed size: leave out --min, --opt and --max")
        return []
    ranges: list[tuple[int, ...]]
    if options.profile is not None:
        ranges = [options.profile.min, options.profile.opt, options.profile.max]
    elif options.max_pairs is not None:
        ranges = [(1,), (options.max_pairs,), (options.max_pairs,)]
    else:
        raise ExportError("the graph leaves sizes free: give --min, --opt and --max, or --size")
    profile = polygraphy_trt.Profile()
    for port in ports:
        shapes = []
        for values in ranges:
            axes = iter(values)
            shapes.append(tuple(next(axes) if n == -1 else n for n in tuple(port.shape)))
        profile.add(port.name, *shapes)
    return [profile]


def _use_timing_cache(config: Any, path: Path | None, notes: list[str]) -> None:
    if path is None:
        return
    content, note = trt_cache.read_timing_cache(path)
    notes += [note] if note else []
    # Polygraphy has attached an empty cache, which TensorRT 8.6 does not replace by another.
    attached = config.get_timing_cache()
    if content and not attached.combine(config.create_timing_cache(content), False):
        notes.append(f"the timing cache {path} is of another GPU or TensorRT: starting a new one")


def _in_thread(
    work: Callable[[BuildMonitor], SerialisedEngine],
    monitor: BuildMonitor,
    stages: Stages,
    *,
    can_be_cancelled: bool,
) -> SerialisedEngine:
    """Builds in another thread, because only this one receives Ctrl-C and SIGTERM.

    Raises:
        KeyboardInterrupt: Once the build has stopped.
    """
    result: list[SerialisedEngine] = []
    failure: list[BaseException] = []
    # Not Thread.is_alive: before Python 3.13 an interrupted join marks a thread as ended.
    ended = threading.Event()

    def run() -> None:
        try:
            result.append(work(monitor))
        except BaseException as error:
            failure.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, name="TensorRT build", daemon=True).start()
    try:
        while not ended.wait(0.2):
            stages.refresh()
    except KeyboardInterrupt:
        if not can_be_cancelled:
            _exit_at_once("this TensorRT cannot stop a build")
        monitor.cancelled = True
        try:
            ended.wait()
        except KeyboardInterrupt:
            _exit_at_once("not waiting for the build to stop")
        raise
    if failure:
        raise failure[0]
    return result[0]


def _exit_at_once(reason: str) -> NoReturn:
    """Ends the process during a build; nothing was written yet."""
    print(f"\ninterrupted: {reason}, exiting", file=sys.stderr)
    sys.stderr.flush()
    os._exit(exit_code())


def _parse_error(parser: Any, version: str) -> str:
    """All errors of the parser, each with its node."""
    errors = []
    for k in range(parser.num_errors):
        error = parser.get_error(k)
        # Since TensorRT 10 an error has the name of its node, before only the index.
        name = error.node_name() if hasattr(error, "node_name") else f"number {error.node()}"
        errors.append(f"node {name}: {error.desc()} ({error.code()})")
    return (
        f"TensorRT {version} cannot parse the graph ({'; '.join(errors) or 'no reason given'}): "
        "try --warp gather, or use --backend onnxruntime"
    )
