"""Ways to run what the gate compares: a graph in a program on the CPU, or an opened artefact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from export.errors import GateError
from runtime.backends.base import NO_CACHE, Backend
from runtime.frames import to_planes
from runtime.machine import available_cpus
from runtime.model_info import ModelInfo
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")

Runner = Callable[[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
"""Two frames (H, W, 3) and time steps (T, 1, 1, 1) -> float32 (T, 3, H', W') in [0, 1]; H' and W'
are padded where the artefact has float I/O."""


def images_for(
    info: ModelInfo, frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], *, rows: int
) -> tuple[NDArray[np.uint8] | NDArray[np.float32], NDArray[np.uint8] | NDArray[np.float32]]:
    """Two frames (H, W, 3) as the inputs img0 and img1 of a model.

    A model that takes several pairs gets a different one in each place: the pair, and it turned
    around and shifted, so that a mix-up of the places shows. Where the number of pairs is free it
    is `rows`, that of the time steps.
    """
    pairs = [(frame0, frame1)]
    while len(pairs) < (rows if info.max_pairs else info.pairs_per_call):
        pairs.append((np.roll(pairs[-1][1], 5, 1), np.roll(pairs[-1][0], 5, 1)))
    if info.io == "frames":
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs])
    img0, img1 = (np.concatenate([to_planes(p[k], info.divisor) for p in pairs]) for k in (0, 1))
    return img0, img1


def onnx_runner(model: ModelProto, info: ModelInfo, *, optimised: bool = True) -> Runner:
    """An ONNX model in ONNX Runtime on the CPU, as a candidate or (unoptimised) as a reference.

    With frame I/O the image is tapped before it is rounded, and the bytes must be exactly
    that image rounded to nearest.

    Raises:
        GateError: From the returned function, if the bytes are not.
    """
    model, tap = _tapped(model, info)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return _graph_runner(info, tap, lambda names, feed: session.run(names, feed))


def openvino_runner(model: ModelProto, info: ModelInfo) -> Runner:
    """An ONNX model in OpenVINO, compiled as the runtime does it; the rest as `onnx_runner`.

    Raises:
        BackendError: If OpenVINO is not installed.
        GateError: From the returned function, if the bytes are not the rounded image.
    """
    from runtime.backends.ov.backend import compiled_model, import_openvino

    model, tap = _tapped(model, info)
    request = compiled_model(
        import_openvino(),
        model.SerializeToString(),
        precision="fp32",
        streams=1,
        threads=available_cpus(),
        cache=NO_CACHE,
    ).create_infer_request()

    def compute(names: list[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        request.infer(feed)
        return [request.get_tensor(name).data.copy() for name in names]

    return _graph_runner(info, tap, compute)


def backend_runner(backend: Backend) -> Runner:
    """An opened artefact as a candidate; frames are compared as bytes / 255."""
    info = backend.info

    def run(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        rows = zip(*images_for(info, frame0, frame1, rows=len(timestep)), strict=True)
        pairs = [(backend.put(img0[None]), backend.put(img1[None])) for img0, img1 in rows]
        waits = [backend.download(image) for image in backend.submit(pairs, timestep)]
        made = np.concatenate([wait() for wait in waits])
        if info.io == "float":
            return made
        return made.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)

    return run


def rounded_to_bytes(run: Runner) -> Runner:
    """The same image as a frame of 8 bit would show it."""

    def rounded(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        levels: NDArray[np.float32] = np.rint(run(frame0, frame1, timestep) * np.float32(255))
        return levels / np.float32(255)

    return rounded


def _tapped(model: ModelProto, info: ModelInfo) -> tuple[ModelProto, str | None]:
    """With frame I/O a copy that gives the image before it is rounded too, and its name."""
    if info.io == "float":
        return model, None
    model = _copy(model)
    (tap,) = (node.input[0] for node in model.graph.node if node.op_type == "Round")
    model.graph.output.append(onnx.helper.make_tensor_value_info(tap, onnx.TensorProto.FLOAT, None))
    return model, tap


def _graph_runner(
    info: ModelInfo,
    tap: str | None,
    compute: Callable[[list[str], dict[str, NDArray[Any]]], list[NDArray[Any]]],
) -> Runner:
    """A run by what gives the named outputs of a graph, tapped where it makes bytes."""

    def run(
        frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], timestep: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        img0, img1 = images_for(info, frame0, frame1, rows=len(timestep))
        feed = {"img0": img0, "img1": img1, "timestep": timestep}
        if tap is None:
            planes: NDArray[np.float32] = compute(["imgt"], feed)[0]
            return planes
        frames, image = compute(["imgt", tap], feed)
        if not np.array_equal(frames, np.rint(image).transpose(0, 2, 3, 1)):
            raise GateError("the graph's bytes are not its picture rounded to nearest")
        scaled: NDArray[np.float32] = image.astype(np.float32) / np.float32(255)
        return scaled

    return run


def _copy(model: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(model)
    return copied
