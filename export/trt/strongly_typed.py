"""TensorRT 10 and 11: strongly typed, so that precision is what the ONNX file says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from export.request import Constraints
from export.trt.inspector import Layers
from export.trt.versions import BuildMonitor


class _StronglyTyped:
    """See `Generation`."""

    can_be_cancelled = True

    def __init__(self, trt: Any) -> None:
        self._trt = trt

    def create_network(self, builder: Any) -> Any:
        # In 11 every network is; the flag is still there and says the same.
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
        """Nothing to do."""
        del network, types, constraints
        return {}

    def share_profile(self, config: Any) -> None:
        """Nothing to do: contexts share profiles from 10 on."""
        del config

    @contextmanager
    def monitored(self, config: Any, progress: BuildMonitor) -> Iterator[None]:
        trt = self._trt

        class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]  # not known yet
            def __init__(self) -> None:
                trt.IProgressMonitor.__init__(self)

            def phase_start(
                self, phase_name: str, parent_phase: str | None, num_steps: int
            ) -> None:
                progress.phase(phase_name, parent_phase, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                progress.step(phase_name, step)
                return not progress.cancelled

            def phase_finish(self, phase_name: str) -> None:
                progress.finished(phase_name)

        # TensorRT does not keep it alive.
        monitor = Monitor()
        config.progress_monitor = monitor
        try:
            yield
        finally:
            config.progress_monitor = None
            del monitor

    def device_memory(self, engine: Any) -> int:
        # The second came with 10.1, the first went with 11.
        size = getattr(engine, "device_memory_size_v2", None)
        return int(engine.device_memory_size if size is None else size)

    def check_types(self, layers: Layers, types: Mapping[str, int]) -> int | None:
        """None: there is nothing that could differ."""
        del layers, types
        return None


def generation(trt: Any) -> _StronglyTyped:
    """See `export.trt.versions.generation_of`."""
    return _StronglyTyped(trt)
