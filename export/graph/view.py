"""What rewrites of a graph share: looking around in it, constants, replacing nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graph.passes import drop_unused_constants


class GraphView:
    """A graph's constants, and who makes and who reads its tensors."""

    def __init__(self, model: ModelProto) -> None:
        self.initializers = {t.name: t for t in model.graph.initializer}
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in model.graph.output}

    def constant(self, name: str) -> NDArray[Any]:
        """The value of a constant."""
        return numpy_helper.to_array(self.initializers[name])

    def is_constant(self, *names: str) -> bool:
        """Whether all of these are constants."""
        return all(name in self.initializers for name in names)

    def only_consumer(self, name: str, *operators: str) -> NodeProto | None:
        """Who alone reads a tensor, if it is one of these operators."""
        readers = [] if name in self.outputs else self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type in operators else None

    def is_convolution(self, node: NodeProto) -> bool:
        """Whether it is a convolution or a `is_deconvolution` with constant weights and a bias."""
        plain = (
            node.op_type == "Conv" and len(node.input) == 3 and self.is_constant(*node.input[1:])
        )
        return plain or is_deconvolution(node, self.initializers)


def is_deconvolution(node: NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    """Whether it is ConvTranspose(4, stride 2, padding 1), one group, with weights and a bias."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return (
        node.op_type == "ConvTranspose"
        and len(node.input) == 3
        and all(name in weights for name in node.input[1:])
        and tuple(weights[node.input[1]].dims[2:]) == (4, 4)
        and attributes.get("strides") == [2, 2]
        and attributes.get("pads") == [1, 1, 1, 1]
        and attributes.get("group", 1) == 1
        and not any(attributes.get("output_padding", []))
    )


def add_constant(model: ModelProto, name: str, value: NDArray[Any]) -> None:
    """Adds an initializer, in place."""
    model.graph.initializer.append(numpy_helper.from_array(value, name))


def replace_nodes(model: ModelProto, rewritten: Callable[[NodeProto], Iterable[NodeProto]]) -> None:
    """Puts what `rewritten` makes of each node in its place and drops constants left unused."""
    nodes = [made for node in model.graph.node for made in rewritten(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused_constants(model)
