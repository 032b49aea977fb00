"""The graphs from which tests/test_gpu.py builds engines, and the libcudart for Polygraphy."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SIZE = (130, 190)
"""Height and width of the frames. The graph pads them to 144x192."""


GRAPHS: dict[str, dict[str, Any]] = {
    "fp16": {"precision": "fp16"},
    "fp32": {"precision": "fp32"},
    "float": {"precision": "fp16", "io": "float", "height": 128, "width": 192},
    "three": {"precision": "fp16", "timesteps": 3},
    "batch": {"precision": "fp16", "batch": 2},
    "free_pairs": {"precision": "fp16", "max_batch": 4},
    "dynamic": {"precision": "fp16", "dynamic": True},
    "tiny": {"precision": "fp16", "height": 32, "width": 32},
}
"""Export options by name. The weights are "demo"; the size is SIZE where none is given."""


def load_libcudart(wrapper: Callable[[], Any]) -> Any:
    """Polygraphy's wrapper of libcudart.

    Polygraphy looks on LD_LIBRARY_PATH, in /usr/local/cuda, and in NVIDIA's packages for CUDA 12.
    If it finds none there, this function asks cuda-pathfinder, a dependency of cuda-bindings, which
    also searches the packages for CUDA 13, CUDA_HOME and the paths of the dynamic loader.

    Raises:
        OSError: If no libcudart is found.
    """
    try:
        return wrapper()
    except OSError as missing:
        try:
            found = importlib.import_module("cuda.pathfinder").load_nvidia_dynamic_lib("cudart")
        except (ImportError, RuntimeError):  # DynamicLibNotFoundError is a RuntimeError.
            raise missing from None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(Path(found.abs_path).parent), prepend=os.pathsep)
        return wrapper()
