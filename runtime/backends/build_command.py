"""Shell commands for messages: to build a similar model, or to prove its precision."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path

from runtime.errors import install_command
from runtime.files import SHIPPED_MODELS, read_json
from runtime.frames import padding
from runtime.model_info import IOKind, ModelInfo


def build_command(
    info: ModelInfo,
    backend: str,
    *,
    size: tuple[int, int] | None = None,
    io: IOKind | None = None,
) -> str:
    """The command that builds a model with the options of another one, for other frames.

    Args:
        info: Metadata of the other model.
        backend: Its backend: "onnxruntime", "openvino" or "tensorrt", with or without a device
            after a space. For "triton" the command builds an engine.
        size: (height, width) in pixels; None for the size of `info`. For a CPU the new model
            accepts any size if `info` has a fixed number of pairs.
        io: "float" or "frames"; None for that of `info`.

    Returns:
        A shell command, followed in parentheses by a pip command if packages are missing.
    """
    name = backend.partition(" ")[0]
    on_cpu = name in ("onnxruntime", "openvino")
    words = ["python -m export.build_engine --weights", _weights(info)]
    if on_cpu:
        words += ["--backend", name]
    io, size = io or info.io, size or info.size
    # For a CPU a size is free unless the number of pairs is.
    if size is not None and (info.max_pairs is not None or not on_cpu):
        # With float I/O the caller pads.
        height, width = (n + sum(padding(n, info.divisor)) if io == "float" else n for n in size)
        words.append(f"--size {height}x{width}")
    words += _options(info, io, default_precision="fp32" if on_cpu else "fp16")
    command = " ".join([*words, "--output", "model.onnx" if on_cpu else "model.engine"])
    if importlib.util.find_spec("torch") is None:
        return f"{command} (needs {install_command('cpu,export')})"
    return command


def prove_command(model: Path) -> str:
    """The command that proves an artefact in bfloat16 and float16 on this CPU.

    Args:
        model: The ONNX file, with a manifest.

    Returns:
        A shell command, followed in parentheses by a pip command if packages are missing.
    """
    shipped = model.parent.resolve() == SHIPPED_MODELS.resolve()
    command = f"python -m export.prove {'demo' if shipped else shlex.quote(str(model))}"
    if all(map(importlib.util.find_spec, ("av", "onnx", "onnxruntime"))):
        return command
    return f"{command} (needs {install_command('cpu,build')})"


def _weights(info: ModelInfo) -> str:
    """The value of --weights: demo, or a placeholder: metadata has no path of a checkpoint."""
    manifest = read_json(SHIPPED_MODELS / "demo_openvino.onnx.json")
    demo = manifest["model"]["weights_sha256"]
    return "demo" if info.weights_sha256 == demo else "CHECKPOINT"


def _options(info: ModelInfo, io: IOKind, *, default_precision: str) -> list[str]:
    """The options of the graph that differ from the defaults of the command."""
    options = []
    if info.precision == "int8":
        options.append("--precision int8 --calibrate CLIP")
    elif info.precision != default_precision:
        options.append(f"--precision {info.precision}")
    for option, value, default in (
        ("--io", io, "frames"),
        ("--flow-scale", info.flow_scale, 1.0),
        ("--steps-per-call", info.steps_per_call, 1),
        ("--batch", info.pairs_per_call, 1),
        ("--max-batch", info.max_pairs, None),
        ("--warp", info.warp, "gridsample"),
    ):
        if value != default:
            options.append(f"{option} {value}")
    if info.tta:
        options.append("--tta")
    return options
