"""Graphs for tools/gpu_check.py --quick, which would export each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

import gpu_check_steps
from bench.runs.authors import random_network
from export.candidate import CheckedModel
from export.store import write_onnx

SMALL, MIDDLE, _ = gpu_check_steps.QUICK.sizes


def write_check_graphs(export: Callable[..., CheckedModel], folder: Path) -> None:
    """Writes the graphs of the parts smoke and A with the fixture `export`."""

    def fp16(weights: str | Path, size: str, **options: object) -> CheckedModel:
        height, width = map(int, size.split("x"))
        return export(weights, height=height, width=width, precision="fp16", **options)

    folder.mkdir(parents=True)
    base = folder / "random.pth"
    torch.save(random_network("base").state_dict(), base)
    for name, made in {
        "test_tiny": fp16("demo", "32x32"),
        "test_dynamic": fp16("demo", "130x190", dynamic=True),
        f"small_{SMALL}_fp16": fp16("demo", SMALL),
        f"base_{MIDDLE}_fp16": fp16(base, MIDDLE),
    }.items():
        write_onnx(made.model, folder / f"{name}.onnx")
    base.unlink()
