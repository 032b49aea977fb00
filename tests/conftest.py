"""Fixtures that several files share: networks, exported models, frames. Built once a session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import settings
from numpy.typing import NDArray

from export.artefact import Checked, write_onnx
from export.tracing import checked_from_checkpoint
from export.verify import moving_frames
from export.wrapper import ExportOptions
from ifrnet_model import VARIANTS, IFRNet, load_checkpoint

# No deadline: machines differ. The same examples in every CI run: a red one can be looked into.
settings.register_profile("ours", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("ours")

DATA = Path(__file__).parent / "data"
ROOT = Path(__file__).parent.parent

Frames = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Export = Callable[..., Checked]


def random_network(variant: str) -> IFRNet:
    """Weights that keep signals alive through all levels: flows and masks are far from zero."""
    generator = torch.Generator().manual_seed(0)
    network = IFRNet(VARIANTS[variant])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                fan = parameter[0].numel() if "convblock.2" not in name else parameter[:, 0].numel()
                parameter.normal_(0, (2 / fan) ** 0.5, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1, generator=generator)
    return network.eval()


@pytest.fixture(scope="session")
def demo_network() -> IFRNet:
    return load_checkpoint("demo").network


@pytest.fixture(scope="session")
def midpoint_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo weights made blind to the time step, as the Vimeo90K weights are."""
    state = load_checkpoint("demo").network.state_dict()
    weight = state["decoder4.convblock.0.0.weight"]
    state["decoder4.convblock.0.0.bias"] += 0.5 * weight[:, -1].sum((1, 2))
    weight[:, -1] = 0
    path = tmp_path_factory.mktemp("weights") / "blind.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def export() -> Export:
    """Exports demo weights (or `weights`) with ExportOptions by keyword, each set once."""
    made: dict[tuple[object, ...], Checked] = {}

    def export(weights: str | Path = "demo", **options: object) -> Checked:
        key = (str(weights), *sorted(options.items()))
        if key not in made:
            made[key] = checked_from_checkpoint(weights, ExportOptions(**options))  # type: ignore[arg-type]
        return made[key]

    return export


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, export: Export) -> Iterator[Path]:
    """A folder with small models: frames, float, three, dynamic."""
    folder = tmp_path_factory.mktemp("models")
    for name, options in {
        "frames": {"height": 50, "width": 70},
        "float": {"height": 64, "width": 80, "io": "float"},
        "three": {"height": 50, "width": 70, "timesteps": 3},
        "dynamic": {"height": 64, "width": 80, "dynamic": True},
    }.items():
        write_onnx(export(**options).model, folder / f"{name}.onnx")
    return folder


@pytest.fixture(scope="session")
def midpoint_model(
    tmp_path_factory: pytest.TempPathFactory, midpoint_checkpoint: Path, export: Export
) -> Path:
    path = tmp_path_factory.mktemp("midpoint") / "midpoint.onnx"
    write_onnx(export(midpoint_checkpoint, height=50, width=70).model, path)
    return path


@pytest.fixture
def frames() -> Frames:
    """Two 50x70 frames that move by four pixels."""
    return moving_frames(50, 70, 4.0)


def run_module(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`python -m ...` as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        timeout=300,
    )


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)
