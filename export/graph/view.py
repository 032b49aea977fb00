"""Helpers for rewrites of a graph: find, add and replace nodes and constants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graph.passes import drop_unused_constants


class GraphView:
    """Constants, producers and consumers of the tensors of a graph.

    Attributes:
        initializers: Constants by name.
        producers: Name of a tensor -> the node that outputs it.
        consumers: Name of a tensor -> the nodes that have it as input.
        outputs: Names of the outputs of the graph.
    """

    def __init__(self, model: ModelProto) -> None:
        self.initializers = {t.name: t for t in model.graph.initializer}
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in model.graph.output}

    def constant(self, name: str) -> NDArray[Any]:
        """The value of the constant `name`."""
        return numpy_helper.to_array(self.initializers[name])

    def is_constant(self, *names: str) -> bool:
        """Whether all of these tensors are constants."""
        return all(name in self.initializers for name in names)

    def only_consumer(self, name: str, *operators: str) -> NodeProto | None:
        """The only consumer of a tensor, if it is one of these operators; else None."""
        nodes = [] if name in self.outputs else self.consumers.get(name, [])
        return nodes[0] if len(nodes) == 1 and nodes[0].op_type in operators else None

    def is_convolution(self, node: NodeProto) -> bool:
        """Whether a node is a Conv, or an `is_deconvolution`, with constant weights and a bias."""
        plain = (
            node.op_type == "Conv" and len(node.input) == 3 and self.is_constant(*node.input[1:])
        )
        return plain or is_deconvolution(node, self.initializers)


def is_deconvolution(node: NodeProto, weights: Mapping[str, TensorProto]) -> bool:
    """Whether a node is ConvTranspose(4, stride 2, padding 1), one group, constant, with a bias."""
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
    """Replaces each node by the nodes that `rewritten` returns, and drops unused constants."""
    nodes = [new for node in model.graph.node for new in rewritten(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused_constants(model)
