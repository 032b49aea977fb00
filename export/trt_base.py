"""What differs between the generations of TensorRT, as one interface; one file each behind it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from onnx import TensorProto

from export.errors import ExportError

_GENERATIONS: dict[int, str] = {
    8: "export.trt_8",
    10: "export.trt_10",
    11: "export.trt_10",
}
"""Major version -> module. There was no 9 for general use."""


class Progress(Protocol):
    """Told about a build by TensorRT; phases nest."""

    cancelled: bool

    def phase(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins."""
        ...

    def step(self, name: str, step: int) -> None:
        """A step of a phase is done."""
        ...

    def finished(self, name: str) -> None:
        """A phase is over."""
        ...


class Generation(Protocol):
    """How one generation of TensorRT is driven.

    Attributes:
        can_be_cancelled: Whether a build under way can be stopped.
    """

    can_be_cancelled: bool

    def create_network(self, builder: Any) -> Any:
        """An empty network whose types shall be those of the ONNX file."""
        ...

    def keep_types(self, network: Any, config: Any, types: Mapping[str, int]) -> None:
        """Sees to it that the built engine computes in the types of the ONNX file.

        Args:
            network: As parsed.
            config: Of the build.
            types: Element type (of TensorProto) of every tensor by name.
        """
        ...

    def watched(self, config: Any, progress: Progress) -> AbstractContextManager[None]:
        """Tells `progress` about the build that is made inside."""
        ...

    def device_memory(self, engine: Any) -> int:
        """Bytes that a context of this engine takes on the GPU."""
        ...

    def proved_types(self, inspected: str, types: Mapping[str, int]) -> int | None:
        """How many float32 tensors of the file were seen to be float32 in the built engine.

        Args:
            inspected: JSON of the engine inspector.
            types: As of `keep_types`.

        Returns:
            None where types cannot change and nothing was looked at.

        Raises:
            ExportError: If any was not.
        """
        ...


def generation_of(trt: Any) -> Generation:
    """The generation of the TensorRT that is installed.

    Raises:
        ExportError: If it is none that this version knows.
    """
    version: str = trt.__version__
    major, minor = (int(part) for part in version.split(".")[:2])
    if major not in _GENERATIONS or (major, minor) < (8, 6):
        raise ExportError(
            f"TensorRT {version} is installed, this version of ifrnet-deploy builds with 8.6, "
            "10 and 11: install one of these, or use --backend onnxruntime"
        )
    module = importlib.import_module(_GENERATIONS[major])
    made: Generation = module.generation(trt)
    return made


FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)
