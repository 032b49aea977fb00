"""What differs between the generations of TensorRT, as one interface; one file each behind it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, get_args

from onnx import TensorProto

from export.errors import ExportError
from export.request import Constraints
from export.trt.inspector import Layers

CONSTRAINTS: tuple[Constraints, ...] = get_args(Constraints)
"""The strictest first. All but the last are tried in this order until an engine passes."""

_GENERATIONS: dict[int, str] = {
    8: "export.trt.weakly_typed",
    10: "export.trt.strongly_typed",
    11: "export.trt.strongly_typed",
}
"""Major version -> module. There was no 9 for general use."""


class BuildMonitor(Protocol):
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

    def constraints(self, *, half: bool) -> tuple[Constraints | None, ...]:
        """The constraints to try, the strictest first; (None,) where there is no choice.

        Args:
            half: Whether the graph has float16 tensors.
        """
        ...

    def set_types(
        self,
        network: Any,
        types: Mapping[str, int],
        constraints: Constraints | None,
    ) -> dict[str, Any]:
        """Makes the built engine compute in the types of the ONNX file.

        Args:
            network: The parsed network; its layers are given types where TensorRT needs that.
            types: Element type (of TensorProto) of every tensor by name.
            constraints: How strictly, where there is a choice; None: as strictly as possible.

        Returns:
            Arguments of Polygraphy's CreateConfig without which the types do not hold.
        """
        ...

    def share_profile(self, config: Any) -> None:
        """Lets several execution contexts of the engine use one optimization profile."""
        ...

    def monitored(self, config: Any, progress: BuildMonitor) -> AbstractContextManager[None]:
        """Tells `progress` about the build that is made inside."""
        ...

    def device_memory(self, engine: Any) -> int:
        """Bytes that a context of this engine takes on the GPU."""
        ...

    def check_types(self, layers: Layers, types: Mapping[str, int]) -> int | None:
        """Counts the float32 tensors of the file that are float32 in the built engine.

        Args:
            layers: What the engine inspector tells; see `inspector.parse_layers`.
            types: Element type (of TensorProto) of every tensor of the file by name.

        Returns:
            Their number, or None where types cannot change and nothing was compared.

        Raises:
            GateError: If one is float16.
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
