"""Refuses a backend in a process that was forked after the backend was opened.

A fork (`os.fork`, multiprocessing with "fork", gunicorn with a preloaded application) does not copy
the threads of a backend. An inference there would wait for threads that do not exist. Freeing an
OpenVINO model would wait too, even at the end of the interpreter.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence

from runtime.backends.base import Backend
from runtime.errors import BackendError
from runtime.model_info import ModelInfo


class OpenedBackend:
    """A backend and the process that opened it.

    Args:
        backend: The opened backend.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._process = os.getpid()
        self._closed = self._leaked = False
        _OPENED.add(self)

    @property
    def info(self) -> ModelInfo:
        """Precision, size, time steps and I/O of the model; available in any process."""
        return self._backend.info

    @property
    def name(self) -> str:
        """Name of the backend and its device; available in any process."""
        return self._backend.name

    @property
    def notes(self) -> Sequence[str]:
        """Notes for the user on how it was opened; available in any process."""
        # A backend that was written for an earlier version has none.
        return getattr(self._backend, "notes", ())

    @property
    def backend(self) -> Backend:
        """The backend, after checks that take less than 1 us.

        Raises:
            BackendError: If it is closed, or this process was forked from the one that opened it.
        """
        if self._closed:
            raise BackendError("the model is closed: open it again")
        if os.getpid() != self._process:
            raise BackendError(
                f"this Interpolator was opened in process {self._process}, this is process "
                f"{os.getpid()}, which was forked from it: open it in this process"
            )
        return self._backend

    def close(self) -> None:
        """Frees the model; in a forked process nothing is freed. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if os.getpid() == self._process:
            self._backend.close()
        else:
            self.leak()

    def leak(self) -> None:
        """Adds a reference to the backend that is never removed, so that nothing frees it."""
        if not self._leaked:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._backend))
            self._leaked = True


_OPENED: weakref.WeakSet[OpenedBackend] = weakref.WeakSet()


def _leak_all() -> None:
    for opened in list(_OPENED):
        opened.leak()


# Modules are cleared when the interpreter ends: a reference in one would not last.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leak_all)
