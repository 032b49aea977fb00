"""Fakes of three generations of TensorRT. Their engines compute with ONNX Runtime.

The names of each version and the values of enumerations come from the record of the real bindings
(data/tensorrt_api.json): a fake of 8.6 has no IProgressMonitor, one of 11 no BuilderFlag.FP16. An
engine runs asynchronously on a `FakeCuda` and allocates its memory there.

Where a weakly typed build (8.6) with the FP16 flag may choose a type, the fake chooses float16: a
layer that is not set to float32 loses digits, and the gate notices.
"""

from __future__ import annotations

import ctypes
import functools
import json
import math
import struct
import sys
import types
import weakref
import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from fake_cuda import FakeCuda
from paths import DATA
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")

RECORD = json.loads((DATA / "tensorrt_api.json").read_text())

_MAGIC = b"fake TensorRT plan"
_CACHE_MAGIC = b"fake timing cache"
_SCRATCH = 4096
_ELEMENT_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT8: "INT8",
}
_LAYER_TYPES = {
    layer: operators.split()
    for layer, operators in {
        "CONVOLUTION": "Conv",
        "DECONVOLUTION": "ConvTranspose",
        "PARAMETRIC_RELU": "PRelu",
        "ELEMENTWISE": "Add Sub Mul Div Pow Max Min Equal Greater Less And Or Mod",
        "CONCATENATION": "Concat",
        "SLICE": "Slice Split Pad Expand Tile",
        "RESIZE": "Resize",
        "GRID_SAMPLE": "GridSample",
        "CAST": "Cast",
        "SHUFFLE": "Reshape Transpose Squeeze Unsqueeze Flatten DepthToSpace SpaceToDepth",
        "ACTIVATION": "Sigmoid Relu Clip LeakyRelu Tanh",
        "SHAPE": "Shape",
        "GATHER": "Gather GatherElements GatherND",
        "UNARY": "Exp Log Sqrt Neg Abs Floor Ceil Round Not Reciprocal",
        "REDUCE": "ReduceMean ReduceSum ReduceMax ReduceMin",
        "SELECT": "Where",
        "CONSTANT": "Constant",
        "MATRIX_MULTIPLY": "MatMul Gemm",
        "FILL": "ConstantOfShape Range",
        "SCATTER": "ScatterND ScatterElements",
    }.items()
}
_LAYER_OF = {operator: layer for layer, all_of in _LAYER_TYPES.items() for operator in all_of}
_WEIGHTS_OF = {"Conv": (1, 2), "ConvTranspose": (1, 2)}
"""Inputs that are a layer's weights; other initializers of floats become layers of their own."""
_BROADCASTS = ("Add", "Sub", "Mul", "Div", "Pow", "PRelu", "Where")
_LOADS = {(8, 8), (8, 10), (10, 10), (10, 11), (11, 11)}
"""Major versions that built a version-compatible plan, and that load it."""
_WEAK_ONLY = ("FP16", "BF16", "INT8", "FP8", "OBEY_PRECISION_CONSTRAINTS")
_READABLE = {
    8: {
        "FLOAT": "Row major linear FP32",
        "HALF": "Channel major FP16 format where channel % 8 == 0",
    },
    10: {"FLOAT": "Float", "HALF": "Half"},
}
"""The engine inspector's names of types, by the first major version that uses them."""


class _Enum:
    """An enumeration as pybind11 makes it: int() and equality, but no arithmetic."""

    __members__: dict[str, Any]

    def __init__(self, value: int) -> None:
        self.value = value

    @property
    def name(self) -> str:
        return next(name for name, member in self.__members__.items() if member == self)

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.name}"

    def __repr__(self) -> str:
        return f"<{self}: {self.value}>"


class _Bound:
    """A class of the bindings: setting an unknown attribute raises AttributeError."""

    def __setattr__(self, name: str, value: Any) -> None:
        known = isinstance(getattr(type(self), name, None), property)
        if not known and not name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        object.__setattr__(self, name, value)


