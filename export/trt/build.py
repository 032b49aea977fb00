"""A plain ONNX graph -> a serialised TensorRT engine, on the machine that will run it."""

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
from runtime.machine import is_jetson


@dataclass(frozen=True)
class Profile:
    """Sizes (height, width) of one engine whose sizes are free: the fastest at `opt`."""

    min: tuple[int, int]
    opt: tuple[int, int]
    max: tuple[int, int]

    def __post_init__(self) -> None:
        for low, middle, high in zip(self.min, self.opt, self.max, strict=True):
            if not low <= middle <= high:
                shown = ", ".join(
                    f"--{name} {size[0]}x{size[1]}" for name, size in asdict(self).items()
                )
                raise ExportError(f"the sizes are not in order ({shown}): min <= opt <= max")


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    Attributes:
        profile: Sizes, where the graph leaves them free.
        optimization_level: 0 to 5: how long TensorRT looks for faster kernels.
        workspace_mib: Scratch memory that kernels may take; None for all of the GPU's.
        portable: For later releases of TensorRT and, except on a Jetson, any GPU from Ampere on.
        device: Index of the GPU.
        timing_cache: A file that makes further builds faster; None for none.
        max_pairs: Most pairs of a call, where the graph leaves their number free; the engine is
            fastest for that many.
        constraints: How strictly a weakly typed build (TensorRT 8.6) is held to the types of the
            graph; None: see `Generation.constraints`.
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
        """Whether the engine runs on any GPU from Ampere on, which TensorRT lacks on a Jetson."""
        return self.portable and not is_jetson()

    def flags(self) -> dict[str, Any]:
        """What of this changes the engine, besides the profile."""
        return {
            "optimization_level": self.optimization_level,
            "workspace_mib": self.workspace_mib,
            "portable": self.portable,
            "precision_constraints": self.constraints,
            # float32 means float32: TF32 would round the inputs of convolutions to 10 bits.
            "tf32": False,
        }


class SerialisedEngine(NamedTuple):
    """A serialised engine.

    Attributes:
        plan: What TensorRT deserialises.
        seconds: How long TensorRT took.
        notes: What the user should know, for example that the timing cache was damaged.
    """

    plan: bytes
    seconds: float
    notes: list[str]


def engine_from_onnx(
    trt: Any, model: ModelProto, options: BuildOptions, *, stages: Stages | None = None
) -> SerialisedEngine:
    """Parses and builds.

    Args:
        trt: The module `tensorrt`.
        model: Plain ONNX of ours; where it leaves sizes free, `options.profile` is needed.
        options: How.
        stages: Shows the phases of the build.

    Raises:
        ExportError: If TensorRT cannot parse it, with TensorRT's messages.
        BuildError: If TensorRT cannot build it, with TensorRT's messages.
        KeyboardInterrupt: After the build was stopped.
    """
    generation = generation_of(trt)
    gpu = Cuda(options.device)
    stages = stages or Stages.silent()

    def work(progress: BuildMonitor) -> SerialisedEngine:
        with gpu.current():  # Each thread has a device of its own.
            return _built(trt, generation, model, options, progress)

    with stages.phases() as progress:
        return _in_a_thread(work, progress, stages, can_be_cancelled=generation.can_be_cancelled)


def _built(
    trt: Any,
    generation: Generation,
    model: ModelProto,
    options: BuildOptions,
    progress: BuildMonitor,
) -> SerialisedEngine:
    """Parses and builds on the current device of this thread."""
    log = logger_for(trt)
    log.take_errors()  # Whoever they concern was told.
    notes: list[str] = []
    builder = _builder(trt, log)
    network = generation.create_network(builder)
    # It must outlive the build: the network refers to its weights.
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        raise ExportError(_parser_said(parser, trt.__version__))
    kept = generation.set_types(network, tensor_types(model), options.constraints)
    config = _configured(trt, builder, network, options, kept)
    if config.num_optimization_profiles:
        generation.share_profile(config)
    _use_timing_cache(config, options.timing_cache, notes)
    started = time.perf_counter()
    with generation.monitored(config, progress):
        plan = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - started
    if plan is None:
        raise BuildError(_why_not_built(trt.__version__, log.take_errors()))
    if options.timing_cache is not None:
        cache = bytes(config.get_timing_cache().serialize())
        trt_cache.write_timing_cache(options.timing_cache, cache)
    return SerialisedEngine(bytes(plan), seconds, notes)


