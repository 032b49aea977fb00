"""Jobs: calls of methods, which a process makes itself or gives to workers."""

from __future__ import annotations

from typing import Any, NamedTuple


class Job(NamedTuple):
    """One call of a method of a worker, or of `Steps`.

    Attributes:
        method: Name of the method.
        arguments: Its arguments, by name; they can be pickled.
        about: Any object by which the caller identifies the result; it is not sent to the worker.
    """

    method: str
    arguments: dict[str, Any]
    about: Any


class Done(NamedTuple):
    """A job that has succeeded or failed.

    Attributes:
        job: The job.
        result: The return value of the method; None after an error.
        error: The exception of the method, or a ClusterError because its workers died; None where
            the job succeeded.
        seconds: Duration of the call; 0 after an error.
    """

    job: Job
    result: Any
    error: Exception | None
    seconds: float
