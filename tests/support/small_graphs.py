"""Small ONNX graphs, and their results in ONNX Runtime."""

from collections import Counter

from onnx import TensorProto, helper, numpy_helper

from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def run(model, **inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


def one_node(node, inputs, constants=()):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "one",
        [value(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [value("y", TensorProto.FLOAT, ["a", "b", "c", "d"])],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
