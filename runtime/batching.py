"""Runs a model on pairs of frames, with as many pairs in one call as the model accepts."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import Backend, Image
from runtime.backends.build_command import build_command
from runtime.backends.process import OpenedBackend
from runtime.errors import FrameError, kind_of
from runtime.frames import (
    Channels,
    Frame,
    check_channels,
    check_pair,
    from_planes,
    swapped_channels,
    to_planes,
)
from runtime.model_info import ModelInfo
from runtime.timesteps import MIDPOINT, checked_timesteps, recursion_levels

_ENTRIES_PER_PAIR = 4
"""Limit of queued entries, with and without a pair, for each pair that may be in flight."""

Tag = TypeVar("Tag")


class PairRequest(NamedTuple):
    """Two frames, and the time steps of the new frames between them.

    Attributes:
        frame0: (H, W, 3), RGB or in the order of `Interpolator.channels`: uint8, or uint16 and
            float32 in [0, 1] with a float I/O model.
        frame1: The next frame, of the same size and type.
        timesteps: Positions of the new frames, each in (0, 1).
    """

    frame0: Frame
    frame1: Frame
    timesteps: Sequence[float]


class ImagePair(NamedTuple):
    """Two images on the model's device, and the time steps of the new ones, each in (0, 1)."""

    image0: Image
    image1: Image
    timesteps: Sequence[float]


class _Job(NamedTuple):
    """One image to compute: its two neighbours and its time step between them, in (0, 1)."""

    image0: Image
    image1: Image
    timestep: float


class _Queued(NamedTuple):
    """An entry in flight.

    Attributes:
        tag: The caller's tag.
        waits: One function for each new frame, which waits for it and returns it.
        like: A frame of the size and type of the new ones; None for an entry without new frames.
    """

    tag: Any
    waits: list[Callable[[], NDArray[Any]]]
    like: Frame | None


