"""Checks of the files of a command, before any work."""

from __future__ import annotations

from pathlib import Path

from export.errors import ExportError


def check_source(*, weights: str | None = None, onnx: Path | None = None) -> None:
    """Checks that the file to export or to build from exists.

    Args:
        weights: A checkpoint file, or "demo"; None if it is not the source.
        onnx: An ONNX file; None if it is not the source.

    Raises:
        ExportError: If it is missing, or a folder.
    """
    if weights is not None and weights != "demo":
        listed = "python -m ifrnet_model.weights list shows the published ones"
        _check_file(Path(weights), f"a checkpoint file, or demo ({listed})")
    if onnx is not None:
        _check_file(onnx, "a file of export.to_onnx")


def check_output(path: Path) -> None:
    """Checks that a file can be written to a path.

    Raises:
        ExportError: If its folder is missing, or the path is a folder.
    """
    if not path.parent.is_dir():
        raise ExportError(f"{path.parent} is not a folder: create it first")
    if path.is_dir():
        raise ExportError(f"{path} is a folder: give the file to write")


def _check_file(path: Path, wanted: str) -> None:
    if path.is_dir():
        raise ExportError(f"{path} is a folder: give {wanted}")
    if not path.exists():
        raise ExportError(f"{path} does not exist: give {wanted}")
