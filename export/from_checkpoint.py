"""A checkpoint -> an ONNX model that was compared with PyTorch."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from export.candidate import CheckedModel, candidate_runners, finalise
from export.errors import ExportError
from export.gate.cases import gate_cases
from export.gate.gate import Reference, Requirements, gate
from export.gate.runners import Runner, images_for
from export.graph import passes
from export.progress import Stages
from export.request import OnnxBackend
from export.source import SourceGraph
from export.wrapper import (
    ExportOptions,
    FloatIO,
    FrameIO,
    example_inputs,
    free_dimensions,
    rounding_to_fp16,
    wrap,
)
from ifrnet_model import Checkpoint, CheckpointError, IFRNet, load_checkpoint
from ifrnet_model.probe import try_time_steps
from runtime import __version__
from runtime.frames import MINIMUM_SIDE
from runtime.manifest import GateReport
from runtime.model_info import INPUTS, OUTPUT, ModelInfo, TimeSteps, TunedFor

STAGES = ("load weights", "trace", "rewrite graph", "compare with PyTorch")


def checked_from_checkpoint(
    weights: str | Path,
    options: ExportOptions,
    *,
    time_steps: TimeSteps | None = None,
    tuned_for: TunedFor = "any",
    backend: OnnxBackend = "onnxruntime",
    stages: Stages | None = None,
) -> CheckedModel:
    """Loads, traces, rewrites, compares; writes nothing.

    Args:
        weights: A checkpoint file, or "demo".
        options: What to export.
        time_steps: What the weights know; by default what their file says, else what a trial shows.
        tuned_for: "cpu": rewritten for ONNX Runtime's CPU kernels before it is compared.
        backend: What will run it, and what it is compared in.
        stages: Told about progress.

    Raises:
        BackendError: If the backend is not installed.
        ExportError: If the weights cannot be loaded or the graph cannot be made as asked.
        GateError: If the result is too far from PyTorch.
    """
    stages = stages or Stages.silent()
    traced = _traced(weights, options, time_steps, stages)
    model, info = finalise(traced.source.model, traced.source.info, tuned_for)
    stages.start(STAGES[3])
    report = _compare_with_pytorch(model, info, traced, options, backend)
    stages.finish()
    return CheckedModel(model, info, report, traced.source.onnx_sha256, backend)


def source_from_checkpoint(
    weights: str | Path,
    options: ExportOptions,
    *,
    time_steps: TimeSteps | None = None,
    stages: Stages | None = None,
) -> SourceGraph:
    """Loads, traces, rewrites; what is built from it is compared with fp32 PyTorch.

    Args and errors as of `checked_from_checkpoint`.
    """
    return _traced(weights, options, time_steps, stages or Stages.silent()).source


class _Traced(NamedTuple):
    source: SourceGraph
    network: IFRNet


def _traced(
    weights: str | Path, options: ExportOptions, time_steps: TimeSteps | None, stages: Stages
) -> _Traced:
    stages.start(STAGES[0])
    try:
        checkpoint = load_checkpoint(weights, warp_lowering=options.warp)
    except CheckpointError as error:
        raise ExportError(str(error)) from error
    network = checkpoint.network
    known = time_steps or checkpoint.time_steps or _probe_time_steps(network, stages)
    stages.start(STAGES[1])
    model = _trace(wrap(network, options), options)
    stages.start(STAGES[2])
    passes.lower_opset(model)
    passes.tidy(model)
    passes.write_out_reshapes(model)
    if options.max_batch is not None:
        model = passes.with_free_batch(model)
    model.producer_name, model.producer_version = "ifrnet-deploy", __version__
    plain, info = finalise(model, _describe(checkpoint, options, known), "any")
    onnx_sha256 = hashlib.sha256(plain.SerializeToString()).hexdigest()
    # fp32 with GridSample is right, whatever was exported.
    network.warp_lowering = "gridsample"
    right = wrap(network, replace(options, precision="fp32", warp="gridsample"))
    reference = Reference(_pytorch_runner(right, info), f"PyTorch {torch.__version__} fp32")
    stages.finish()
    return _Traced(SourceGraph(plain, info, onnx_sha256, reference), network)


def _probe_time_steps(network: IFRNet, stages: Stages) -> TimeSteps:
    """What a trial shows of weights of which nothing is known; it is said, for it is no proof."""
    trial = try_time_steps(network)
    placed = "; ".join(
        f"at t = {step.t:g} {step.true_db:.1f} dB to its true place, {step.middle_db:.1f} to the "
        "middle"
        for step in trial.steps
        if step.t != 0.5
    )
    stages.note(
        f"time steps: {trial.time_steps}, as a trial shows, for nothing is known of these weights "
        f"(a moved pattern: {placed}); --time says otherwise"
    )
    return trial.time_steps


def _trace(module: nn.Module, options: ExportOptions) -> ModelProto:
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(example_inputs(options).values()),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=free_dimensions(options),
            dynamo=True,
            opset_version=18,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned nothing: torch 2.10 or newer is needed")
    model: ModelProto = program.model_proto
    return model


def _describe(checkpoint: Checkpoint, options: ExportOptions, time_steps: TimeSteps) -> ModelInfo:
    return ModelInfo(
        variant=checkpoint.network.config.variant,
        weights_sha256=checkpoint.sha256,
        precision=options.precision,
        io=options.io,
        divisor=options.divisor,
        flow_scale=options.flow_scale,
        time_steps=time_steps,
        steps_per_call=options.timesteps,
        pairs_per_call=options.batch,
        height=None if options.dynamic else options.height,
        width=None if options.dynamic else options.width,
        warp=options.warp,
        tuned_for="any",
        tool_version=__version__,
        max_pairs=options.max_batch,
    )


def _compare_with_pytorch(
    model: ModelProto,
    info: ModelInfo,
    traced: _Traced,
    options: ExportOptions,
    backend: OnnxBackend,
) -> GateReport:
    """A backend against PyTorch.

    On a CPU float16 graphs are computed in float32, so its figure proves the graph and
    its casts; what float16 itself costs is simulated in PyTorch and must pass too.
    """
    candidates = candidate_runners(model, info, backend)
    if info.precision == "fp16":
        rounded = wrap(rounding_to_fp16(traced.network), replace(options, precision="fp32"))
        candidates["float16 simulated in PyTorch"] = _pytorch_runner(rounded, info)
    return gate(
        traced.source.reference,
        candidates,
        gate_cases(_gate_sizes(options), info),
        Requirements(info.precision),
    )


def _pytorch_runner(module: FloatIO | FrameIO, info: ModelInfo) -> Runner:
    def run(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        inputs = (*images_for(info, frame0, frame1, rows=len(timestep)), timestep)
        with torch.inference_mode():
            picture: Tensor = module.unrounded(*map(torch.from_numpy, inputs))
        result: NDArray[np.float32] = picture.numpy()
        return result

    return run


def _gate_sizes(options: ExportOptions) -> list[tuple[int, int]]:
    """The exported size; where sizes are free, a smaller and a larger one that were not traced."""
    height, width, multiple = options.height, options.width, options.divisor
    if not options.dynamic:
        return [(height, width)]
    odd = 3 if options.io == "frames" else 0  # frames need not be multiples of anything
    smaller = [max(n // 2 // multiple * multiple - odd, MINIMUM_SIDE) for n in (height, width)]
    if options.io == "float":
        smaller = [max(n, multiple) for n in smaller]
    larger = [n + n // 4 // multiple * multiple + 2 * multiple - odd for n in (height, width)]
    return [(height, width), (smaller[0], smaller[1]), (larger[0], larger[1])]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's chatter, which concerns its authors, from our users."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
