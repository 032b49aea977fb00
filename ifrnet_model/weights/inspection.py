"""What a checkpoint file is: read, identified, and tried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifrnet_model.checkpoint import checkpoint_from_file, read_checkpoint, stated_time_steps
from ifrnet_model.probe import TimeStepTrial, try_time_steps
from ifrnet_model.weights.table import Identity, TimeSteps

_HOW = {
    "sha256": "by its sha256",
    "source_sha256": "converted from it, says the file",
    "name": "by its name alone: the hash of that file is not known",
}


@dataclass(frozen=True)
class Inspection:
    """What a file says, what is known of it, and what a trial shows.

    Attributes:
        path: The file.
        size_bytes: Of the file.
        sha256: Of the file.
        identity: Which known checkpoint it is.
        variant: Of the network.
        parameters: Numbers in all tensors.
        dtypes: How many tensors are of which type.
        wrappers: Keys of the dictionaries around the tensors.
        prefixes: What stands before every tensor's name.
        metadata: Of a .safetensors file.
        stated: The time steps that the metadata states.
        trial: How the network puts a moving pattern at t = 1/4, 1/2, 3/4.
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
    metadata: Mapping[str, str]
    stated: TimeSteps | None
    trial: TimeStepTrial

    @property
    def published(self) -> TimeSteps | None:
        """The time steps that the table of known checkpoints states."""
        return self.identity.known.time_steps if self.identity else None

    @property
    def time_steps(self) -> TimeSteps:
        """What an export takes: stated, else published, else what the trial shows."""
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


def inspect_checkpoint(path: str | Path) -> Inspection:
    """Reads, identifies and tries a checkpoint.

    Args:
        path: See `load_checkpoint`.

    Raises:
        CheckpointError: If it cannot be loaded.
    """
    file = read_checkpoint(path)
    checkpoint = checkpoint_from_file(file)
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in file.state.values())
    return Inspection(
        path=file.path,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        identity=checkpoint.identity,
        variant=checkpoint.network.config.variant,
        parameters=sum(tensor.numel() for tensor in file.state.values()),
        dtypes=dict(dtypes),
        wrappers=file.wrappers,
        prefixes=file.prefixes,
        metadata=file.metadata,
        stated=stated_time_steps(file.metadata),
        trial=try_time_steps(checkpoint.network),
    )


def inspection_lines(found: Inspection) -> Iterator[str]:
    """For a person."""
    yield f"file        {found.path}, {found.size_bytes} bytes"
    yield f"sha256      {found.sha256}"
    if found.identity:
        known = found.identity.known
        yield f"known       {known.name} ({_HOW[found.identity.by]})"
        yield f"            of {known.publisher}, trained on {known.training_set}, {known.licence}"
    else:
        yield "known       no: neither hash nor name is in the table"
    tensors = ", ".join(f"{count} {dtype}" for dtype, count in found.dtypes.items())
    yield f"network     {found.variant}, {found.parameters} parameters, tensors: {tensors}"
    if found.wrappers or found.prefixes:
        around = [f"wrapped in {key}" for key in found.wrappers]
        around += [f"prefix {prefix}" for prefix in found.prefixes]
        yield f"names       {', '.join(around)}"
    for key, value in found.metadata.items():
        yield f"metadata    {key}: {value}"
    yield (
        f"time steps  {found.time_steps} (stated by the file: {found.stated or 'nothing'}; "
        f"published: {found.published or 'nothing'}; by trial: {found.trial.time_steps})"
    )
    yield from trial_lines(found.trial)
    if found.time_steps != found.trial.time_steps:
        yield "note        the trial does not show what is said of the time steps"
    for dataset, figure in (found.identity.known.figures if found.identity else {}).items():
        rest = f", {figure.ssim_kind} {figure.ssim}" if figure.ssim is not None else ""
        rest += f", IE {figure.ie}" if figure.ie is not None else ""
        yield f"published   {dataset}: {figure.psnr} dB{rest} ({figure.source})"


def trial_lines(trial: TimeStepTrial) -> Iterator[str]:
    """What a trial showed, for a person."""
    for step in trial.steps:
        middle = "" if step.t == 0.5 else f", {step.middle_db:.1f} to the middle"
        yield (
            f"trial       pattern moved by {trial.motion_px} px, t = {step.t:g}: "
            f"{step.true_db:.1f} dB to its true place{middle}; blending {step.blend_db:.1f}"
        )
    if not trial.follows_motion:
        yield "note        even at t = 0.5 it does no better than blending: is it trained?"
