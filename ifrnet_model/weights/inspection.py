"""Inspects a checkpoint file: format, origin, network, time steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifrnet_model.checkpoint import checkpoint_from_file, read_checkpoint, stated_time_steps
from ifrnet_model.probe import TimeStepTrial, try_time_steps
from ifrnet_model.weights.table import Identity, TimeSteps

_IDENTIFIED_BY = {
    "sha256": "by its sha256",
    "source_sha256": "by the source that its metadata states",
    "name": "by its name only, because no sha256 of that file is published",
}


@dataclass(frozen=True)
class CheckpointInspection:
    """The properties of a checkpoint file, and a trial of its network.

    Attributes:
        path: The file.
        size_bytes: Its size in bytes.
        sha256: Its SHA-256, 64 hexadecimal digits.
        identity: The known checkpoint that it is; None for other files.
        variant: Variant of the network.
        parameters: Number of values in all tensors.
        dtypes: Number of tensors by type, for example {"float32": 104}.
        wrappers: Keys of the dictionaries around the tensors, outermost first.
        prefixes: Prefixes of every tensor's name, outermost first.
        averaged: Whether the tensors are the average over the training steps, by these names.
        ordinary: The names around the ordinary weights that the file has too; None without them.
        names: The wrappers and prefixes as the command prints them; None if there are none.
        note: A sentence for the user if the file has averaged and ordinary weights; None if not.
        metadata: The metadata of a .safetensors file, otherwise empty.
        stated: The time steps that the metadata states; None if it states none.
        trial: The interpolation of a moving pattern at t = 1/4, 1/2, 3/4.
    """

    path: Path
    size_bytes: int
    sha256: str
    identity: Identity | None
    variant: str
    parameters: int
    dtypes: Mapping[str, int]
    wrappers: tuple[str, ...]
    prefixes: tuple[str, ...]
    averaged: bool
    ordinary: str | None
    names: str | None
    note: str | None
    metadata: Mapping[str, str]
    stated: TimeSteps | None
    trial: TimeStepTrial

    @property
    def published(self) -> TimeSteps | None:
        """The time steps of the known checkpoint; None for other files."""
        return self.identity.known.time_steps if self.identity else None

    @property
    def time_steps(self) -> TimeSteps:
        """The time steps that an export uses: those stated, else published, else tried."""
        return self.stated or self.published or self.trial.time_steps

    def as_data(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        known = self.identity.known if self.identity else None
        return {
            "file": str(self.path),
            "bytes": self.size_bytes,
            "sha256": self.sha256,
            "known": known.name if known else None,
            "known_by": self.identity.by if self.identity else None,
            "publisher": known.publisher if known else None,
            "training_set": known.training_set if known else None,
            "licence": known.licence if known else None,
            "variant": self.variant,
            "parameters": self.parameters,
            "dtypes": dict(self.dtypes),
            "wrappers": list(self.wrappers),
            "prefixes": list(self.prefixes),
            "averaged": self.averaged,
            "ordinary": self.ordinary,
            "metadata": dict(self.metadata),
            "time_steps": {
                "used": self.time_steps,
                "stated": self.stated,
                "published": self.published,
                "tried": self.trial.time_steps,
            },
            "trial": {
                "motion_px": self.trial.motion_px,
                "steps": [step._asdict() for step in self.trial.steps],
            },
            "published": {name: f._asdict() for name, f in known.figures.items()} if known else {},
        }


def inspect_checkpoint(path: str | Path) -> CheckpointInspection:
    """Reads and identifies a checkpoint, and tries its time steps.

    Args:
        path: A .pth or .safetensors file, or "demo".

    Raises:
        CheckpointError: If the file cannot be loaded as IFRNet.
    """
    file = read_checkpoint(path)
    checkpoint = checkpoint_from_file(file)
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in file.state.values())
    return CheckpointInspection(
        path=file.path,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        identity=checkpoint.identity,
        variant=checkpoint.network.config.variant,
        parameters=sum(tensor.numel() for tensor in file.state.values()),
        dtypes=dict(dtypes),
        wrappers=file.wrappers,
        prefixes=file.prefixes,
        averaged=file.averaged,
        ordinary=file.ordinary,
        names=file.names,
        note=file.note,
        metadata=file.metadata,
        stated=stated_time_steps(file.metadata),
        trial=try_time_steps(checkpoint.network),
    )


def inspection_lines(inspection: CheckpointInspection) -> Iterator[str]:
    """The inspection as the lines that the command prints."""
    yield f"file        {inspection.path}, {inspection.size_bytes} bytes"
    yield f"sha256      {inspection.sha256}"
    if inspection.identity:
        known = inspection.identity.known
        yield f"known       {known.name} ({_IDENTIFIED_BY[inspection.identity.by]})"
        yield (
            f"            publisher: {known.publisher}; training set: {known.training_set}; "
            f"licence: {known.licence}"
        )
    else:
        yield "known       no: neither its sha256 nor its name is that of a known checkpoint"
    tensors = ", ".join(f"{count} in {dtype}" for dtype, count in inspection.dtypes.items())
    yield (
        f"network     variant {inspection.variant}, {inspection.parameters} parameters; tensors: "
        f"{tensors}"
    )
    if inspection.names:
        yield f"names       {inspection.names}"
    if inspection.averaged:
        yield f"weights     {inspection.note or 'averaged over the training steps'}"
    for key, value in inspection.metadata.items():
        yield f"metadata    {key}: {value}"
    yield (
        f"time steps  {inspection.time_steps} (stated by the file: "
        f"{inspection.stated or 'nothing'}; published: {inspection.published or 'nothing'}; found "
        f"by trial: {inspection.trial.time_steps})"
    )
    yield from trial_lines(inspection.trial)
    if inspection.time_steps != inspection.trial.time_steps:
        yield "note        the trial contradicts the time steps that are stated or published"
    figures = inspection.identity.known.figures if inspection.identity else {}
    for dataset, figure in figures.items():
        rest = f", {figure.ssim_kind} {figure.ssim}" if figure.ssim is not None else ""
        rest += f", IE {figure.ie}" if figure.ie is not None else ""
        yield f"published   {dataset}: {figure.psnr} dB{rest} ({figure.source})"


def trial_lines(trial: TimeStepTrial) -> Iterator[str]:
    """The trial as the lines that the command prints."""
    for step in trial.steps:
        middle = "" if step.t == 0.5 else f", {step.middle_db:.1f} dB to the frame at t = 0.5"
        yield (
            f"trial       pattern moved by {trial.motion_px} px, t = {step.t:g}: PSNR "
            f"{step.true_db:.1f} dB to the true frame{middle}; for a blend of both inputs "
            f"{step.blend_db:.1f} dB"
        )
    if not trial.follows_motion:
        yield (
            "note        at t = 0.5 the weights are no better than a blend of both inputs: they "
            "may be untrained"
        )
