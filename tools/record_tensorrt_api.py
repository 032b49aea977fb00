"""Records the API of TensorRT's and CUDA's Python bindings, for the fakes of the tests.

    python tools/record_tensorrt_api.py tensorrt tests/data/tensorrt_api.json
    python tools/record_tensorrt_api.py cuda tests/data/cuda_api.json

It reads the docstrings of the bindings that this Python can import, and adds their version to the
file; an earlier record of that version is replaced. The bindings need only be importable, without a
GPU:

- TensorRT 8.6.0: `pip install tensorrt==8.6.0` (CPython 3.8 to 3.10), which contains the libraries;
  add the folder of the package to LD_LIBRARY_PATH.
- TensorRT 10 and 11: `pip install --no-deps tensorrt-cu12-bindings==10.3.0` (from 11 on
  `tensorrt-cu13-bindings`), which contains the bindings without the libraries. Use the libraries of
  a local installation. Without one, any shared objects are enough that are named libnvinfer.so.10,
  libnvinfer_plugin.so.10 and libnvonnxparser.so.10 and define the entry points, such as
  getInferLibVersion and createInferBuilder_INTERNAL.
- CUDA: `pip install cuda-bindings==12.9.10`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CLASSES = """
    Logger ILogger Runtime ICudaEngine IExecutionContext EngineInspector IProfiler Builder
    INetworkDefinition ILayer ITensor IBuilderConfig IOptimizationProfile OnnxParser ParserError
    ITimingCache IHostMemory IProgressMonitor Dims
"""
ENUMS = """
    BuilderFlag NetworkDefinitionCreationFlag DataType TensorIOMode TensorLocation MemoryPoolType
    ProfilingVerbosity HardwareCompatibilityLevel LayerInformationFormat LayerType OnnxParserFlag
    TensorFormat InterpolationMode ResizeMode SampleMode ErrorCode PreviewFeature ILogger.Severity
"""
SPECIAL = ("__init__", "__len__", "__getitem__", "__enter__", "__exit__")

FUNCTIONS = """
    cudaGetDeviceCount cudaSetDevice cudaGetDevice cudaMalloc cudaFree cudaMallocHost
    cudaHostAlloc cudaFreeHost cudaMemGetInfo cudaStreamCreateWithFlags cudaStreamDestroy
    cudaStreamSynchronize cudaStreamWaitEvent cudaStreamQuery cudaEventCreateWithFlags
    cudaEventDestroy cudaEventRecord cudaEventSynchronize cudaEventQuery cudaEventElapsedTime
    cudaMemcpyAsync cudaMemsetAsync cudaStreamBeginCapture cudaStreamEndCapture
    cudaStreamIsCapturing cudaGraphInstantiate cudaGraphLaunch cudaGraphExecDestroy
    cudaGraphDestroy cudaDeviceSynchronize cudaGetErrorName cudaGetErrorString cudaGetLastError
    cudaPointerGetAttributes cudaLaunchHostFunc cudaDriverGetVersion cudaRuntimeGetVersion
"""
CUDA_ENUMS = """
    cudaError_t cudaMemcpyKind cudaStreamCaptureMode cudaStreamCaptureStatus cudaMemoryType
"""
CUDA_TYPES = "cudaStream_t cudaEvent_t cudaGraph_t cudaGraphExec_t cudaPointerAttributes"
CONSTANTS = """
    cudaStreamDefault cudaStreamNonBlocking cudaEventDefault cudaEventBlockingSync
    cudaEventDisableTiming cudaHostAllocDefault cudaHostAllocPortable
"""

Surface = dict[str, dict[str, list[str]]]
"""Owner -> member -> descriptions: "property", "settable", "value 3", or one "(name, other=)" for
each set of parameter names. The return values of CUDA's functions follow after "->"."""


def main() -> None:
    """Adds the bindings of this Python to a record."""
    parser = argparse.ArgumentParser(
        description="Records the API of the bindings that this Python can import.",
        epilog="example: python tools/record_tensorrt_api.py tensorrt tests/data/tensorrt_api.json",
    )
    parser.add_argument(
        "library", choices=("tensorrt", "cuda"), help="bindings whose API is recorded"
    )
    parser.add_argument("record", type=Path, help="JSON file to create or to extend")
    arguments = parser.parse_args()
    version, surface = tensorrt_surface() if arguments.library == "tensorrt" else cuda_surface()
    record: dict[str, Any] = {"versions": []}
    if arguments.record.exists():
        record = json.loads(arguments.record.read_text())
    add(record, version, surface)
    arguments.record.write_text(dump(record))


def tensorrt_surface() -> tuple[str, Surface]:
    """TensorRT's version and API, from the module or from the bare bindings."""
    try:
        trt: Any = importlib.import_module("tensorrt")
    except ImportError:
        trt = importlib.import_module("tensorrt_bindings")
    surface: Surface = {
        name: dict(members(getattr(trt, name))) for name in CLASSES.split() if has(trt, name)
    }
    public_names = {name: getattr(trt, name) for name in public(trt)}
    functions = {n: f for n, f in public_names.items() if inspect.isbuiltin(f)}
    types = {n: v for n, v in public_names.items() if isinstance(v, trt.DataType)}
    surface["tensorrt"] = {n: signatures(n, f.__doc__ or "") for n, f in functions.items()}
    surface["tensorrt"] |= {n: [f"value {int(v)}"] for n, v in types.items()}
    surface.update({name: enumeration(find(trt, name)) for name in ENUMS.split() if has(trt, name)})
    return trt.__version__, surface


