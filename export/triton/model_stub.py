"""The model.py that Triton's Python backend loads. It needs ifrnet-deploy inside the server."""

from runtime.backends.triton.server import TritonPythonModel

__all__ = ["TritonPythonModel"]
