"""The class that Triton's Python backend serves an artefact with.

It runs inside Triton, where ifrnet-deploy is installed. The model.py that `export.triton` writes
into a repository imports it: its name and its methods stay. The artefact runs in the same code as
in any other program: what is served is what was compared with PyTorch, OpenVINO and int8 too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from runtime.backends.base import Backend, OpenOptions
from runtime.backends.registry import open_backend
from runtime.backends.triton import THREADS
from runtime.model_info import INPUTS, OUTPUT

ARTEFACT = "model.onnx"


class TritonPythonModel:
    """One instance of a served model. Triton looks for the class and its methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the artefact in the folder of the version that Triton loads."""
        parameters = json.loads(args["model_config"]).get("parameters", {})
        threads = parameters.get(THREADS, {}).get("string_value")
        self._model: Backend = open_backend(
            Path(args["model_repository"]) / args["model_version"] / ARTEFACT,
            OpenOptions(threads=int(threads) if threads else None),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """All requests that Triton has gathered, in one call where a model takes several pairs."""
        # Through DLPack in and out: backends built before NumPy 2 take its arrays for empty.
        read: list[list[NDArray[Any]]] = [
            [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name)) for name in INPUTS]
            for request in requests
        ]
        try:
            if self._model.info.max_pairs is None:
                made = [self._run(*arrays) for arrays in read]
            else:
                together = self._run(*map(np.concatenate, zip(*read, strict=True)))
                ends = np.cumsum([len(timestep) for *_, timestep in read])
                made = np.split(together, ends[:-1])
        except Exception as error:  # Whatever it is, the client is to read it.
            failed = pb_utils.TritonError(str(error))
            return [pb_utils.InferenceResponse(error=failed) for _ in requests]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(OUTPUT, frames)])
            for frames in made
        ]

    def finalize(self) -> None:
        """Frees the model."""
        self._model.close()

    def _run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        model = self._model
        pairs = [
            (model.put(first), model.put(second))
            for first, second in zip(
                np.split(img0, len(img0)), np.split(img1, len(img1)), strict=True
            )
        ]
        waits = [model.download(image) for image in model.submit(pairs, timestep)]
        return np.concatenate([wait() for wait in waits])
