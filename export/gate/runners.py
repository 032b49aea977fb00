"""Runs the models that the gate compares: a graph in a backend on the CPU, or an artefact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import GateError
from runtime.backends.base import Backend, InferencePrecision
from runtime.backends.ort.backend import free_axes
from runtime.backends.sizes import PreparedSizes
from runtime.frames import to_planes
from runtime.machine import available_cpus
from runtime.model_info import INPUTS, STACKED, ModelInfo
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")

Runner = Callable[[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
"""Two uint8 frames (H, W, 3), time steps (T, 1, 1, 1) -> float32 images (T, 3, H', W') in [0, 1].
H' and W' are H and W, padded to multiples of the divisor if the model has float I/O."""


def images_for(
    info: ModelInfo, frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], *, rows: int
) -> tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.uint8] | NDArray[np.float32]]:
    """Two uint8 frames (H, W, 3) as the inputs img0 and img1 of a model.

    For a model of several pairs, each further pair is the previous one in reverse order and
    shifted, so that exchanged pairs are detected.

    Args:
        info: Description of the model.
        frame0: The first frame.
        frame1: The second frame.
        rows: Number of time steps, which is the number of pairs if that is free.
    """
    pairs = [(frame0, frame1)]
    while len(pairs) < (rows if info.max_pairs else info.pairs_per_call):
        pairs.append((np.roll(pairs[-1][1], 5, 1), np.roll(pairs[-1][0], 5, 1)))
    if info.io == "frames":
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
    multiple = info.divisor if info.io == "float" else 1
    img0, img1 = (np.concatenate([to_planes(p[k], multiple) for p in pairs]) for k in (0, 1))
    return img0, img1


def inputs_of(
    info: ModelInfo, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    """The inputs of a model by name, from its images and time steps."""
    if info.io == "stacked":
        plane = np.broadcast_to(timestep, (1, 1, *img0.shape[2:]))
        return {STACKED: np.concatenate((img0, img1, plane), 1)}
    return dict(zip(INPUTS, (img0, img1, timestep), strict=True))


def onnx_runner(model: ModelProto, info: ModelInfo, *, optimised: bool = True) -> Runner:
    """Runs an ONNX model in ONNX Runtime on the CPU, prepared for each size as the runtime does.

    With frame I/O it returns the image before it is rounded, and checks that the bytes are exactly
    that image rounded to nearest.

    Args:
        model: The model.
        info: Its description.
        optimised: False disables all optimisations, for a reference.

    Raises:
        GateError: From the returned function, if the bytes are not the rounded image.
    """
    model, tap = _tapped(model, info)
    content = model.SerializeToString()
    session = _session(content, {}, optimised)
    axes = free_axes(session, info) if optimised else None
    if axes is None:
        return _graph_runner(info, tap, lambda _, names, feed: session.run(names, feed))
    sessions = PreparedSizes(
        lambda size: _session(content, dict(zip(axes, size, strict=True)), optimised)
    )
    return _graph_runner(info, tap, lambda size, names, feed: sessions.at(size).run(names, feed))


def _session(content: bytes, lengths: dict[str, int], optimised: bool) -> Any:
    """An onnxruntime.InferenceSession in which free axes have lengths, by the names of the axes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    for name, length in lengths.items():
        options.add_free_dimension_override_by_name(name, length)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def openvino_runner(
    model: ModelProto, info: ModelInfo, precision: InferencePrecision = "fp32"
) -> Runner:
    """Runs an ONNX model in OpenVINO, otherwise like `onnx_runner`.

    Args:
        model: The model.
        info: Its description.
        precision: Type in which convolutions are computed; one that this CPU supports.

    Raises:
        BackendError: If OpenVINO is not installed; from the returned function, if it cannot compile
            the model in this precision.
        GateError: From the returned function, if the bytes are not the rounded image.
    """
    from runtime.backends.ov.compilation import (
        Compilation,
        compiled_model,
        import_openvino,
        shapes_at,
    )

    model, tap = _tapped(model, info)
    openvino, content = import_openvino(), model.SerializeToString()
    compilation = Compilation(precision=precision, streams=1, threads=available_cpus(), cache=None)
    requests = PreparedSizes(
        lambda size: compiled_model(
            openvino, content, compilation, shapes=shapes_at(info, size)
        ).create_infer_request()
    )

    def compute(
        size: tuple[int, int], names: list[str], feed: dict[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        request = requests.at(size)
        request.infer(feed)
        return [request.get_tensor(name).data.copy() for name in names]

    return _graph_runner(info, tap, compute)


def backend_runner(backend: Backend) -> Runner:
    """Runs an opened artefact; with frame I/O its images are bytes divided by 255."""
    info = backend.info

    def run(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        rows = zip(*images_for(info, frame0, frame1, rows=len(timestep)), strict=True)
        pairs = [(backend.put(img0[None]), backend.put(img1[None])) for img0, img1 in rows]
        waits = [backend.download(image) for image in backend.submit(pairs, timestep)]
        images = np.concatenate([wait() for wait in waits])
        if info.io == "float":
            return images
        return images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)

    return run


def rounded_to_bytes(run: Runner) -> Runner:
    """Rounds the images of a runner to multiples of 1/255, as 8-bit frames are."""

    def rounded(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        levels: NDArray[np.float32] = np.rint(run(frame0, frame1, timestep) * np.float32(255))
        return levels / np.float32(255)

    return rounded


def _tapped(model: ModelProto, info: ModelInfo) -> tuple[ModelProto, str | None]:
    """Adds the image before it is rounded as an output, with frame I/O; returns it and its name."""
    if info.io != "frames":
        return model, None
    copied = ModelProto()
    copied.CopyFrom(model)
    (tap,) = (node.input[0] for node in copied.graph.node if node.op_type == "Round")
    output = onnx.helper.make_tensor_value_info(tap, onnx.TensorProto.FLOAT, None)
    copied.graph.output.append(output)
    return copied, tap


def _graph_runner(
    info: ModelInfo,
    tap: str | None,
    compute: Callable[[tuple[int, int], list[str], dict[str, NDArray[Any]]], list[NDArray[Any]]],
) -> Runner:
    """A runner of a graph.

    Args:
        info: Description of the graph.
        tap: Name of the image before it is rounded; None without frame I/O.
        compute: Computes the named outputs of the graph, for images of a size (height, width).
    """

    def run(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        img0, img1 = images_for(info, frame0, frame1, rows=len(timestep))
        feed = inputs_of(info, img0, img1, timestep)
        size = info.layout.size_of(img0.shape)
        if tap is None:
            planes: NDArray[np.float32] = compute(size, ["imgt"], feed)[0]
            return planes
        frames, image = compute(size, ["imgt", tap], feed)
        if not np.array_equal(frames, np.rint(image).transpose(0, 2, 3, 1)):
            raise GateError(
                "the bytes that the graph returns are not its image rounded to nearest: report this"
            )
        scaled: NDArray[np.float32] = image.astype(np.float32) / np.float32(255)
        return scaled

    return run