def _builder(trt: Any, log: Any) -> Any:
    """A builder, or one sentence where TensorRT cannot make one."""
    try:
        return trt.Builder(log)
    except TypeError as error:  # pybind11's, where the factory returns null.
        reason = "; ".join(log.take_errors()) or str(error)
        remedy = "check the driver with nvidia-smi, and the installation of TensorRT"
        if "executable stack" in reason:
            remedy = (
                "this C library refuses libraries that ask for an executable stack: clear the "
                "flag with patchelf --clear-execstack, or use a newer TensorRT"
            )
        raise ExportError(
            f"TensorRT {trt.__version__} cannot make a builder ({reason}): {remedy}"
        ) from error


def _why_not_built(version: str, errors: Sequence[str]) -> str:
    reason = "; ".join(errors) or "it gave no reason"
    remedy = "give it more --workspace, a smaller --size, or free memory on the GPU"
    if "lean runtime" in reason:
        remedy = (
            f"--portable needs libnvinfer_lean, which the package of TensorRT {version} may lack: "
            f"pip install tensorrt-lean=={version} and add the folder of its library to "
            "LD_LIBRARY_PATH, or leave out --portable"
        )
    return f"TensorRT {version} could not build the engine ({reason}): {remedy}"


def tensor_types(model: ModelProto) -> dict[str, int]:
    """The element type (of TensorProto) of every tensor of a graph by name."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _configured(
    trt: Any, builder: Any, network: Any, options: BuildOptions, kept: Mapping[str, Any]
) -> Any:
    """The configuration of a build, made by Polygraphy.

    Args:
        trt: The module `tensorrt`.
        builder: Makes the configuration.
        network: The parsed network.
        options: How the engine is built.
        kept: Arguments of CreateConfig that keep the types; see `Generation.set_types`.

    Raises:
        ExportError: If the sizes do not fit the graph, or this TensorRT lacks what is asked for.
    """
    from polygraphy.backend.trt import CreateConfig
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    workspace, level = None, None
    if options.workspace_mib is not None:
        workspace = {trt.MemoryPoolType.WORKSPACE: options.workspace_mib << 20}
    if options.any_gpu:
        level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    # It would print what it does, and its errors besides raising them.
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1):
        create = CreateConfig(
            profiles=_profiles(network, options),
            builder_optimization_level=options.optimization_level,
            # The inspector can then tell the type of every tensor; costs nothing at run time.
            profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
            memory_pool_limits=workspace,
            version_compatible=options.portable,
            hardware_compatibility_level=level,
            tf32=False,
            **kept,
        )
        try:
            return create(builder, network)
        except PolygraphyException as error:
            reason = str(error).rstrip(".")
            raise ExportError(
                f"TensorRT {trt.__version__} cannot be configured ({reason}): leave out the option "
                "that asks for it"
            ) from error


def _profiles(network: Any, options: BuildOptions) -> list[Any]:
    """The range of every input as one profile of Polygraphy; none where nothing is free."""
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
    # TensorRT itself refuses what another version or another GPU wrote; then it starts afresh.
    if not config.set_timing_cache(config.create_timing_cache(content), False):
        notes.append(f"the timing cache {path} is of another machine: starting a new one")
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _in_a_thread(
    work: Callable[[BuildMonitor], SerialisedEngine],
    progress: BuildMonitor,
    stages: Stages,
    *,
    can_be_cancelled: bool,
) -> SerialisedEngine:
    """Builds in a thread of its own, for Python hears of Ctrl-C in this one only.

    Raises:
        KeyboardInterrupt: Once the build has stopped.
    """
    result: list[SerialisedEngine] = []
    failure: list[BaseException] = []
    # Not Thread.is_alive: before Python 3.13 an interrupted join takes a thread for ended.
    ended = threading.Event()

    def run() -> None:
        try:
            result.append(work(progress))
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
            _leave("this TensorRT cannot be stopped")
        progress.cancelled = True
        try:
            ended.wait()
        except KeyboardInterrupt:
            _leave("not waiting for the build to stop")
        raise
    if failure:
        raise failure[0]
    return result[0]


def _leave(why: str) -> NoReturn:
    """Ends the process in the middle of a build; nothing is on disk yet."""
    print(f"\ninterrupted: {why}, leaving", file=sys.stderr)
    sys.stderr.flush()
    os._exit(130)


def _parser_said(parser: Any, version: str) -> str:
    """Every error of the parser with the node it concerns."""
    said = []
    for k in range(parser.num_errors):
        error = parser.get_error(k)
        # Names came with TensorRT 10; before, there is the index.
        name = error.node_name() if hasattr(error, "node_name") else f"number {error.node()}"
        said.append(f"node {name}: {error.desc()} ({error.code()})")
    return (
        f"TensorRT {version} cannot parse the graph ({'; '.join(said) or 'no reason given'}): "
        "try --warp gather, or use --backend onnxruntime"
    )
