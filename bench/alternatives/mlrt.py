"""vs-mlrt: filters of VapourSynth that run ONNX files, measured in an interpreter that has them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.alternatives.clips import HalvedClip
from bench.alternatives.methods import Images
from bench.environment import MeasurementError
from runtime.backends.onnx_format import info_in, read_self_contained

Filter = Literal["ov", "ort"]
FILTERS: dict[Filter, str] = {"ov": "OpenVINO", "ort": "ONNX Runtime"}

_WORKER = Path(__file__).with_name("mlrt_worker.py")


class Mlrt:
    """A model in a filter of vs-mlrt. Its time does not include the conversion of frames to float.

    Args:
        clip: The clip.
        model: An ONNX file of `export.to_onnx --io stacked`, of any size or that of the clip.
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
        info = info_in(read_self_contained(model), model)
        if info.io != "stacked" or info.size not in (None, clip.size):
            height, width = clip.size
            size = "any size" if info.size is None else "{}x{}".format(*info.size)
            raise MeasurementError(
                f"{model} has {info.io} I/O and {size}: export it for {clip.name} with "
                f"--io stacked --size {height}x{width}"
            )
        self.name = f"{model.name} on vs-mlrt {FILTERS[filter_name]}"
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        np.save(folder / "frames.npy", np.stack(clip.given))
        self._output = folder / "output.npy"
        command = [
            python, _WORKER, filter_name, model, folder / "frames.npy", self._output, threads,
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
