"""Opens the artefacts, the PyTorch reference and the data set of a parity run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.data.datasets import DataSet, sizes_on_disk
from bench.data.protocols import Metric, Protocol
from bench.data.published import published
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
    from ifrnet_model.weights.table import Published


class OpenedParity(NamedTuple):
    """The opened parts of a parity run.

    Attributes:
        comparison: References, artefacts and metrics.
        data_set: The data set.
        checkpoint: Checkpoint of the reference.
        deviations: A sentence for each mismatch that `ParityRequest.force` accepted.
        figure: The published figure of the weights on the data set; None if there is none.
    """

    comparison: Comparison
    data_set: DataSet
    checkpoint: Checkpoint
    deviations: list[str]
    figure: Published | None


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
    mismatches = [
        *_mismatches(artefacts, protocol, checkpoint.sha256),
        *_other_sizes(data_set, protocol),
    ]
    if mismatches and not request.force:
        raise MeasurementError(
            f"{'; '.join(mismatches)}: give what matches, or --allow-mismatch to measure these"
        )
    figure = published(
        protocol.name,
        identity=checkpoint.identity,
        variant=checkpoint.network.config.variant,
        authors=request.authors_weights,
    )
    metrics = _metrics(request, protocol, figure)
    kinds: dict[Compared, None] = dict.fromkeys(artefact.compared for artefact in artefacts)
    if figure is not None:
        kinds.setdefault("floats")  # Published figures are of floats, also beside byte artefacts.
    references = _references(request, checkpoint, artefacts[0].vfi.info, list(kinds), owner)
    comparison = Comparison(protocol, metrics, references, artefacts)
    deviations = [f"forced: {sentence}" for sentence in mismatches]
    return OpenedParity(comparison, data_set, checkpoint, deviations, figure)


def _metrics(request: ParityRequest, protocol: Protocol, figure: Published | None) -> list[Metric]:
    """PSNR, the metrics of the request or of the protocol, and those of the published figure."""
    wanted: list[Metric] = ["psnr", *(request.metrics or protocol.metrics)]
    if figure is not None and figure.ssim is not None:
        wanted.append(figure.ssim_kind)
    if figure is not None and figure.ie is not None:
        wanted.append("ie")
    return list(dict.fromkeys(wanted))


def _other_sizes(data_set: DataSet, protocol: Protocol) -> list[str]:
    """A sentence if frames on disk have another size than those of the protocol; else nothing."""
    expected = protocol.stored_size
    if expected is None:
        return []
    others = [
        f"{height}x{width} (sample {name})"
        for (height, width), name in sizes_on_disk(data_set).items()
        if (height, width) != expected
    ]
    if not others:
        return []
    return [
        f"the frames on disk are {', '.join(others)}, and {protocol.title} is measured with frames "
        f"of {expected[0]}x{expected[1]}"
    ]


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
    info: ModelInfo,
    kinds: Sequence[Compared],
    owner: contextlib.ExitStack,
) -> dict[Compared, Interpolator]:
    """PyTorch with the flow scale, time steps and TTA of a model, for floats and for bytes."""
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
    opened: dict[Compared, Interpolator] = {}
    for kind in kinds:
        reference = reference_info(
            checkpoint,
            info.time_steps,
            io="float" if kind == "floats" else "frames",
            flow_scale=info.flow_scale,
            tta=info.tta,
        )
        backend = TorchBackend(
            our_forward(network), reference, name="PyTorch", device=request.reference_device
        )
        opened[kind] = owner.enter_context(Interpolator(backend))
    return opened


def _shared(info: ModelInfo) -> tuple[str, ...]:
    """What all models of a run must have in common, in words."""
    return (
        f"flow scale {info.flow_scale:g}",
        f"{info.time_steps} time steps",
        f"{'a' if info.tta else 'no'} mean with flipped frames",
    )


def _mismatches(artefacts: Sequence[Artefact], protocol: Protocol, sha256: str) -> list[str]:
    """What of artefacts, weights and protocol does not match, as sentences.

    Raises:
        MeasurementError: If the artefacts differ in a way in which one reference cannot serve all.
    """
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
    return mismatches
