"""One interface to the generations of TensorRT, each of which has its own module."""

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
"""Major version -> module. TensorRT 9 was not for general use."""


class BuildMonitor(Protocol):
    """Receives the progress of a build; phases nest.

    Attributes:
        cancelled: Whether the build must stop.
    """

    cancelled: bool

    def phase(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins, inside the phase `parent` if there is one."""
        ...

    def step(self, name: str, step: int) -> None:
        """Step number `step`, from 0, of a phase has ended."""
        ...

    def finished(self, name: str) -> None:
        """A phase has ended."""
        ...


class Generation(Protocol):
    """Calls of the builder that differ between generations of TensorRT.

    Attributes:
        can_be_cancelled: Whether a running build can be stopped.
    """

    can_be_cancelled: bool

    def create_network(self, builder: Any) -> Any:
        """Creates an empty network, strongly typed if this generation supports that."""
        ...

    def constraints(self, *, half: bool) -> tuple[Constraints | None, ...]:
        """The constraints to try, the strictest first; (None,) if there is no choice.

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
        """Prepares the network so that the built engine computes in the types of the ONNX file.

        Args:
            network: The parsed network; the types of its layers are set if TensorRT needs that.
            types: Element type (of TensorProto) of every tensor by name.
            constraints: How strictly, if there is a choice; None: as strictly as possible.

        Returns:
            The arguments of Polygraphy's CreateConfig that the types need.
        """
        ...

    def share_profile(self, config: Any) -> None:
        """Lets several execution contexts of the engine use one optimization profile."""
        ...

    def monitored(self, config: Any, monitor: BuildMonitor) -> AbstractContextManager[None]:
        """Reports the progress of the build inside the block to `monitor`."""
        ...

    def device_memory(self, engine: Any) -> int:
        """GPU memory of a context of this engine in bytes."""
        ...

    def check_types(self, layers: Layers, types: Mapping[str, int]) -> int | None:
        """Counts the float32 tensors of the file that are float32 in the built engine.

        Args:
            layers: The layers of the engine, of `export.trt.inspector.parse_layers`.
            types: Element type (of TensorProto) of every tensor of the file by name.

        Returns:
            Their number, or None if types cannot change, so that nothing is compared.

        Raises:
            GateError: If one is float16.
        """
        ...


def generation_of(trt: Any) -> Generation:
    """The generation of the TensorRT that is installed.

    Raises:
        ExportError: If ifrnet-deploy does not support that version.
    """
    version: str = trt.__version__
    major, minor = (int(part) for part in version.split(".")[:2])
    if major not in _GENERATIONS or (major, minor) < (8, 6):
        raise ExportError(
            f"TensorRT {version} is installed, this version of ifrnet-deploy supports 8.6, 10 and "
            "11: install one of these, or use --backend onnxruntime"
        )
    module = importlib.import_module(_GENERATIONS[major])
    generation: Generation = module.generation(trt)
    return generation


FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)