class PairRunner:
    """Runs a model on pairs of frames. Threads may share it: it keeps no state between calls.

    Attributes:
        channels: Order of the channels of frames on the host, "rgb" or "bgr".
    """

    def __init__(self, opened: OpenedBackend, channels: Channels = "rgb") -> None:
        """Wraps an opened backend.

        Args:
            opened: The backend.
            channels: Order of the channels of frames on the host; images of a backend are RGB.

        Raises:
            FrameError: If the order is unknown.
        """
        check_channels(channels)
        self.channels = channels
        self._opened = opened

    @property
    def info(self) -> ModelInfo:
        """Precision, size, time steps and I/O of the model."""
        return self._opened.info

    @property
    def _backend(self) -> Backend:
        """The backend; raises BackendError if it is closed, or in a forked process."""
        return self._opened.backend

    def check_takes(self, height: int, width: int, dtype: np.dtype[Any]) -> None:
        """Checks that frames of a size and type fit the model.

        Raises:
            FrameError: If they do not.
        """
        info, backend = self.info, self._backend.name
        if info.io == "frames" and dtype != np.uint8:
            raise FrameError(
                f"frames are {dtype}, this model takes uint8: convert them, or keep their depth "
                f"with a model of {build_command(info, backend, io='float')}"
            )
        if info.size in (None, info.image_size((height, width))):
            return
        swapped = ", height and width are exchanged" if info.size == (width, height) else ""
        raise FrameError(
            f"frames are {height}x{width} (height x width), this model takes {info.height}x"
            f"{info.width} only{swapped}: build a model for them with "
            f"{build_command(info, backend, size=(height, width))}"
        )

    def check_takes_frame(self, frame: Frame) -> None:
        """Checks that the size and type of a frame fit the model.

        Raises:
            FrameError: If they do not.
        """
        self.check_takes(frame.shape[0], frame.shape[1], frame.dtype)

    def put(self, frame: Frame) -> Image:
        """Uploads a frame, which must fit the model, in the layout of the model's inputs."""
        bgr = self.channels == "bgr"
        if self.info.io == "frames":
            image = swapped_channels(frame) if bgr else np.ascontiguousarray(frame)
            return self._backend.put(image[None])
        return self._backend.put(to_planes(frame[..., ::-1] if bgr else frame, self.info.divisor))

    def frames_between(self, pair: ImagePair, like: Frame) -> list[Frame]:
        """Computes the new frames of one pair, on the host, of the size and type of `like`.

        The host waits for a frame while the device computes and downloads the following ones.
        """
        frames: list[Frame] = []
        in_flight: deque[Callable[[], NDArray[Any]]] = deque()
        for image in self.images_between([pair]):
            in_flight.append(self._backend.download(image))
            if len(in_flight) > self._backend.lookahead:
                frames.append(self._frame_from(in_flight.popleft()(), like))
        return frames + [self._frame_from(wait(), like) for wait in in_flight]

    def interpolate_tagged(
        self, requests: Iterable[tuple[Tag, PairRequest | None]]
    ) -> Iterator[tuple[Tag, list[Frame]]]:
        """Computes the frames of many requests, lazily, in bounded memory.

        Args:
            requests: Tags, which may be any object, each with a request or None, in order. A
                frame that is in two consecutive requests, as the same object, is uploaded once.

        Yields:
            The tag and the new frames of each entry, in order; an empty list for None. Up to
            `lookahead` calls of the backend are in flight before the first is waited for.

        Raises:
            FrameError: If frames do not fit each other or the model, or a time step is not
                possible.
            BackendError: If the inference fails.
        """
        queued: deque[_Queued] = deque()
        per_call = self.info.pairs_per_call
        ahead = self._backend.lookahead * per_call
        requests = _checked(requests)
        sent: list[tuple[Frame, Image]] = []
        ended = False
        while not ended or queued:
            group = list(_group(requests, per_call))
            ended = not group
            pairs: list[ImagePair] = []
            counts = [0] * len(group)
            for number, (_, request) in enumerate(group):
                if request is not None:
                    check_pair(request.frame0, request.frame1)
                    self.check_takes_frame(request.frame0)
                    steps = checked_timesteps(request.timesteps)
                    counts[number] = len(steps)
                    sent = [self._sent(frame, sent) for frame in request[:2]]
                    pairs.append(ImagePair(sent[0][1], sent[1][1], steps))
            images = self.images_between(pairs)
            for (tag, request), count in zip(group, counts, strict=True):
                waits = [self._backend.download(image) for image in itertools.islice(images, count)]
                queued.append(_Queued(tag, waits, None if request is None else request.frame0))
            in_flight = sum(bool(entry.waits) for entry in queued)
            # Entries without new frames are yielded at once. Others are yielded when enough calls
            # are in flight, or when too many entries follow in the queue.
            while queued and (
                ended
                or not queued[0].waits
                or in_flight > ahead
                or len(queued) > _ENTRIES_PER_PAIR * (ahead + 1)
            ):
                entry = queued.popleft()
                in_flight -= bool(entry.waits)
                yield entry.tag, self._frames_of(entry)

    def images_between(self, pairs: Sequence[ImagePair]) -> Iterator[Image]:
        """Computes the images of all pairs, pair by pair, in the order of their time steps."""
        if self.info.time_steps == "arbitrary":
            return self._run(
                _Job(image0, image1, t) for image0, image1, steps in pairs for t in steps
            )
        groups = itertools.groupby(pairs, key=lambda pair: tuple(pair.timesteps))
        return itertools.chain.from_iterable(
            self._by_recursion(list(group), steps) for steps, group in groups
        )

    def _run(self, jobs: Iterable[_Job]) -> Iterator[Image]:
        """Computes one image for each job, with as many jobs in one call as the model accepts.

        A call that is not full repeats its last job.
        """
        several_steps = self.info.steps_per_call > 1
        per_call = self.info.frames_per_call
        # With several time steps per call, all jobs of a call must be of one pair.
        for _, group in itertools.groupby(
            jobs, key=lambda job: (id(job.image0), id(job.image1)) if several_steps else None
        ):
            while batch := list(itertools.islice(group, per_call)):
                full = [*batch, *[batch[-1]] * (per_call - len(batch))]
                timestep = np.array([job.timestep for job in full], dtype=np.float32)
                pairs = [(job.image0, job.image1) for job in full]
                images = self._backend.submit(
                    pairs[:1] if several_steps else pairs, timestep.reshape(-1, 1, 1, 1)
                )
                yield from images[: len(batch)]

    def _by_recursion(self, pairs: Sequence[ImagePair], steps: Sequence[float]) -> Iterator[Image]:
        """Computes images by recursion: for all pairs together, one level after the other."""
        known: list[dict[float, Image]] = [{0.0: pair.image0, 1.0: pair.image1} for pair in pairs]
        for half, level in recursion_levels(steps):
            places = [(images, t) for images in known for t in level]
            jobs = [_Job(images[t - half], images[t + half], MIDPOINT) for images, t in places]
            for (images, t), image in zip(places, self._run(jobs), strict=True):
                images[t] = image
        return (images[t] for images in known for t in steps)

    def _sent(self, frame: Frame, known: Sequence[tuple[Frame, Image]]) -> tuple[Frame, Image]:
        """The frame with its image on the device; uploaded unless `known` has the same object."""
        return next((pair for pair in known if pair[0] is frame), None) or (frame, self.put(frame))

    def _frames_of(self, entry: _Queued) -> list[Frame]:
        """Waits for the new frames of an entry."""
        if entry.like is None:
            return []
        _ = self._backend  # Raises BackendError, instead of waiting for lost inferences.
        return [self._frame_from(wait(), entry.like) for wait in entry.waits]

    def _frame_from(self, sample: NDArray[Any], like: Frame) -> Frame:
        """Converts a downloaded image to a frame of the size and type of `like`."""
        bgr = self.channels == "bgr"
        image: NDArray[Any] = sample[0]
        if self.info.io == "frames":
            return swapped_channels(image) if bgr else image
        return from_planes(image[::-1] if bgr else image, like, self.info.divisor)


def _checked(
    requests: Iterable[tuple[Tag, PairRequest | None]],
) -> Iterator[tuple[Tag, PairRequest | None]]:
    """Yields the entries; a plain tuple of three becomes a PairRequest.

    Raises:
        FrameError: If the entries are not iterable, or one is not a tag with a request or None.
    """
    if not isinstance(requests, Iterable):
        raise FrameError(f"the requests are {kind_of(requests)}: give an iterable of pairs")
    for entry in requests:
        if not isinstance(entry, tuple) or len(entry) != 2:
            raise FrameError(
                f"an entry is {kind_of(entry)}: give a tuple of a tag, and a PairRequest or None"
            )
        tag, request = entry
        if request is not None and not (isinstance(request, tuple) and len(request) == 3):
            raise FrameError(
                f"a pair is {kind_of(request)}: give PairRequest(frame0, frame1, timesteps), or "
                "None for no new frames"
            )
        yield tag, None if request is None else PairRequest(*request)


def _group(
    requests: Iterator[tuple[Tag, PairRequest | None]], count: int
) -> Iterator[tuple[Tag, PairRequest | None]]:
    """Takes entries until they hold as many pairs as one call accepts; fewer at the end."""
    for entry in itertools.islice(requests, _ENTRIES_PER_PAIR * count if count > 1 else 1):
        yield entry
        count -= entry[1] is not None
        if count == 0:
            return
