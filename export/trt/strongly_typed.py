"""TensorRT 10 and 11: networks are strongly typed, with the types of the ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from export.request import Constraints
from export.trt.inspector import Layers
from export.trt.versions import BuildMonitor


class _StronglyTyped:
    """Implements `export.trt.versions.Generation`."""

    can_be_cancelled = True

    def __init__(self, trt: Any) -> None:
        self._trt = trt

    def create_network(self, builder: Any) -> Any:
        # In TensorRT 11 every network is strongly typed; the flag still exists.
        flag = self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return builder.create_network(1 << int(flag))

    def constraints(self, *, half: bool) -> tuple[Constraints | None, ...]:
        del half
        return (None,)

    def set_types(
        self,
        network: Any,
        types: Mapping[str, int],
        constraints: Constraints | None,
    ) -> dict[str, Any]:
        """Does nothing."""
        del network, types, constraints
        return {}

    def share_profile(self, config: Any) -> None:
        """Does nothing: contexts share profiles from TensorRT 10 on."""
        del config

    @contextmanager
    def monitored(self, config: Any, monitor: BuildMonitor) -> Iterator[None]:
        trt = self._trt

        class ProgressMonitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]  # not known yet
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(
                self, phase_name: str, parent_phase: str | None, num_steps: int
            ) -> None:
                monitor.phase(phase_name, parent_phase, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                monitor.step(phase_name, step)
                return not monitor.cancelled

            def phase_finish(self, phase_name: str) -> None:
                monitor.finished(phase_name)

        # This reference keeps it alive, which TensorRT does not.
        progress_monitor = ProgressMonitor()
        config.progress_monitor = progress_monitor
        try:
            yield
        finally:
            config.progress_monitor = None
            del progress_monitor

    def device_memory(self, engine: Any) -> int:
        # device_memory_size_v2 was added in 10.1, device_memory_size removed in 11.
        size = getattr(engine, "device_memory_size_v2", None)
        return int(engine.device_memory_size if size is None else size)

    def check_types(self, layers: Layers, types: Mapping[str, int]) -> int | None:
        """Returns None: the types cannot change."""
        del layers, types
        return None


def generation(trt: Any) -> _StronglyTyped:
    """The implementation for this TensorRT, for `export.trt.versions.generation_of`."""
    return _StronglyTyped(trt)