def cuda_surface() -> tuple[str, Surface]:
    """The version of cuda-bindings and its API."""
    runtime: Any = importlib.import_module("cuda.bindings.runtime")
    functions = {name: [cuda_signature(getattr(runtime, name))] for name in FUNCTIONS.split()}
    constants = {name: [f"value {int(getattr(runtime, name))}"] for name in CONSTANTS.split()}
    surface: Surface = {"runtime": functions | constants}
    for name in CUDA_ENUMS.split():
        surface[name] = {m.name: [f"value {int(m)}"] for m in getattr(runtime, name)}
    for name in CUDA_TYPES.split():
        surface[name] = {m: ["attribute"] for m in public(getattr(runtime, name)) if m != "getPtr"}
    return importlib.metadata.version("cuda-bindings"), surface


def members(owner: type) -> Iterator[tuple[str, list[str]]]:
    """Methods, properties and values of a class of the bindings."""
    for name in (*SPECIAL, *public(owner)):
        static = inspect.getattr_static(owner, name, None)
        if static is None or static is getattr(object, name, None):
            continue
        value = getattr(owner, name)
        if isinstance(static, property):
            yield name, ["settable" if static.fset else "property"]
        elif inspect.isclass(value):
            yield name, ["class"]
        elif callable(value):
            yield name, signatures(name, value.__doc__ or "")
        else:
            yield name, [f"value {int(value)}"]


def enumeration(enum: Any) -> dict[str, list[str]]:
    """Members of an enumeration of pybind11."""
    return {name: [f"value {int(value)}"] for name, value in enum.__members__.items()}


def signatures(name: str, text: str) -> list[str]:
    """Parameter names of each overload, without repeats."""
    found = re.findall(rf"^(?:\d+\. )?{re.escape(name)}\((.*)\) -> ", text, re.MULTILINE)
    lists = [[p for p in parameters(f) if p not in ("self", "*args", "**kwargs")] for f in found]
    return list(dict.fromkeys(f"({', '.join(names)})" for names in lists)) or ["unknown"]


def parameters(text: str) -> list[str]:
    """Names of parameters: a and b= for "a: int, b: tuple = (0, 1)", in which b has a default."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "([{<") - (char in ")]}>")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    named = [part.strip() for part in parts if part.strip()]
    return [re.split(r"[:= ]", part)[0] + "=" * (" = " in part) for part in named]


def cuda_signature(function: Any) -> str:
    """A signature such as "(size) -> cudaError_t, devPtr"; C types before names are left out."""
    text: str = function.__doc__ or ""
    heading = text.partition("\n")[0]
    inside = heading[heading.index("(") + 1 : heading.rindex(")")]
    names = [part.split(":")[0].split()[-1] for part in inside.split(",") if part.strip()]
    returned = textwrap.dedent(re.split(r"Returns\n\s*-+\n", text)[-1]).partition("\n\n")[0]
    values = [line.split(" :")[0] for line in returned.splitlines() if re.match(r"\w", line)]
    return f"({', '.join(names)}) -> {', '.join(values)}"


def public(owner: Any) -> list[str]:
    """Names without a leading underscore."""
    return [name for name in dir(owner) if not name.startswith("_")]


def find(module: Any, dotted: str) -> Any:
    """The attribute with a dotted name, such as ILogger.Severity; None if it is missing."""
    for name in dotted.split("."):
        module = getattr(module, name, None)
    return module


def has(module: Any, dotted: str) -> bool:
    """Whether a module has the attribute with a dotted name."""
    return find(module, dotted) is not None


def add(record: dict[str, Any], version: str, surface: Surface) -> None:
    """Adds a version to a record, owner -> member -> description -> versions that match it."""
    by_age = sorted({*record["versions"], version}, key=lambda v: [int(n) for n in v.split(".")])
    record["versions"] = by_age
    for owner in {*record, *surface} - {"versions"}:
        entries = record.setdefault(owner, {})
        for member in {*entries, *surface.get(owner, {})}:
            kinds: dict[str, list[str]] = entries.setdefault(member, {})
            now = surface.get(owner, {}).get(member, [])
            for kind in {*kinds, *now}:
                old = [v for v in kinds.get(kind, []) if v != version]
                in_all = {*old, *([version] if kind in now else [])}
                kinds[kind] = [v for v in by_age if v in in_all]


def dump(record: dict[str, Any]) -> str:
    """JSON with a line for each member."""
    lines = [f'"versions": {json.dumps(record["versions"])}']
    for owner in sorted(set(record) - {"versions"}):
        entries = []
        for member, kinds in sorted(record[owner].items()):
            held = {k: v for k, v in sorted(kinds.items()) if v}
            if held:
                entries.append(f"  {json.dumps(member)}: {json.dumps(held)}")
        if entries:
            lines.append(f"{json.dumps(owner)}: {{\n" + ",\n".join(entries) + "\n}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main()
