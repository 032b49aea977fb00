"""TensorRT 8.6: weakly typed, so that layers are told the types of the ONNX file.

Without that its builder may compute any layer in float16 once the FP16 flag is set, coordinates
too. `wanted_types` decides from the ONNX file alone; the engine inspector proves it on the built
engine. Builders have refused constraints on layers that they want to fuse (TensorRT issues 2407,
2838, 3224), and a constraint can keep a whole fused block in float32 (issue 4540), so there are
several ways to constrain a build; see `Constraints`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from onnx import TensorProto

from export.errors import GateError
from export.request import Constraints
from export.trt.inspector import Layers, missed_types
from export.trt.versions import CONSTRAINTS, FLOAT_TYPES, BuildMonitor


class Layer(NamedTuple):
    """What must be known of a layer to give it types."""

    name: str
    inputs: list[str]
    outputs: list[str]
    outputs_are_float: list[bool]


class LayerTypes(NamedTuple):
    """The float type to compute a layer in, None where it has none, and those of its outputs."""

    precision: int | None
    outputs: list[int | None]


def wanted_types(layers: Iterable[Layer], types: Mapping[str, int]) -> dict[str, LayerTypes]:
    """The types of every layer, computed from those of the ONNX file.

    A tensor that the file names has the file's type. The parser adds layers of its own
    (constants, shuffles for broadcasting), whose tensors the file does not name: these take the
    type of what they read, and constants, which read nothing, that of their first reader.

    Args:
        layers: In topological order.
        types: Element type of every tensor of the file by name.
    """
    layers = list(layers)
    known = {name: kind for name, kind in types.items() if kind in FLOAT_TYPES}
    readers: dict[str, Layer] = {}
    for layer in layers:
        for name in layer.inputs:
            readers.setdefault(name, layer)

    def type_of(tensor: str) -> int | None:
        """By name, else by what is done with it, however many helpers lie in between."""
        followed = tensor
        while followed not in known:
            if followed in types or followed not in readers:
                return None  # Of integers, or read by nobody.
            reader = readers[followed]
            others = [name for name in reader.inputs if name in known]
            if others and reader.outputs[0] not in known:
                return known[others[0]]
            followed = reader.outputs[0]
        return known[followed]

    wanted: dict[str, LayerTypes] = {}
    for layer in layers:
        read = [known[name] for name in layer.inputs if name in known]
        outputs: list[int | None] = []
        for name, is_float in zip(layer.outputs, layer.outputs_are_float, strict=True):
            if is_float and name not in known:
                kind = read[0] if read else type_of(name)
                if kind is not None:
                    known[name] = kind
            outputs.append(known.get(name) if is_float else None)
        first = next((kind for kind in outputs if kind is not None), None)
        wanted[layer.name] = LayerTypes(first, outputs)
    return wanted


class _WeaklyTyped:
    """See `Generation`."""

    can_be_cancelled = False

    def __init__(self, trt: Any) -> None:
        self._trt = trt

    def constraints(self, *, half: bool) -> tuple[Constraints | None, ...]:
        return CONSTRAINTS[:-1] if half else (None,)

    def create_network(self, builder: Any) -> Any:
        return builder.create_network(
            1 << int(self._trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
        )

    def set_types(
        self,
        network: Any,
        types: Mapping[str, int],
        constraints: Constraints | None,
    ) -> dict[str, Any]:
        trt = self._trt
        if TensorProto.FLOAT16 not in types.values():
            return {}
        if constraints == "none":
            return {"fp16": True}
        real = {int(TensorProto.FLOAT): trt.float32}
        if constraints in (None, "obey-all"):
            real[int(TensorProto.FLOAT16)] = trt.float16
        layers = [network.get_layer(k) for k in range(network.num_layers)]
        wanted = wanted_types((_described(layer, trt) for layer in layers), types)
        for layer in layers:
            precision, outputs = wanted[layer.name]
            # A cast has the type that it casts to. A constant is float16 of its own accord; one of
            # float32 would become float16 with the layer that reads it.
            if layer.type == trt.LayerType.CAST or (
                layer.type == trt.LayerType.CONSTANT and precision != TensorProto.FLOAT
            ):
                continue
            if precision in real:
                layer.precision = real[precision]
            for k, kind_of_output in enumerate(outputs):
                if kind_of_output in real:
                    layer.set_output_type(k, real[kind_of_output])
        strictness = "prefer" if constraints == "prefer-islands" else "obey"
        return {"fp16": True, "precision_constraints": strictness}

    def share_profile(self, config: Any) -> None:
        config.set_preview_feature(self._trt.PreviewFeature.PROFILE_SHARING_0806, True)

    @contextmanager
    def monitored(self, config: Any, progress: BuildMonitor) -> Iterator[None]:
        # 8.6 does not tell: one phase without steps.
        del config
        progress.phase("TensorRT build", None, 0)
        yield
        progress.finished("TensorRT build")

    def device_memory(self, engine: Any) -> int:
        return int(engine.device_memory_size)

    def check_types(self, layers: Layers, types: Mapping[str, int]) -> int | None:
        seen, missed = missed_types(layers, types)
        if missed:
            raise GateError(
                f"TensorRT computes {len(missed)} of {seen} float32 tensors in float16, "
                f"{', '.join(missed[:3])} first: the engine was not kept; use --precision fp32"
            )
        return seen


def _described(layer: Any, trt: Any) -> Layer:
    inputs = [layer.get_input(k) for k in range(layer.num_inputs)]
    outputs = [layer.get_output(k) for k in range(layer.num_outputs)]
    floats = (trt.float32, trt.float16)
    return Layer(
        layer.name,
        [tensor.name for tensor in inputs if tensor is not None],
        [tensor.name for tensor in outputs],
        [tensor.dtype in floats for tensor in outputs],
    )


def generation(trt: Any) -> _WeaklyTyped:
    """See `export.trt.versions.generation_of`."""
    return _WeaklyTyped(trt)
