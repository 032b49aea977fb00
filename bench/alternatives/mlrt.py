"""vs-mlrt: filters of VapourSynth that run ONNX files, measured in an interpreter that has them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from bench.alternatives.clips import HalvedClip
from bench.alternatives.methods import Images
from bench.environment import MeasurementError
from runtime.backends.onnx_format import read_onnx

Filter = Literal["ov", "ort"]
FILTERS: dict[Filter, str] = {"ov": "OpenVINO", "ort": "ONNX Runtime"}

_WORKER = Path(__file__).with_name("mlrt_worker.py")


def with_one_input(model: ModelProto) -> ModelProto:
    """Joins the inputs of a model as the channels of one image, which vs-mlrt passes.

    Args:
        model: With the inputs img0 and img1, float32 (1, 3, H, W), and timestep (1, 1, 1, 1).

    Returns:
        A model with the input "planes", float32 (1, 7, H, W): img0, img1, and the time step in
        every pixel.
    """
    joined = ModelProto()
    joined.CopyFrom(model)
    graph = joined.graph
    shape = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    del graph.input[:]
    graph.input.append(
        helper.make_tensor_value_info("planes", TensorProto.FLOAT, [1, 7, *shape[2:]])
    )
    parts = []
    for name, begin, end in (
        ("img0", (0, 0, 0), (3, shape[2], shape[3])),
        ("img1", (3, 0, 0), (6, shape[2], shape[3])),
        ("timestep", (6, 0, 0), (7, 1, 1)),
    ):
        for what, values in (("begin", begin), ("end", end), ("axes", (1, 2, 3))):
            graph.initializer.append(
                helper.make_tensor(f"{name}.{what}", TensorProto.INT64, [3], values)
            )
        inputs = ["planes", *(f"{name}.{what}" for what in ("begin", "end", "axes"))]
        parts.append(helper.make_node("Slice", inputs, [name], name=f"slice.{name}"))
    nodes = [*parts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return joined


class Mlrt:
    """A model in a filter of vs-mlrt. Its time does not include the conversion of frames to float.

    Args:
        clip: The clip.
        model: A plain ONNX file of `export.to_onnx` with float I/O and the size of the clip.
        filter_name: "ov" or "ort".
        python: An interpreter that has vapoursynth and the filter.
        threads: Number of threads of VapourSynth.

    Raises:
        ModelError: If the file is damaged or not of this project.
        MeasurementError: If the model does not fit the clip, or the filter does not start.
    """

    def __init__(
        self, clip: HalvedClip, model: Path, filter_name: Filter, python: Path, threads: int
    ) -> None:
        file = read_onnx(model)
        if (file.info.io, file.info.size) != ("float", clip.size):
            height, width = clip.size
            size = "any size" if file.info.size is None else "{}x{}".format(*file.info.size)
            raise MeasurementError(
                f"{model} has {file.info.io} I/O and {size}: export it for {clip.name} with "
                f"--io float --size {height}x{width}"
            )
        self.name = f"{model.name} on vs-mlrt {FILTERS[filter_name]}"
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        onnx.save(with_one_input(onnx.load_model_from_string(file.content)), folder / "model.onnx")
        np.save(folder / "frames.npy", np.stack(clip.given))
        self._output = folder / "output.npy"
        command = [
            python, _WORKER, filter_name, folder / "model.onnx", folder / "frames.npy",
            self._output, threads,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.how: dict[str, Any] = {"model": model.name, **self._answer()}

    def run(self) -> tuple[float, Images]:
        """Interpolates the whole clip; see `Method`.

        Raises:
            MeasurementError: If the filter fails.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `_answer` reports the reason.
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
        seconds: float = self._answer()["seconds"]
        return seconds, list(np.load(self._output))

    def close(self) -> None:
        """Ends the process and removes its files."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            self._folder.cleanup()
            why = (errors.strip().splitlines() or ["it exited without a message"])[-1]
            raise MeasurementError(
                f"{self.name} does not run ({why}): install vapoursynth, vapoursynth-mlrt-ov and "
                "vapoursynth-mlrt-ort for --mlrt-python"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer
