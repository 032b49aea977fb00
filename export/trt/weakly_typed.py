"""TensorRT 8.6: networks are weakly typed, so the types of the ONNX file are set layer by layer.

Otherwise, with the FP16 flag, the builder may compute any layer in float16, coordinates included.
`layer_types` derives the types from the ONNX file; the engine inspector shows whether the engine
has them. Builders have refused constraints on layers that they would fuse (TensorRT issues 2407,
2838, 3224), and a constraint can keep a whole fused block in float32 (issue 4540). Therefore
`export.request.Constraints` has several degrees.
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
    """The properties of a layer that its types depend on."""

    name: str
    inputs: list[str]
    outputs: list[str]
    outputs_are_float: list[bool]


class LayerTypes(NamedTuple):
    """The float type in which a layer computes, and those of its outputs; None for other types."""

    precision: int | None
    outputs: list[int | None]


def layer_types(layers: Iterable[Layer], types: Mapping[str, int]) -> dict[str, LayerTypes]:
    """Derives the types of every layer from those of the ONNX file.

    A tensor that the file names has the file's type. Tensors of layers that the parser adds
    (constants, shuffles for broadcasting) have the type of the layer's input, and those of
    constants, which have no input, the type of their first consumer.

    Args:
        layers: The layers in topological order.
        types: Element type (of TensorProto) of every tensor of the file by name.

    Returns:
        The types by name of the layer.
    """
    layers = list(layers)
    known = {name: kind for name, kind in types.items() if kind in FLOAT_TYPES}
    consumers: dict[str, Layer] = {}
    for layer in layers:
        for name in layer.inputs:
            consumers.setdefault(name, layer)

    def type_of(tensor: str) -> int | None:
        """The type by name, or else that of the first consumer, through layers of the parser."""
        followed = tensor
        while followed not in known:
            if followed in types or followed not in consumers:
                return None  # Integers, or without a consumer.
            consumer = consumers[followed]
            others = [name for name in consumer.inputs if name in known]
            if others and consumer.outputs[0] not in known:
                return known[others[0]]
            followed = consumer.outputs[0]
        return known[followed]

    derived: dict[str, LayerTypes] = {}
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
        derived[layer.name] = LayerTypes(first, outputs)
    return derived


class _WeaklyTyped:
    """Implements `export.trt.versions.Generation`."""

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
        derived = layer_types((_layer(layer, trt) for layer in layers), types)
        for layer in layers:
            precision, outputs = derived[layer.name]
            # A cast has its target type. A float16 constant needs no type, but a float32 constant
            # would become float16 together with its consumer.
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
    def monitored(self, config: Any, monitor: BuildMonitor) -> Iterator[None]:
        # TensorRT 8.6 has no progress monitor: one phase without steps.
        del config
        monitor.phase("TensorRT build", None, 0)
        yield
        monitor.finished("TensorRT build")

    def device_memory(self, engine: Any) -> int:
        return int(engine.device_memory_size)

    def check_types(self, layers: Layers, types: Mapping[str, int]) -> int | None:
        seen, missed = missed_types(layers, types)
        if missed:
            raise GateError(
                f"TensorRT computes {len(missed)} of {seen} float32 tensors in float16 "
                f"({', '.join(missed[:3])}), so the engine was not written: use --precision fp32"
            )
        return seen


def _layer(layer: Any, trt: Any) -> Layer:
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
    """The implementation for this TensorRT, for `export.trt.versions.generation_of`."""
    return _WeaklyTyped(trt)
