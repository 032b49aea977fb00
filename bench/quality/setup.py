"""Opens what a parity run needs: artefacts, PyTorch as their reference, samples."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.data.datasets import DataSet
from bench.data.protocols import Metric, Protocol
from bench.environment import MeasurementError
from bench.quality.evaluate import Artefact, Compared, Comparison
from bench.quality.request import ParityRequest
from runtime import Interpolator
from runtime.errors import first_line
from runtime.manifest import file_sha256

if TYPE_CHECKING:
    from ifrnet_model import Checkpoint


class OpenedParity(NamedTuple):
    """Everything that a parity run needs, opened.

    Attributes:
        bench: What a sample is put through.
        found: The samples.
        checkpoint: Of the reference.
        deviations: What does not fit and was forced.
    """

    comparison: Comparison
    found: DataSet
    checkpoint: Checkpoint
    deviations: list[str]


def open_comparison(request: ParityRequest, owner: contextlib.ExitStack) -> OpenedParity:
    """Opens what the request names; `owner` closes it.

    Raises:
        MeasurementError: If something is not there, or does not fit.
    """
    from bench.runs.authors import load_reference

    protocol, found = request.protocol, request.find()
    checkpoint = load_reference(request.weights)
    artefacts = _open_artefacts(request, owner)
    if protocol.name == "folder":  # Its own truth: nobody says at which flow scale.
        protocol = replace(protocol, flow_scale=artefacts[0].vfi.info.flow_scale)
    deviations = _deviations(artefacts, protocol, checkpoint.sha256, force=request.force)
    wanted = request.metrics or protocol.metrics
    metrics: list[Metric] = ["psnr", *(metric for metric in wanted if metric != "psnr")]
    references = _references(request, checkpoint, artefacts, owner)
    comparison = Comparison(protocol, metrics, references, artefacts)
    return OpenedParity(comparison, found, checkpoint, deviations)


def configuration_of(
    request: ParityRequest,
    comparison: Comparison,
    checkpoint: Checkpoint,
    found: DataSet,
    notes: list[str],
) -> dict[str, Any]:
    """All that a resumed run must share with the one that was broken off."""
    return {
        "dataset": comparison.protocol.name,
        "title": comparison.protocol.title,
        "protocol": asdict(comparison.protocol),
        "samples": found.count,
        "official_samples": comparison.protocol.samples,
        "every": request.every,
        "limit": request.limit,
        "root_name": request.root.resolve().name,
        "metrics": list(comparison.metrics),
        "weights": {
            "name": Path(request.weights).name,
            "sha256": checkpoint.sha256,
            "variant": checkpoint.network.config.variant,
            "time_steps": comparison.artefacts[0].vfi.info.time_steps,
            "random": request.random_weights,
        },
        "reference": f"float32 PyTorch on {request.reference_device}",
        "artefacts": [
            {
                "name": artefact.name,
                "sha256": file_sha256(artefact.path),
                "bytes": artefact.path.stat().st_size,
                "variant": artefact.vfi.info.variant,
                "precision": artefact.vfi.info.precision,
                "io": artefact.vfi.info.io,
                "tuned_for": artefact.vfi.info.tuned_for,
                "flow_scale": artefact.vfi.info.flow_scale,
                "backend": artefact.vfi.backend,
                "compared": artefact.compared,
            }
            for artefact in comparison.artefacts
        ],
        "notes": notes,
    }


def _open_artefacts(request: ParityRequest, owner: contextlib.ExitStack) -> list[Artefact]:
    artefacts = []
    for path in request.models:
        vfi = owner.enter_context(
            Interpolator.open(
                path,
                backend=request.backend,
                device=request.device,
                threads=request.threads,
                precision=request.inference_precision,
            )
        )
        compared: Compared = "floats" if vfi.info.io == "float" else "bytes"
        artefacts.append(Artefact(path.name, path, vfi, compared))
    if len({artefact.name for artefact in artefacts}) < len(artefacts):
        raise MeasurementError("two models have the same file name: rename one of them")
    return artefacts


def _references(
    request: ParityRequest,
    checkpoint: Checkpoint,
    artefacts: Sequence[Artefact],
    owner: contextlib.ExitStack,
) -> dict[Compared, Interpolator]:
    """PyTorch as the artefacts are: their I/O, their flow scale, their way through time."""
    import torch

    from bench.runs.torch_backend import TorchBackend, our_forward, reference_info

    if request.threads:
        torch.set_num_threads(request.threads)
    # A convolution in TensorFloat-32 is no float32 reference.
    torch.backends.cudnn.allow_tf32 = False
    try:
        network = checkpoint.network.to(request.reference_device)
    except (AssertionError, RuntimeError) as error:  # PyTorch without CUDA, or an unknown name.
        said = first_line(error)
        raise MeasurementError(
            f"PyTorch cannot compute on {request.reference_device!r} here ({said}): give another "
            "--reference-device"
        ) from error
    first = artefacts[0].vfi.info
    opened: dict[Compared, Interpolator] = {}
    for artefact in artefacts:
        if artefact.compared not in opened:
            info = reference_info(
                checkpoint, first.time_steps, io=artefact.vfi.info.io, flow_scale=first.flow_scale
            )
            backend = TorchBackend(
                our_forward(network), info, name="PyTorch", device=request.reference_device
            )
            opened[artefact.compared] = owner.enter_context(Interpolator(backend))
    return opened


def _deviations(
    artefacts: Sequence[Artefact], protocol: Protocol, sha256: str, *, force: bool
) -> list[str]:
    """What does not fit, as sentences; refused without --force."""
    first = artefacts[0].vfi.info
    for artefact in artefacts:
        info = artefact.vfi.info
        for what in ("flow_scale", "time_steps"):
            if getattr(info, what) != getattr(first, what):
                raise MeasurementError(
                    f"{artefact.name} has {what} {getattr(info, what)}, {artefacts[0].name} "
                    f"{getattr(first, what)}: measure them apart"
                )
    found = [
        f"{artefact.name} was made from weights {artefact.vfi.info.weights_sha256[:12]}, "
        f"--weights are {sha256[:12]}"
        for artefact in artefacts
        if artefact.vfi.info.weights_sha256 != sha256
    ]
    if first.flow_scale != protocol.flow_scale:
        found.append(
            f"{protocol.title} is measured at flow scale {protocol.flow_scale:g}, the models "
            f"have {first.flow_scale:g} (export with --flow-scale {protocol.flow_scale:g})"
        )
    if found and not force:
        raise MeasurementError(
            f"{'; '.join(found)}: give what fits, or --force to measure all the same"
        )
    return [f"forced: {sentence}" for sentence in found]