class _Overridable(type):
    """A class that users derive from: its __init__ must be called."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        if "_made" not in made.__dict__:
            raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")
        return made


def _settable(name: str, default: Any = None) -> Any:
    def get(self: Any) -> Any:
        return self.__dict__.get(f"_{name}", default)

    return property(get, lambda self, value: self.__dict__.__setitem__(f"_{name}", value))


class ILogger(metaclass=_Overridable):
    def __init__(self) -> None:
        self._made = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class Logger(ILogger):
    min_severity = _settable("min_severity")

    def __init__(self, min_severity: Any = None) -> None:
        self._made = True
        self._min_severity = min_severity or self._trt.ILogger.Severity.WARNING

    def log(self, severity: Any, msg: str) -> None:
        if int(severity) <= int(self._min_severity):
            print(f"[TRT] [{severity.name}] {msg}", file=sys.stderr)


class IProgressMonitor(metaclass=_Overridable):
    def __init__(self) -> None:
        self._made = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...

    def step_complete(self, phase_name: str, step: int) -> bool: ...

    def phase_finish(self, phase_name: str) -> None: ...


class IProfiler(metaclass=_Overridable):
    def __init__(self) -> None:
        self._made = True

    def report_layer_time(self, layer_name: str, ms: float) -> None: ...


class Dims:
    """A shape: a sequence that equals a tuple of the same numbers."""

    __hash__ = None

    def __init__(self, shape: Iterable[int] = ()) -> None:
        self._shape = tuple(int(n) for n in shape)

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, arg0: Any) -> Any:
        return self._shape[arg0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dims | tuple | list) and tuple(other) == self._shape

    def __repr__(self) -> str:
        return str(self._shape)


def _host_memory(content: bytes) -> Any:
    """An IHostMemory: the buffer protocol and `nbytes`, but no len()."""

    def no_length(self: Any) -> int:
        raise TypeError(f"object of type {type(self).__name__!r} has no len()")

    names = {"nbytes": property(lambda _: len(content)), "__len__": no_length}
    kind = type("IHostMemory", (ctypes.c_ubyte * len(content),), names)
    return kind.from_buffer_copy(content)


class ITensor(_Bound):
    name, location = _settable("name"), _settable("location")
    dtype, shape = _settable("dtype"), _settable("shape")
    is_network_input = _settable("is_network_input", False)
    is_network_output = _settable("is_network_output", False)

    def __init__(self, name: str, dtype: Any, shape: Dims) -> None:
        self._name, self._dtype, self._shape = name, dtype, shape

    @property
    def is_shape_tensor(self) -> bool:
        return self._dtype.name in ("INT32", "INT64") and len(self._shape) <= 1


class ILayer(_Bound):
    """A layer. Weakly typed builds obey its precision and output types."""

    name, metadata = _settable("name"), _settable("metadata", "")

    def __init__(
        self, name: str, kind: Any, inputs: list[ITensor | None], outputs: list[ITensor]
    ) -> None:
        self._name, self._type, self._inputs, self._outputs = name, kind, inputs, outputs
        self._chosen: Any = None
        self._output_types: dict[int, Any] = {}

    type = property(lambda self: self._type)
    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))
    precision_is_set = property(lambda self: self._chosen is not None)

    def get_input(self, index: int) -> ITensor | None:
        return self._inputs[index] if index < len(self._inputs) else None

    def get_output(self, index: int) -> ITensor | None:
        return self._outputs[index] if index < len(self._outputs) else None

    @property
    def precision(self) -> Any:
        return self._chosen or self._outputs[0]._dtype

    @precision.setter
    def precision(self, value: Any) -> None:
        self._chosen = value

    def reset_precision(self) -> None:
        self._chosen = None

    def set_output_type(self, index: int, dtype: Any) -> None:
        self._output_types[index] = dtype

    def output_type_is_set(self, index: int) -> bool:
        return index in self._output_types

    def get_output_type(self, index: int) -> Any:
        return self._output_types.get(index, self._outputs[index]._dtype)

    def reset_output_type(self, index: int) -> None:
        self._output_types.pop(index, None)


class INetworkDefinition(_Bound):
    name = _settable("name", "")

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._layers: list[ILayer] = []
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []
        self._model: ModelProto | None = None
        self._constants: dict[str, str] = {}  # Output of a constant layer -> initializer.
        self._broadcasts: dict[str, tuple[str, int]] = {}  # Output -> reading node's output, input.

    num_layers = property(lambda self: len(self._layers))
    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))
    flags = property(lambda self: self._flags)
    has_implicit_batch_dimension = property(lambda self: not self._explicit)

    @property
    def _explicit(self) -> bool:
        return self._trt._major > 8 or self._has("EXPLICIT_BATCH")

    @property
    def _strong(self) -> bool:
        return self._trt._major > 10 or self._has("STRONGLY_TYPED")

    def _has(self, name: str) -> bool:
        flag = getattr(self._trt.NetworkDefinitionCreationFlag, name, None)
        return flag is not None and bool(self._flags >> int(flag) & 1)

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags >> int(flag) & 1)

    def get_layer(self, index: int) -> ILayer:
        return self._layers[index]

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, arg0: int) -> ILayer:
        return self._layers[arg0]


class IOptimizationProfile(_Bound):
    def __init__(self) -> None:
        self._shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
        shapes = [tuple(shape) for shape in (min, opt, max)]
        if len({len(shape) for shape in shapes}) != 1 or not all(
            a <= b <= c for a, b, c in zip(*shapes, strict=True)
        ):
            raise ValueError(f"shapes of {input} are inconsistent: {shapes}")
        self._shapes[input] = shapes

    def get_shape(self, input: str) -> list[Dims]:  # noqa: A002
        return [Dims(shape) for shape in self._shapes.get(input, [])]


class ITimingCache(_Bound):
    def __init__(self, version: str, entries: int = 0) -> None:
        self._version, self._entries = version, entries

    def serialize(self) -> Any:
        body = json.dumps([self._version, self._entries]).encode()
        return _host_memory(_sealed(_CACHE_MAGIC, body))

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        fits = ignore_mismatch or input_cache._version == self._version
        self._entries += input_cache._entries if fits else 0
        return fits


class IBuilderConfig(_Bound):
    flags = _settable("flags")
    builder_optimization_level = _settable("builder_optimization_level", 3)
    profiling_verbosity = _settable("profiling_verbosity")
    hardware_compatibility_level = _settable("hardware_compatibility_level")
    progress_monitor = _settable("progress_monitor")
    max_aux_streams = _settable("max_aux_streams", -1)
    avg_timing_iterations = _settable("avg_timing_iterations", 1)

    def __init__(self) -> None:
        trt = self._trt
        self._flags = 1 << int(trt.BuilderFlag.TF32)
        self._profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        self._hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
        self._pools: dict[Any, int] = {}
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None
        # From 10 on contexts share profiles unless told otherwise.
        self._previews = {"PROFILE_SHARING_0806"} if trt._major >= 10 else set()

    num_optimization_profiles = property(lambda self: len(self._profiles))

    def set_flag(self, flag: Any) -> None:
        self._flags |= self._bit(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags &= ~self._bit(flag)

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flags & self._bit(flag))

    def _bit(self, flag: Any) -> int:
        if not isinstance(flag, self._trt.BuilderFlag):
            raise TypeError("incompatible function arguments: flag must be a BuilderFlag")
        return 1 << int(flag)

    def _flag_names(self) -> list[str]:
        members = self._trt.BuilderFlag.__members__
        return [name for name, flag in members.items() if self.get_flag(flag)]

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        if not isinstance(feature, self._trt.PreviewFeature):
            raise TypeError("incompatible function arguments: feature must be a PreviewFeature")
        (self._previews.add if enable else self._previews.discard)(feature.name)

    def get_preview_feature(self, feature: Any) -> bool:
        return feature.name in self._previews

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(pool, self._trt.cuda.total_memory)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache:
        content = bytes(serialized_timing_cache)
        if not content:
            return self._trt._new("ITimingCache", self._trt.__version__)
        body = _unsealed(_CACHE_MAGIC, content)
        if body is None:
            self._trt.cuda.violation("a corrupt timing cache aborts the process")
        return self._trt._new("ITimingCache", *json.loads(body or b""))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._version != self._trt.__version__ and not ignore_mismatch:
            return False
        if self._cache is not None and self._trt._major == 8:  # Seen with 8.6.0 on an H200.
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder(_Bound):
    def __init__(self, logger: ILogger) -> None:
        _needs_gpu(self._trt)
        self._logger, self._device = logger, self._trt.cuda.current_device

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        if not isinstance(flags, int):
            raise TypeError("incompatible function arguments: flags must be an int")
        return self._trt._new("INetworkDefinition", flags)

    def create_builder_config(self) -> IBuilderConfig:
        return self._trt._new("IBuilderConfig")

    def create_optimization_profile(self) -> IOptimizationProfile:
        return self._trt._new("IOptimizationProfile")

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> Any | None:
        trt = self._trt
        if trt.cuda.current_device != self._device:
            trt.cuda.violation("the builder was made on another device than it is used on")
        told = trt.fail_build
        problem = told(network, config) if callable(told) else told
        problem = problem or _build_problem(network, config)
        if problem:
            _log(trt, self._logger, "ERROR", f"IBuilder::buildSerializedNetwork: {problem}")
            return None
        if not _show_progress(config, network):
            _log(trt, self._logger, "ERROR", "the build was cancelled by the progress monitor")
            return None
        if config._cache:
            config._cache._entries += len(network._layers)
        trt.builds.append((network, config))
        return _host_memory(_plan(trt, network, config))


def _build_problem(network: INetworkDefinition, config: IBuilderConfig) -> str | None:
    """The message with which the real builder refuses a network; None if it accepts it."""
    names = config._flag_names()
    dynamic = [t.name for t in network._inputs if -1 in tuple(t.shape)]
    weak = [name for name in names if name in _WEAK_ONLY]
    if network._model is None:
        return "Error Code 4: Internal Error (Network must have at least one output)"
    if dynamic and not config._profiles:
        return (
            "Error Code 4: API Usage Error (Network has dynamic or shape inputs, but no "
            "optimization profile has been defined.)"
        )
    for name in dynamic:
        if any(name not in profile._shapes for profile in config._profiles):
            return f"Error Code 4: {name} has dynamic dimensions and no range in the profile"
    if "VERSION_COMPATIBLE" in names and not network._trt.has_lean_runtime:
        return "Error Code 4: Internal Error (Could not determine path for lean runtime!)"
    if network._strong and weak:
        return f"Error Code 3: API Usage Error ({weak} in a strongly typed network)"
    for layer in network._layers:
        wanted = [layer._chosen, *layer._output_types.values()]
        if any(w and w.name == "HALF" for w in wanted) and "FP16" not in names:
            return (
                "Error Code 4: Internal Error (fp16 precision has been set for a layer or layer "
                f"output, but fp16 is not configured in the builder: {layer.name})"
            )
        for index, dtype in layer._output_types.items():
            if _is_float(dtype) != _is_float(layer._outputs[index]._dtype):
                return f"Error Code 3: API Usage Error (output type of {layer.name} is no {dtype})"
    return None


def _show_progress(config: IBuilderConfig, network: INetworkDefinition) -> bool:
    """Reports the phases of a build to the monitor; False if the monitor cancels the build."""
    monitor, go_on = vars(config).get("_progress_monitor"), True
    if monitor is None:
        return True
    whole, layers = "Building engine", len(network._layers)
    phases = [("Cloning network graph", layers), ("Timing graph nodes", 3)]
    monitor.phase_start(whole, None, len(phases))
    for index, (name, steps) in enumerate(phases):
        monitor.phase_start(name, whole, steps)
        for step in range(steps):
            go_on = go_on and monitor.step_complete(name, step)
        monitor.phase_finish(name)
        go_on = go_on and monitor.step_complete(whole, index)
    monitor.phase_finish(whole)
    return go_on


def _is_float(dtype: Any) -> bool:
    return dtype.name in ("FLOAT", "HALF")


def _float16_by_choice(network: INetworkDefinition, config: IBuilderConfig) -> dict[str, Any]:
    """The float32 values that a weakly typed build may round to float16.

    `tensors` are names; `reads` are single inputs, as (output of the reading node, input index).
    """
    flags = config._flag_names()
    chosen: dict[str, Any] = {"tensors": [], "reads": []}
    if network._strong or "FP16" not in flags:
        return chosen
    obeyed = {"OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"} & {*flags}

    def is_float32(layer: ILayer, index: int) -> bool:
        told = (layer._chosen, layer._output_types.get(index))
        return bool(obeyed) and all(t is not None and t.name == "FLOAT" for t in told)

    for layer in network._layers:
        for index, tensor in enumerate(layer._outputs):
            kind, name = layer._type.name, tensor.name
            readers = [other for other in network._layers if tensor in other._inputs]
            if tensor._dtype.name != "FLOAT" or kind == "CAST" or is_float32(layer, index):
                continue
            if kind == "CONSTANT":  # A constant takes the type of its readers.
                if not all(is_float32(reader, 0) for reader in readers):
                    chosen["tensors"].append(network._constants[name])
            elif name in network._broadcasts:
                chosen["reads"].append(network._broadcasts[name])
            else:
                chosen["tensors"].append(name)
    return chosen


def _plan(trt: Any, network: INetworkDefinition, config: IBuilderConfig) -> bytes:
    """The bytes of an engine: magic, checksum, a header in JSON and the ONNX file."""
    assert network._model

    def described(tensors: Iterable[ITensor | None]) -> list[Any]:
        return [(t.name, t._dtype.name, tuple(t._shape)) for t in tensors if t]

    held = trt.held_in_float32(network, config) if trt.held_in_float32 else set()

    def described_as_built(layer: ILayer, tensors: Iterable[ITensor | None]) -> list[Any]:
        wide = layer.name in held
        return [
            (name, "FLOAT" if wide and kind == "HALF" else kind, shape)
            for name, kind, shape in described(tensors)
        ]

    header = {
        "version": trt.__version__,
        "flags": config._flag_names(),
        "verbosity": config.profiling_verbosity.name,
        "profiles": [profile._shapes for profile in config._profiles],
        "shared": "PROFILE_SHARING_0806" in config._previews,
        "rounded": _float16_by_choice(network, config),
        "layers": [
            {
                "Name": layer.name,
                "LayerType": layer._type.name.title().replace("_", ""),
                "Inputs": described_as_built(layer, layer._inputs),
                "Outputs": described_as_built(layer, layer._outputs),
                "Metadata": layer.metadata,
            }
            for layer in network._layers
        ],
    }
    text = json.dumps(header).encode()
    model = network._model.SerializeToString()
    return _sealed(_MAGIC, struct.pack("<I", len(text)) + text + model)


def _sealed(magic: bytes, body: bytes) -> bytes:
    return magic + struct.pack("<I", zlib.crc32(body)) + body


def _unsealed(magic: bytes, content: bytes) -> bytes | None:
    body = content[len(magic) + 4 :]
    return body if content and content == _sealed(magic, body) else None


class ParserError(_Bound):
    def __init__(self, code: Any, desc: str, index: int, node: onnx.NodeProto) -> None:
        self._code, self._desc, self._index, self._node = code, desc, index, node

    def code(self) -> Any:
        return self._code

    def desc(self) -> str:
        return self._desc

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return self._node.name

    def node_operator(self) -> str:
        return self._node.op_type

    def __str__(self) -> str:
        return f"In node {self._index}: {self._code.name}: {self._desc}"


class OnnxParser(_Bound):
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._logger = network, logger
        self._errors: list[ParserError] = []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def clear_errors(self) -> None:
        self._errors.clear()

    def parse(self, model: Any, path: str | None = None) -> bool:
        del path
        parsed = ModelProto()
        try:
            parsed.ParseFromString(bytes(model))
        except Exception:
            return self._fail("MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model.")
        if not self._network._explicit:
            text = "only supports TensorRT INetworkDefinitions with an explicit batch dimension"
            return self._fail("INVALID_VALUE", f"This version of the ONNX parser {text}.")
        for index, node in enumerate(parsed.graph.node):
            if node.op_type in self._trt.unsupported_operators:
                text = "are the plugin name, version, and namespace correct?"
                return self._fail("INVALID_NODE", f"Plugin not found, {text}", index, node)
            if self._trt._major == 8 and has_range(node):  # Seen with 8.6.0 on an H200.
                text = "Invalid Node - Reshape\nReshaping [4] to [1]."
                return self._fail("INVALID_NODE", text, index, node)
        _fill_network(self._network, parsed)
        return True

    def _fail(
        self, code: str, text: str, index: int = -1, node: onnx.NodeProto | None = None
    ) -> bool:
        kind = getattr(self._trt.ErrorCode, code)
        self._errors.append(
            self._trt._new("ParserError", kind, text, index, node or onnx.NodeProto())
        )
        _log(self._trt, self._logger, "ERROR", str(self._errors[-1]))
        return False


def has_range(node: onnx.NodeProto) -> bool:
    """Whether a Shape node returns only a part of the shape."""
    return node.op_type == "Shape" and any(a.name == "end" or a.i for a in node.attribute)


def _fill_network(network: INetworkDefinition, model: ModelProto) -> None:
    """Adds the layers that the real parser makes.

    That is one for each node, several for a Split, and extra ones for constants and broadcasts.
    """
    trt, graph = network._trt, model.graph
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    initializers = {t.name: t for t in graph.initializer}
    # Initializers become layers where they are read, even if the file lists their types.
    tensors = {v.name: _tensor(trt, v) for v in values if v.name not in initializers}
    constants: dict[str, ITensor] = {}
    names: set[str] = set()

    def add(name: str, kind: str, inputs: list[ITensor | None], output: ITensor) -> ILayer:
        unique = name
        while unique in names:
            unique = f"{name}_{len(names)}"
        names.add(unique)
        layer: ILayer = trt._new("ILayer", unique, getattr(trt.LayerType, kind), inputs, [output])
        network._layers.append(layer)
        return layer

    def helper_layer(name: str, kind: str, source: ITensor | None, like: Any) -> ITensor:
        """Adds a layer that has no node. TensorRT 8.6 numbers it, later versions name it."""
        unnamed = f"(Unnamed Layer* {len(network._layers)}) [{kind.title()}]"
        later = f"{name}_{len(network._layers)}_output"
        made = f"{unnamed}_output" if trt._major == 8 else later
        output: ITensor = trt._new("ITensor", made, *like)
        if kind == "SHUFFLE" and trt._major == 8:
            name = unnamed
        add(name, kind, [source] if source else [], output)
        return output

    def constant(name: str) -> ITensor:
        if name not in constants:
            proto = initializers[name]
            like = (_dtype(trt, proto.data_type), Dims(proto.dims))
            constants[name] = helper_layer(name, "CONSTANT", None, like)
            network._constants[constants[name].name] = name
        return constants[name]

    for node in graph.node:
        read: dict[int, ITensor] = {}
        weights = _WEIGHTS_OF.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if name in tensors:
                read[index] = tensors[name]
            elif name in initializers and index not in weights and _floats(initializers[name]):
                read[index] = constant(name)
        rank = max((len(tensor._shape) for tensor in read.values()), default=0)
        for index, tensor in read.items() if node.op_type in _BROADCASTS else ():
            missing = rank - len(tensor._shape)
            if missing:
                like = (tensor._dtype, Dims((*(1,) * missing, *tensor._shape)))
                read[index] = helper_layer("ONNXTRT_Broadcast", "SHUFFLE", tensor, like)
                network._broadcasts[read[index].name] = (node.output[0], index)
        for name in node.output:  # A Split becomes one slice layer for each output.
            kind = _LAYER_OF.get(node.op_type, "IDENTITY")
            layer = add(node.name or name, kind, list(read.values()), tensors[name])
            layer._metadata = f"[ONNX Layer: {node.name}]"
    for side, ports in (("input", graph.input), ("output", graph.output)):
        for port in ports:
            setattr(tensors[port.name], f"_is_network_{side}", True)
            getattr(network, f"_{side}s").append(tensors[port.name])
    network._model = model


def _floats(tensor: TensorProto) -> bool:
    return tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)


def _dtype(trt: Any, element_type: int) -> Any:
    name = _ELEMENT_TYPES[element_type]
    return getattr(trt.DataType, "INT32" if name == "INT64" and trt._major == 8 else name)


def _tensor(trt: Any, value: onnx.ValueInfoProto) -> ITensor:
    kind = value.type.tensor_type
    shape = Dims(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    made: ITensor = trt._new("ITensor", value.name, _dtype(trt, kind.elem_type), shape)
    return made


class Runtime(_Bound):
    engine_host_code_allowed = _settable("engine_host_code_allowed", False)
    max_threads = _settable("max_threads", 1)

    def __init__(self, logger: ILogger) -> None:
        if not self._trt.cuda.device_count:
            self._trt.cuda.violation("a Runtime without a GPU crashes the process")
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        trt = self._trt
        body = _unsealed(_MAGIC, bytes(serialized_engine))
        if body is None:
            text = "Serialization (Serialization assertion magicTagRead == kMAGIC_TAG failed.)"
            return self._refuse(f"Error Code 1: {text}")
        (size,) = struct.unpack_from("<I", body)
        header = json.loads(body[4 : 4 + size])
        portable = "VERSION_COMPATIBLE" in header["flags"]
        if portable and not self.engine_host_code_allowed:
            return self._refuse("Error Code 4: engine host code is not allowed")
        built, here = ([int(n) for n in v.split(".")] for v in (header["version"], trt.__version__))
        later = built < here and (built[0], here[0]) in _LOADS
        if built != here and not (portable and later):
            return self._refuse(
                "Error Code 6: The engine plan file is not compatible with this version of "
                f"TensorRT, expecting library version {trt.__version__} got "
                f"{header['version']}, please rebuild."
            )
        weights = trt.cuda.allocate(max(1, len(body)), "TensorRT engine")
        if weights is None:
            return self._refuse("Error Code 2: OutOfMemory (no further information)")
        model = ModelProto.FromString(body[4 + size :])
        return trt._new("ICudaEngine", header, model, weights, self._logger)

    def _refuse(self, message: str) -> None:
        _log(self._trt, self._logger, "ERROR", f"IRuntime::deserializeCudaEngine: {message}")


class ICudaEngine(_Bound):
    def __init__(
        self, header: dict[str, Any], model: ModelProto, weights: int, logger: ILogger
    ) -> None:
        trt = self._trt
        self._header, self._logger, self._weights = header, logger, weights
        self._device = trt.cuda.current_device
        self._io = {v.name: v for v in (*model.graph.input, *model.graph.output)}
        self._inputs = [v.name for v in model.graph.input]
        self._tensors = {name: _tensor(trt, value) for name, value in self._io.items()}
        self._shapes: dict[tuple[Any, ...], dict[str, tuple[int, ...]]] = {}
        self._contexts: weakref.WeakSet[IExecutionContext] = weakref.WeakSet()
        for change in (functools.partial(_rounded, **header["rounded"]), trt.sabotage):
            model = change(model) if change else model
        self._session = _session(model.SerializeToString())

    def __del__(self) -> None:
        if "_weights" in self.__dict__:
            self._trt.cuda.free(self._weights)

    num_io_tensors = property(lambda self: len(self._io))
    num_layers = property(lambda self: len(self._header["layers"]))
    num_optimization_profiles = property(lambda self: max(1, len(self._header["profiles"])))
    device_memory_size = property(lambda _: _SCRATCH)
    device_memory_size_v2 = property(lambda _: _SCRATCH)

    def get_tensor_name(self, index: int) -> str:
        return list(self._io)[index]

    def get_tensor_mode(self, name: str) -> Any:
        kind = "NONE" if name not in self._io else "INPUT" if name in self._inputs else "OUTPUT"
        return getattr(self._trt.TensorIOMode, kind)

    def get_tensor_dtype(self, name: str) -> Any:
        return self._tensors[name]._dtype

    def get_tensor_shape(self, name: str) -> Dims:
        return self._tensors[name]._shape

    def get_tensor_location(self, name: str) -> Any:
        del name
        return self._trt.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        if name not in self._inputs:
            _log(self._trt, self._logger, "ERROR", f"{name} is not an input")
            return [Dims()] * 3
        profiles = self._header["profiles"]
        fixed = [self._tensors[name]._shape] * 3
        shapes = profiles[profile_index].get(name, fixed) if profiles else fixed
        return [Dims(shape) for shape in shapes]

    def create_execution_context(self) -> IExecutionContext | None:
        if self._trt.cuda.current_device != self._device:
            self._trt.cuda.violation("a context is made on another device than its engine")
        scratch = self._trt.cuda.allocate(_SCRATCH, "TensorRT context")
        if scratch is None:
            _log(self._trt, self._logger, "ERROR", "Error Code 2: OutOfMemory (context)")
            return None
        made: IExecutionContext = self._trt._new("IExecutionContext", self, scratch)
        return made

    def create_engine_inspector(self) -> EngineInspector:
        made: EngineInspector = self._trt._new("EngineInspector", self)
        return made

    def _all_shapes(self, given: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The shape of every input and output for these input shapes, found by an inference."""
        key = tuple(sorted(given.items()))
        declared = {name: tuple(tensor._shape) for name, tensor in self._tensors.items()}
        if not any(-1 in shape for shape in declared.values()):
            return declared
        if key not in self._shapes:
            feed = {name: np.zeros(given[name], self._numpy(name)) for name in self._inputs}
            outputs = [name for name in self._io if name not in self._inputs]
            values = self._session.run(outputs, feed)
            found = {name: v.shape for name, v in zip(outputs, values, strict=True)}
            self._shapes[key] = given | found
        return self._shapes[key]

    def _numpy(self, name: str) -> np.dtype[Any]:
        kind = self._io[name].type.tensor_type.elem_type
        return np.dtype(helper.tensor_dtype_to_np_dtype(kind))


