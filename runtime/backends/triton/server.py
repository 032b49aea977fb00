"""The class with which Triton's Python backend serves an artefact.

It runs inside Triton, where ifrnet-deploy is installed. The model.py that `export.triton` writes
into a repository imports it, so its name and its methods must not change. The artefact runs in the
backend in which it was compared with PyTorch.
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
    """One instance of a served model. Triton finds the class and its methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the artefact in the folder of the version that Triton loads."""
        parameters = json.loads(args["model_config"]).get("parameters", {})
        threads = parameters.get(THREADS, {}).get("string_value")
        self._model: Backend = open_backend(
            Path(args["model_repository"]) / args["model_version"] / ARTEFACT,
            OpenOptions(threads=int(threads) if threads else None),
        )
        for note in self._model.notes:
            pb_utils.Logger.log_warn(note)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answers a batch of requests, in one call if the number of pairs of the model is free.

        Returns:
            One InferenceResponse for each request; after an error each contains its message.
        """
        # Through DLPack: Python backends built before NumPy 2 read arrays of NumPy 2 as empty.
        inputs: list[list[NDArray[Any]]] = [
            [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name)) for name in INPUTS]
            for request in requests
        ]
        try:
            if self._model.info.max_pairs is None:
                results = [self._run(*arrays) for arrays in inputs]
            else:
                batch = self._run(*map(np.concatenate, zip(*inputs, strict=True)))
                ends = np.cumsum([len(timestep) for *_, timestep in inputs])
                results = np.split(batch, ends[:-1])
        except Exception as error:  # Any error is reported to the client.
            failure = pb_utils.TritonError(str(error))
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack(OUTPUT, images)])
            for images in results
        ]

    def finalize(self) -> None:
        """Frees the model."""
        self._model.close()

    def _run(
        self, img0: NDArray[Any], img1: NDArray[Any], timestep: NDArray[np.float32]
    ) -> NDArray[Any]:
        """Runs the model on N pairs (N, ...); returns the B new images."""
        model = self._model
        pairs = [
            (model.put(first), model.put(second))
            for first, second in zip(
                np.split(img0, len(img0)), np.split(img1, len(img1)), strict=True
            )
        ]
        waits = [model.download(image) for image in model.submit(pairs, timestep)]
        return np.concatenate([wait() for wait in waits])
