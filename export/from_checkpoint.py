"""Exports a checkpoint as an ONNX model and compares it with PyTorch."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from export.candidate import CheckedModel, candidate_runners, finalise
from export.errors import ExportError
from export.gate.cases import gate_cases, gate_sizes
from export.gate.gate import Reference, Requirements, gate
from export.gate.runners import Runner, images_for
from export.graph import passes
from export.progress import Stages
from export.request import OnnxBackend
from export.source import SourceGraph
from export.wrapper import (
    ExportOptions,
    FloatIO,
    PaddedIO,
    example_inputs,
    free_dimensions,
    rounding_to_fp16,
    wrap,
)
from ifrnet_model import Checkpoint, CheckpointError, IFRNet, load_checkpoint
from ifrnet_model.probe import try_time_steps
from runtime import __version__
from runtime.manifest import GateReport
from runtime.model_info import OUTPUT, ModelInfo, TimeSteps, TunedFor

SOURCE_STAGES = ("load weights", "trace network", "rewrite graph")
"""The stages of `source_from_checkpoint`."""

STAGES = (*SOURCE_STAGES, "compare with PyTorch")
"""The stages of `checked_from_checkpoint`."""


def checked_from_checkpoint(
    weights: str | Path,
    options: ExportOptions,
    *,
    time_steps: TimeSteps | None = None,
    tuned_for: TunedFor = "any",
    compact: bool = False,
    backend: OnnxBackend = "onnxruntime",
    stages: Stages | None = None,
) -> CheckedModel:
    """Exports a checkpoint and compares the graph with fp32 PyTorch; writes nothing.

    Args:
        weights: A checkpoint file, or "demo".
        options: The options of the graph.
        time_steps: The time steps that the weights were trained for; by default those stated by
            the file or published, or else found by a trial.
        tuned_for: "cpu" rewrites the graph for ONNX Runtime's CPU kernels before it is compared.
        compact: Stores weights as float16 where no value changes.
        backend: The backend that will run it, in which it is compared.
        stages: Shows the progress, in the stages `STAGES`, and notes for the user.

    Raises:
        BackendError: If the backend is not installed.
        ExportError: If the weights cannot be loaded, or PyTorch cannot export the graph.
        GateError: If the result differs too much from PyTorch.
    """
    stages = stages or Stages.silent()
    traced = _traced(weights, options, time_steps, stages)
    model, info = finalise(traced.source.model, traced.source.info, tuned_for, compact=compact)
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
    """Exports a checkpoint as a graph that is not compared yet; its reference is fp32 PyTorch.

    Args:
        weights: A checkpoint file, or "demo".
        options: The options of the graph.
        time_steps: The time steps that the weights were trained for; by default those stated by
            the file or published, or else found by a trial.
        stages: Shows the progress, in the stages `SOURCE_STAGES`, and notes for the user.

    Raises:
        ExportError: If the weights cannot be loaded, or PyTorch cannot export the graph.
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
    if checkpoint.note:
        stages.note(f"weights: {checkpoint.note}")
    network = checkpoint.network
    time_steps = time_steps or checkpoint.time_steps or _probe_time_steps(network, stages)
    stages.start(STAGES[1])
    model = _trace(wrap(network, options), options)
    stages.start(STAGES[2])
    passes.lower_opset(model)
    passes.tidy(model)
    passes.write_out_reshapes(model)
    if options.max_batch is not None:
        model = passes.with_free_batch(model)
    model.producer_name, model.producer_version = "ifrnet-deploy", __version__
    plain, info = finalise(model, _describe(checkpoint, options, time_steps), "any")
    onnx_sha256 = hashlib.sha256(plain.SerializeToString()).hexdigest()
    # The reference is fp32 with GridSample, independent of the options. It flips by itself.
    network.warp_lowering = "gridsample"
    module = wrap(network, replace(options, precision="fp32", warp="gridsample", tta=False))
    reference = Reference(_pytorch_runner(module, info), f"PyTorch {torch.__version__} fp32")
    stages.finish()
    return _Traced(SourceGraph(plain, info, onnx_sha256, reference), network)


def _probe_time_steps(network: IFRNet, stages: Stages) -> TimeSteps:
    """Finds the time steps by a trial, and shows its results, because a trial is no proof."""
    trial = try_time_steps(network)
    results = "; ".join(
        f"at t = {step.t:g} {step.true_db:.1f} dB to its true position, {step.middle_db:.1f} dB to "
        "the midpoint"
        for step in trial.steps
        if step.t != 0.5
    )
    stages.note(
        f"time steps: {trial.time_steps}, found by a trial because neither the file nor the table "
        f"of known checkpoints states them (moving pattern: {results}); --time overrides this"
    )
    return trial.time_steps


def _trace(module: nn.Module, options: ExportOptions) -> ModelProto:
    inputs = example_inputs(options)
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=[OUTPUT],
            dynamic_shapes=free_dimensions(options),
            dynamo=True,
            opset_version=18,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export returned nothing: install torch 2.10 or newer")
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
        tta=options.tta,
    )


def _compare_with_pytorch(
    model: ModelProto,
    info: ModelInfo,
    traced: _Traced,
    options: ExportOptions,
    backend: OnnxBackend,
) -> GateReport:
    """Compares the graph in a backend with PyTorch.

    On a CPU the backends compute float16 graphs in float32, which tests the graph and its casts
    only. The error of float16 itself is simulated in PyTorch and must pass too.
    """
    candidates = candidate_runners(model, info, backend)
    if info.precision == "fp16":
        simulated = replace(options, precision="fp32", tta=False)
        rounded = wrap(rounding_to_fp16(traced.network), simulated)
        candidates["float16 simulated in PyTorch"] = _pytorch_runner(rounded, info)
    return gate(
        traced.source.reference,
        candidates,
        gate_cases(gate_sizes(info, (options.height, options.width)), info),
        Requirements(info.precision),
    )


def _pytorch_runner(module: FloatIO | PaddedIO, info: ModelInfo) -> Runner:
    """Runs a module without `tta`; with `info.tta` twice, the second time on flipped images."""

    def compute(
        img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        with torch.inference_mode():
            imgt: Tensor = module.unrounded(*map(torch.from_numpy, (img0, img1, timestep)))
        result: NDArray[np.float32] = imgt.numpy()
        return result

    def run(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        img0, img1 = images_for(info, frame0, frame1, rows=len(timestep))
        imgt = compute(img0, img1, timestep)
        if not info.tta:
            return imgt
        flipped0, flipped1 = (
            np.flip(image, info.layout.size_axes).copy() for image in (img0, img1)
        )
        flipped = np.flip(compute(flipped0, flipped1, timestep), (2, 3))
        mean: NDArray[np.float32] = np.mean((imgt, flipped), axis=0)
        return mean

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's output, which has nothing for the user."""
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
