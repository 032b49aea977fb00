"""The model.py that Triton's Python backend loads; needs ifrnet-deploy installed in the server."""

from runtime.backends.triton.server import TritonPythonModel

__all__ = ["TritonPythonModel"]