class IExecutionContext(_Bound):
    profiler = _settable("profiler")
    enqueue_emits_profile = _settable("enqueue_emits_profile", True)
    name = _settable("name", "")

    def __init__(self, engine: ICudaEngine, scratch: int) -> None:
        self._engine, self._scratch = engine, scratch
        self._given = {name: tuple(engine.get_tensor_shape(name)) for name in engine._inputs}
        self._addresses: dict[str, int] = {}
        # Before TensorRT 10 only the first context starts with a profile.
        taken = engine._header["profiles"] and self._trt._major < 10 and engine._contexts
        self._profile = -1 if taken else 0
        engine._contexts.add(self)
        self._prepared: dict[str, tuple[int, ...]] | None = None

    def __del__(self) -> None:
        if "_scratch" in self.__dict__:
            self._trt.cuda.free(self._scratch)

    engine = property(lambda self: self._engine)
    active_optimization_profile = property(lambda self: self._profile)
    all_binding_shapes_specified = property(lambda self: not self._missing())

    def set_input_shape(self, name: str, shape: Any) -> bool:
        if self._profile < 0:
            return self._refuse("setInputShape: no optimization profile has been selected")
        fixed = tuple(self._engine.get_tensor_shape(name))
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        wanted = tuple(shape)
        fits = len(wanted) == len(fixed) and all(
            f in (-1, n) and (f != -1 or a <= n <= b)
            for n, f, a, b in zip(wanted, fixed, low, high, strict=True)
        )
        if not fits:
            return self._refuse(f"setInputShape: {name} {wanted} is not in [{low}, {high}]")
        self._given[name] = wanted
        return True

    def get_tensor_shape(self, name: str) -> Dims:
        if name in self._given:
            return Dims(self._given[name])
        if self._missing():
            return self._engine.get_tensor_shape(name)
        return Dims(self._engine._all_shapes(self._given)[name])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._io:
            return self._refuse(f"setTensorAddress: {name} is no input or output")
        if memory % 256:
            self._trt.cuda.violation(f"{name} is at {memory:#x}, not at a multiple of 256")
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def infer_shapes(self) -> list[str]:
        return self._missing()

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        engine = self._engine
        if not isinstance(stream_handle, int):
            raise TypeError("incompatible function arguments: stream_handle must be an int")
        if not 0 <= profile_index < engine.num_optimization_profiles:
            return self._refuse(f"setOptimizationProfileAsync: there is no {profile_index}")
        others = [c for c in engine._contexts if c is not self and c._profile == profile_index]
        if others and engine._header["profiles"] and not engine._header["shared"]:
            text = f"Profile {profile_index} has been chosen by another IExecutionContext"
            return self._refuse(f"setOptimizationProfileAsync: {text}")
        self._profile = profile_index
        self._given = {name: tuple(engine.get_tensor_shape(name)) for name in engine._inputs}
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if not isinstance(stream_handle, int):
            raise TypeError("incompatible function arguments: stream_handle must be an int")
        engine, cuda = self._engine, self._trt.cuda
        missing = self._missing() or [name for name in engine._io if name not in self._addresses]
        if missing:
            return self._refuse(f"enqueueV3: no shape or no address for {missing}")
        if self._profile < 0:
            return self._refuse("enqueueV3: no optimization profile has been selected")
        unprepared = self._prepared != self._given
        told = self._trt.fail_capture if cuda.is_capturing(stream_handle) else None
        if told == "late":
            cuda.invalidate_capture(stream_handle)
            return True
        if told or (unprepared and cuda.is_capturing(stream_handle)):
            # The first run with new shapes allocates memory, which a capture forbids.
            cuda.invalidate_capture(stream_handle)
            return self._refuse("enqueueV3: Error Code 1: operation not permitted in a capture")
        shapes, addresses = engine._all_shapes(self._given), dict(self._addresses)
        parts = {
            name: (address, math.prod(shapes[name]) * engine._numpy(name).itemsize)
            for name, address in addresses.items()
        }
        scratch = (self._scratch, _SCRATCH)
        ports = [
            _Port(name, name in engine._inputs, part, engine._numpy(name), shapes[name])
            for name, part in parts.items()
        ]
        queued: bool = cuda.enqueue(
            stream_handle,
            functools.partial(_infer, engine._session, ports),  # Without engine and context.
            reads=[scratch, *(port.part for port in ports if port.is_input)],
            writes=[scratch, *(port.part for port in ports if not port.is_input)],
            name="TensorRT",
        )
        if not queued:
            return self._refuse("enqueueV3: Error Code 1: Cuda Runtime")
        self._prepared = dict(self._given)
        if self.profiler is not None and self.enqueue_emits_profile:
            cuda.cudaStreamSynchronize(stream_handle)
            self.report_to_profiler()
        return True

    def report_to_profiler(self) -> bool:
        for layer in self._engine._header["layers"]:
            self.profiler.report_layer_time(layer["Name"], 1.0)
        return True

    def _missing(self) -> list[str]:
        return [name for name, shape in self._given.items() if -1 in shape]

    def _refuse(self, message: str) -> bool:
        _log(self._trt, self._engine._logger, "ERROR", f"IExecutionContext::{message}")
        return False


