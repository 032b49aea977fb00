"""A pool of workers on a Ray cluster, and jobs for them.

Each worker opens its models once. This is the only module that uses Ray, which places the workers,
detects those that die, and transports arguments and results.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from runtime import __version__
from runtime.errors import InterpolationError, counted, first_line
from runtime.machine import available_cpus
from runtime.telemetry import import_quietly
from runtime.video.segments.jobs import Done, Job

TRIES = 3
"""A job fails after this many workers have died while they ran it."""

_MESSAGE_INTERVAL_S = 60.0
"""Seconds without any worker after which a message is printed, and repeated."""


class ClusterError(InterpolationError):
    """The cluster cannot be used, or its workers died."""


class Share(NamedTuple):
    """The resources of a machine that one worker uses.

    Attributes:
        cpus: Number of CPUs, which is also its number of threads.
        gpus: Number of GPUs; 0 for none. With a number below 1 several workers share a GPU.
    """

    cpus: int = 2
    gpus: float = 0.0


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Joins a Ray cluster, or starts one on this machine, for the duration of the block.

    Args:
        address: "local" to start a cluster, "auto" for one that runs on this machine,
            ray://HOST:PORT, or HOST:PORT.

    Raises:
        ClusterError: If there is no cluster at that address.
    """
    ray = import_quietly("ray")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"num_cpus": available_cpus(), "include_dashboard": False}
    try:
        _check_reachable(address)
        with _keeping_sigterm():
            ray.init(address, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"there is no Ray cluster at {address} ({first_line(error)}): start one with "
            "ray start --head, or use --address local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Keeps the handler of SIGTERM: `ray.init` replaces it by one that exits with code 15."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # None: one that was not set from Python, which Python cannot set again.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _check_reachable(address: str) -> None:
    """Checks that a server listens at the address, since Ray itself would try for minutes.

    Raises:
        OSError: If no server listens.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()


class Pool:
    """Ray actors with one worker object each, and a queue of jobs for them.

    When an actor dies, a new one is requested, which Ray starts on a machine with free resources,
    and the job goes to the next idle actor. A job runs `TRIES` times at most.

    Ray's own max_restarts and max_task_retries are not used: with them a job stays with its actor,
    and waits until the cluster has free resources for that actor, even if others are idle.

    Attributes:
        size: Number of workers that were requested.
        retries: Number of times that a job was assigned again.
        ready: Host, node and version of each worker that became ready, with the result of its
            method `ready`.
    """

    def __init__(
        self,
        make: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        share: Share,
        workers: int | None = None,
    ) -> None:
        """Requests the workers.

        Args:
            make: Class of the worker objects, importable on every machine. It has a method `ready`
                that returns a dict, which is added to the attribute `ready`.
            arguments: Arguments of its constructor.
            share: The resources that each worker uses.
            workers: Number of workers; None: as many as fit into the cluster now.

        Raises:
            ClusterError: If no machine has the resources for a worker.
        """
        import ray

        capacity = _capacity(share)
        if capacity < 1:
            gpus = f" and {share.gpus:g} GPU{'' if share.gpus <= 1 else 's'}" if share.gpus else ""
            raise ClusterError(
                f"no machine of the cluster has {counted(share.cpus, 'CPU')}{gpus}: ask for less "
                "with --cpus-per-worker or --gpus-per-worker"
            )
        self.size = capacity if workers is None else workers
        self.retries = 0
        self.ready: list[Any] = []
        self._actor: Any = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus)(_Host)
        self._make, self._arguments = make, arguments
        self._waiting: deque[_Entry] = deque()
        self._lost_at_start = 0
        self._running: dict[Any, tuple[Any, _Entry | None]] = {}
        self._idle: list[Any] = []
        for _ in range(self.size):
            self._start()

    def add(self, job: Job, *, first: bool = False) -> None:
        """Adds a job at the end of the queue or, with `first`, at its beginning."""
        (self._waiting.appendleft if first else self._waiting.append)(_Entry(job, 0))

    def forget(self, wanted: Callable[[Job], bool]) -> None:
        """Removes jobs that are not `wanted` from the queue; jobs that run are not affected."""
        self._waiting = deque(entry for entry in self._waiting if wanted(entry.job))

    def results(self) -> Iterator[Done]:
        """Yields jobs as they end, until the queue is empty; jobs may be added meanwhile.

        Raises:
            ClusterError: If a worker cannot start, or has another version of this package.
        """
        import ray

        since = time.monotonic()
        while self._waiting or any(entry is not None for _, entry in self._running.values()):
            self._assign()
            ended, _ = ray.wait(list(self._running), num_returns=1, timeout=_MESSAGE_INTERVAL_S)
            if not ended:
                if not self._idle and all(entry is None for _, entry in self._running.values()):
                    waited = time.monotonic() - since
                    print(
                        f"no worker has started for {waited:.0f} s: waiting for free CPUs or GPUs",
                        file=sys.stderr,
                    )
                continue
            since = time.monotonic()
            done = self._collect(ended[0])
            if done is not None:
                yield done

    def close(self) -> None:
        """Ends the workers, also those that run a job.

        Idle actors end when their last handle is dropped. They are not killed, since `ray.kill`
        aborts this process if the actor's machine has just left the cluster (Ray 2.40 to 2.48).
        """
        import ray

        busy = [actor for actor, entry in self._running.values() if entry is not None]
        self._idle.clear()
        self._running.clear()
        for actor in busy:
            with suppress(Exception):
                ray.kill(actor)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        actor = self._actor.remote(self._make, self._arguments)
        self._running[actor.ready.remote()] = actor, None

    def _assign(self) -> None:
        """Starts jobs on the idle workers."""
        while self._waiting and self._idle:
            entry, actor = self._waiting.popleft(), self._idle.pop()
            call = actor.call.remote(entry.job.method, entry.job.arguments)
            self._running[call] = actor, entry

    def _collect(self, reference: Any) -> Done | None:
        """Gets the result of a call; None after the start of a worker, or if the job is retried."""
        import ray

        actor, entry = self._running.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if entry is None:
                raise ClusterError(f"a worker cannot start: {first_line(cause)}") from cause
            self._idle.append(actor)
            return Done(entry.job, None, cause, 0.0)
        except ray.exceptions.RayError as error:
            self._start()
            return self._handle_death(entry, error)
        self._idle.append(actor)
        if entry is None:
            if result["version"] != __version__:
                raise ClusterError(
                    f"{result['host']} has ifrnet-deploy {result['version']}, this machine "
                    f"{__version__}: install the same on all machines"
                )
            self.ready.append(result)
            return None
        return Done(entry.job, result[0], None, result[1])

    def _handle_death(self, entry: _Entry | None, error: Exception) -> Done | None:
        """Queues the job of a worker that died again; at the limit returns it as failed."""
        if entry is None:
            self._lost_at_start += 1
            if self._lost_at_start >= TRIES * self.size:
                raise ClusterError(
                    f"{self._lost_at_start} workers died at their start ({first_line(error)}): see "
                    "Ray's logs"
                ) from error
            return None
        if entry.lost + 1 < TRIES:
            self.retries += 1
            self._waiting.appendleft(_Entry(entry.job, entry.lost + 1))
            return None
        lost = ClusterError(
            f"{TRIES} workers died during the same step ({first_line(error)}): see Ray's logs, and "
            "whether the machines have enough memory"
        )
        return Done(entry.job, None, lost, 0.0)


class _Entry(NamedTuple):
    """A job, and the number of workers that died during it."""

    job: Job
    lost: int


class _Host:
    """The Ray actor: creates the worker object and calls its methods."""

    def __init__(self, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._make = make, arguments
        self._worker: Any = None

    def ready(self) -> dict[str, Any]:
        import ray

        # Not in __init__: Ray reports an exception there as a dead actor, without its message.
        make, arguments = self._make
        self._worker = make(*arguments)
        where = {"host": socket.gethostname(), "node": ray.get_runtime_context().get_node_id()}
        return {**where, "version": __version__, **self._worker.ready()}

    def call(self, method: str, arguments: dict[str, Any]) -> tuple[Any, float]:
        started = time.perf_counter()
        result = getattr(self._worker, method)(**arguments)
        return result, time.perf_counter() - started


def _capacity(share: Share) -> int:
    """Number of workers for which the machines of the cluster have the resources."""
    import ray

    count = 0
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        has = node["Resources"]
        fits = has.get("CPU", 0) // share.cpus
        if share.gpus:
            each = int(1 / share.gpus) if share.gpus < 1 else 1
            fits = min(fits, has.get("GPU", 0) // max(1.0, share.gpus) * each)
        count += int(fits)
    return count
