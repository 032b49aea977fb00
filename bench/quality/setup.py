"""Opens the artefacts, the PyTorch reference and the data set of a parity run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.data.datasets import DataSet
from bench.data.protocols import Metric, Protocol
from bench.environment import MeasurementError
from bench.quality.evaluate import Artefact, Compared, Comparison
from bench.quality.request import ParityRequest
from bench.records.parity import Configuration
from runtime import Interpolator
from runtime.errors import first_line
from runtime.manifest import file_sha256
from runtime.model_info import ModelInfo

if TYPE_CHECKING:
    from ifrnet_model import Checkpoint


class OpenedParity(NamedTuple):
    """The opened parts of a parity run.

    Attributes:
        comparison: References, artefacts and metrics.
        data_set: The data set.
        checkpoint: Checkpoint of the reference.
        deviations: A sentence for each mismatch that `ParityRequest.force` accepted.
    """

    comparison: Comparison
    data_set: DataSet
    checkpoint: Checkpoint
    deviations: list[str]


def open_comparison(request: ParityRequest, owner: contextlib.ExitStack) -> OpenedParity:
    """Opens the artefacts, the reference and the data set of a request.

    Args:
        request: The request.
        owner: Closes the artefacts and the reference.

    Raises:
        MeasurementError: If the data set or the checkpoint cannot be read, or the artefacts do not
            match the weights, the protocol or each other.
    """
    from bench.runs.authors import load_reference

    protocol, data_set = request.protocol, request.find()
    checkpoint = load_reference(request.weights)
    artefacts = _open_artefacts(request, owner)
    if protocol.name == "folder":  # It defines no flow scale: the artefacts' is used.
        protocol = replace(protocol, flow_scale=artefacts[0].vfi.info.flow_scale)
    deviations = _deviations(artefacts, protocol, checkpoint.sha256, force=request.force)
    wanted = request.metrics or protocol.metrics
    metrics: list[Metric] = ["psnr", *(metric for metric in wanted if metric != "psnr")]
    references = _references(request, checkpoint, artefacts, owner)
    comparison = Comparison(protocol, metrics, references, artefacts)
    return OpenedParity(comparison, data_set, checkpoint, deviations)


def configuration_of(
    request: ParityRequest,
    comparison: Comparison,
    checkpoint: Checkpoint,
    data_set: DataSet,
    notes: list[str],
) -> Configuration:
    """The configuration in the header of the record; a resumed run must have the same."""
    return {
        "dataset": comparison.protocol.name,
        "title": comparison.protocol.title,
        "protocol": asdict(comparison.protocol),
        "samples": data_set.count,
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
        "reference": f"float32 PyTorch on {request.reference_device}"
        + (", mean with flipped frames" if comparison.artefacts[0].vfi.info.tta else ""),
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
    """PyTorch with the input and output, flow scale, time steps and TTA of the artefacts."""
    import torch

    from bench.runs.torch_backend import TorchBackend, our_forward, reference_info

    if request.threads:
        torch.set_num_threads(request.threads)
    # A float32 reference must not compute convolutions in TensorFloat-32.
    torch.backends.cudnn.allow_tf32 = False
    try:
        network = checkpoint.network.to(request.reference_device)
    except (AssertionError, RuntimeError) as error:  # PyTorch without CUDA, or an unknown name.
        why = first_line(error)
        raise MeasurementError(
            f"PyTorch cannot compute on {request.reference_device!r} ({why}): give another "
            "--reference-device"
        ) from error
    first = artefacts[0].vfi.info
    opened: dict[Compared, Interpolator] = {}
    for artefact in artefacts:
        if artefact.compared not in opened:
            info = reference_info(
                checkpoint,
                first.time_steps,
                io=artefact.vfi.info.io,
                flow_scale=first.flow_scale,
                tta=first.tta,
            )
            backend = TorchBackend(
                our_forward(network), info, name="PyTorch", device=request.reference_device
            )
            opened[artefact.compared] = owner.enter_context(Interpolator(backend))
    return opened


def _shared(info: ModelInfo) -> tuple[str, ...]:
    """What all models of a run must have in common, in words."""
    return (
        f"flow scale {info.flow_scale:g}",
        f"{info.time_steps} time steps",
        f"{'a' if info.tta else 'no'} mean with flipped frames",
    )


def _deviations(
    artefacts: Sequence[Artefact], protocol: Protocol, sha256: str, *, force: bool
) -> list[str]:
    """Mismatches of artefacts, weights and protocol, as sentences; errors without `force`."""
    first = artefacts[0].vfi.info
    for artefact in artefacts:
        info = artefact.vfi.info
        for found, wanted in zip(_shared(info), _shared(first), strict=True):
            if found != wanted:
                raise MeasurementError(
                    f"{artefact.name} has {found} and {artefacts[0].name} has {wanted}: measure "
                    "them in separate runs"
                )
    mismatches = [
        f"{artefact.name} was built from weights {artefact.vfi.info.weights_sha256[:12]}, "
        f"--weights has {sha256[:12]}"
        for artefact in artefacts
        if artefact.vfi.info.weights_sha256 != sha256
    ]
    if first.flow_scale != protocol.flow_scale:
        mismatches.append(
            f"{protocol.title} is measured at flow scale {protocol.flow_scale:g}, but the models "
            f"have {first.flow_scale:g} (export them with --flow-scale {protocol.flow_scale:g})"
        )
    if mismatches and not force:
        raise MeasurementError(
            f"{'; '.join(mismatches)}: give matching models and weights, or --allow-mismatch to "
            "measure these"
        )
    return [f"forced: {sentence}" for sentence in mismatches]