class EngineInspector(_Bound):
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, format: Any) -> str:  # noqa: A002
        assert format.name == "JSON", "the fake knows JSON alone"
        header = self._engine._header
        rounded = set(header["rounded"]["tensors"])

        def described(name: str, kind: str, shape: list[int]) -> dict[str, Any]:
            kind = "HALF" if name in rounded else kind
            text = _READABLE[8 if self._trt._major == 8 else 10].get(kind, kind)
            return {
                "Name": name,
                "Location": "Device",
                "Dimensions": shape,
                "Format/Datatype": text,
            }

        layers: list[Any] = [
            layer | {side: [described(*t) for t in layer[side]] for side in ("Inputs", "Outputs")}
            for layer in header["layers"]
        ]
        if header["verbosity"] == "LAYER_NAMES_ONLY":
            layers = [layer["Name"] for layer in header["layers"]]
        text = json.dumps({"Layers": layers, "Bindings": list(self._engine._io)})
        if self._trt._major == 8:
            # TensorRT 8 writes this control character, which is invalid in JSON (issue 2779).
            text = text.replace('"LayerType"', '"TacticName": "\x01", "LayerType"')
        return self._trt.damage_inspection(text) if self._trt.damage_inspection else text


def _rounded(model: ModelProto, *, tensors: list[str], reads: list[Any]) -> ModelProto:
    """A copy of a model in which these tensors and inputs are rounded to float16."""
    copied = ModelProto()
    copied.CopyFrom(model)
    nodes = list(copied.graph.node)
    wanted = {(name, index) for name, index in reads}
    casts: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in nodes:
        for index, name in enumerate(node.input):
            if name not in tensors and (node.output[0], index) not in wanted:
                continue
            if name not in made:
                half, back = f"{name} half", f"{name} rounded"
                casts.append(helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16))
                casts.append(helper.make_node("Cast", [half], [back], to=TensorProto.FLOAT))
                made.add(name)
            node.input[index] = f"{name} rounded"
    del copied.graph.node[:]
    copied.graph.node.extend(_in_order([*nodes, *casts]))
    return copied


def _in_order(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """The nodes in topological order."""
    makers = {name: node for node in nodes for name in node.output}
    ordered: dict[str, onnx.NodeProto] = {}

    def visit(node: onnx.NodeProto) -> None:
        if node.output[0] in ordered:
            return
        for name in node.input:
            if name in makers:
                visit(makers[name])
        ordered[node.output[0]] = node

    for node in nodes:
        visit(node)
    return list(ordered.values())


@functools.lru_cache(maxsize=16)
def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class _Port(NamedTuple):
    """An input or output of one inference, and its memory."""

    name: str
    is_input: bool
    part: tuple[int, int]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def view(self) -> NDArray[Any]:
        memory = (ctypes.c_uint8 * self.part[1]).from_address(self.part[0])
        return np.frombuffer(memory, self.dtype).reshape(self.shape)


def _infer(session: onnxruntime.InferenceSession, ports: list[_Port]) -> None:
    feed = {port.name: port.view().copy() for port in ports if port.is_input}
    outputs = [port for port in ports if not port.is_input]
    values = session.run([port.name for port in outputs], feed)
    for port, value in zip(outputs, values, strict=True):
        port.view()[:] = value


def _needs_gpu(trt: Any) -> None:
    if not trt.cuda.device_count:
        raise TypeError("pybind11::init(): factory function returned nullptr")


def _log(trt: Any, logger: ILogger, severity: str, message: str) -> None:
    logger.log(getattr(trt.ILogger.Severity, severity), message)


_CLASSES: tuple[type, ...] = (
    ILogger, Logger, IProgressMonitor, IProfiler, Dims, ITensor, ILayer, INetworkDefinition,
    IOptimizationProfile, ITimingCache, IBuilderConfig, Builder, ParserError, OnnxParser, Runtime,
    ICudaEngine, IExecutionContext, EngineInspector,
)  # fmt: skip


class FakeTensorRT(types.ModuleType):
    """The module `tensorrt` of one version.

    Attributes:
        cuda: The simulator on which the engines run.
        unsupported_operators: Operators that the parser refuses.
        sabotage: If set, changes the model of an engine when the engine is deserialised.
        fail_build: If set, builds fail with this message, or with the message that it returns for
            a network and a configuration.
        fail_capture: If set, no inference can be recorded as a CUDA graph: "at once", with an
            error of TensorRT, or "late", when the capture ends.
        has_lean_runtime: Whether version-compatible plans can be built.
        held_in_float32: If set, returns the names of the layers whose float16 tensors become
            float32 in the engine, for a network and a configuration.
        damage_inspection: If set, changes the text of the engine inspector.
        builds: (network, configuration) of each build.
    """

    def __init__(self, version: str, cuda: FakeCuda) -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self._major = int(version.split(".")[0])
        self.cuda = cuda
        self.unsupported_operators: set[str] = set()
        self.sabotage: Callable[[ModelProto], ModelProto] | None = None
        self.fail_build: str | Callable[[Any, Any], str | None] | None = None
        self.fail_capture: str | None = None
        self.has_lean_runtime = True
        self.held_in_float32: Callable[[Any, Any], set[str]] | None = None
        self.damage_inspection: Callable[[str], str] | None = None
        self.builds: list[tuple[INetworkDefinition, IBuilderConfig]] = []
        for owner, members in api(version).items():
            values = _values(members)
            if owner == "ILogger.Severity":
                self._severity = _enumeration("Severity", values)
            elif owner not in ("ILogger", "tensorrt") and len(values) == len(members):
                setattr(self, owner, _enumeration(owner, values))
        for cls in _CLASSES:
            if cls is Dims:
                self.Dims = Dims
            elif cls.__name__ in api(version):
                setattr(self, cls.__name__, self._real(cls))
        for name, value in _values(api(version)["tensorrt"]).items():
            setattr(self, name, self.DataType(value))

    def _new(self, name: str, *arguments: Any) -> Any:
        return getattr(self, name)(*arguments)

    def _real(self, cls: type) -> type:
        """A copy of a class with only those members that the real class has."""
        has = api(self.__version__)[cls.__name__]
        names = {n: m for n, m in vars(cls).items() if n.startswith("_") or n in has}
        for name in ("__dict__", "__weakref__"):
            names.pop(name, None)
        base = self.ILogger if cls is Logger else cls.__bases__[0]
        for name, kinds in has.items():
            if kinds == ["property"] and isinstance(names.get(name), property):
                names[name] = property(names[name].fget)
        made = type(cls)(cls.__name__, (base,), names | {"_trt": self})
        if cls in (ILogger, Logger):
            made.Severity = self._severity
            for name, member in self._severity.__members__.items():
                setattr(made, name, member)
        return made


@functools.cache
def api(version: str) -> dict[str, dict[str, list[str]]]:
    """The record of one version: owner -> member -> kinds of the member."""
    found: dict[str, dict[str, list[str]]] = {}
    for owner, members in RECORD.items():
        if owner == "versions":
            continue
        for member, kinds in members.items():
            here = [kind for kind, versions in kinds.items() if version in versions]
            if here:
                found.setdefault(owner, {})[member] = here
    return found


def _values(members: dict[str, list[str]]) -> dict[str, int]:
    """The numbers of those members that are recorded as a value."""
    values = {name: kinds[0].split() for name, kinds in members.items()}
    return {name: int(words[1]) for name, words in values.items() if words[0] == "value"}


def _enumeration(name: str, values: dict[str, int]) -> type:
    made = type(name, (_Enum,), {})
    made.__members__ = {member: made(value) for member, value in values.items()}
    for member, value in made.__members__.items():
        setattr(made, member, value)
    return made


def fake_tensorrt(version: str, cuda: FakeCuda) -> Any:
    """A fake of one of the recorded versions."""
    assert version in RECORD["versions"], f"{version} is not in {RECORD['versions']}"
    return FakeTensorRT(version, cuda)


def install(monkeypatch: Any, trt: Any) -> None:
    """Makes `import tensorrt` give `trt`."""
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
