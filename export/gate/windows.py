"""Reads windows of consecutive frames from a clip, spread over its whole length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from numpy.typing import NDArray

from export.errors import ExportError
from runtime.errors import VideoError
from runtime.frames import check_frame
from runtime.model_info import ModelInfo
from runtime.video.colour import ColourConverter
from runtime.video.planes import plane_views
from runtime.video.reading.images import ImageReader, images_at
from runtime.video.reading.info import DecodedFrame, SourceInfo
from runtime.video.reading.source import Source, open_source
from runtime.video.scenes import SceneDetector

WINDOWS = 16
"""Maximum number of windows of a clip. More windows change the ranges and the PSNR less than
another choice of frames does."""

DECODED_WHOLE = 600
"""Number of frames up to which all frames of a clip are decoded. With the usual 250 frames from one
key frame to the next, seeks to `WINDOWS` positions would decode more."""

_SEARCHED = 30
"""Number of frames at one position among which a window is searched."""

_MINIMUM = 2
"""Number of windows that a clip must have: int8 needs one for calibration and one for the gate."""

_HELD_OUT = 4
"""One of this many windows is held out from calibration, for the gate."""

Window = tuple[NDArray[np.uint8], ...]
"""Consecutive uint8 frames (H, W, 3) of one scene: a pair, and between them the true frames."""

_Convert = Callable[[VideoFrame], NDArray[np.uint8]]


def check_clip(path: Path) -> None:
    """Checks, before any work, that a clip can be opened; decodes its first frames.

    Args:
        path: A video, a folder of images, or a pattern such as %06d.png.

    Raises:
        VideoError: If it cannot be read.
    """
    with open_source(path):
        pass


def read_windows(path: Path, info: ModelInfo) -> list[Window]:
    """Reads windows for a model, evenly spread over a clip; always the same ones.

    Frames of another size than the model's are scaled and cropped by `cover`; if the size of the
    model is free, they keep their own.

    Args:
        path: A video, a folder of images, or a pattern such as %06d.png.
        info: Description of the model; between the frames of a pair, a window has as many frames as
            the model interpolates in one call.

    Raises:
        ExportError: If there are fewer than two windows, or nothing moves.
        FrameError: If the frames are too small.
        VideoError: If the clip cannot be read.
    """
    converter = ColourConverter()

    def convert(frame: VideoFrame) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = converter.rgb_from_frame(frame, 8)
        if info.size in (None, info.image_size((frame.height, frame.width))):
            return image
        return cover(image, info.size)

    windows = spread_windows(path, info.steps_per_call + 2, convert)
    if all(np.array_equal(window[0], window[-1]) for window in windows):
        raise ExportError(
            f"nothing moves in {path}: give a clip like those that the model will process"
        )
    return windows


def split_windows(windows: Sequence[Window]) -> tuple[list[Window], list[Window]]:
    """Splits windows: one of every four, held out for the gate, and the others."""
    held_out = list(windows[1::_HELD_OUT])
    return held_out, [window for n, window in enumerate(windows) if n % _HELD_OUT != 1]


def cover(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scales an image, with its aspect ratio, to cover a size, and crops it around its centre.

    Args:
        image: uint8 (H, W, 3).
        size: (height, width) in pixels.
    """
    factor = max(n / m for n, m in zip(size, image.shape[:2], strict=True))
    rows, columns = (max(n, round(m * factor)) for n, m in zip(size, image.shape[:2], strict=True))
    scaler = VideoReformatter()

    def scaled(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # Bicubic, whose support grows as the image shrinks: AREA leaves more aliasing.
        frame = scaler.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(plane), "gray"),
            columns,
            rows,
            "gray",
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.BICUBIC,
        )
        view: NDArray[np.uint8] = plane_views(frame)[0]
        return view.copy()

    top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
    # Each channel alone: swscale converts RGB to YUV for scaling.
    planes = [
        scaled(image[..., channel])[top : top + size[0], left : left + size[1]]
        for channel in range(3)
    ]
    return np.stack(planes, -1)


def spread_windows(path: Path, length: int, convert: _Convert) -> list[Window]:
    """Reads up to `WINDOWS` windows, evenly spread over a clip; always the same ones.

    No frame is in two windows, and no window has a scene cut. In a clip of more than
    `DECODED_WHOLE` frames, only frames near the windows are decoded, unless seeking does not work.
    The memory that is needed does not depend on the length of the clip.

    Args:
        path: A video, a folder of images, or a pattern such as %06d.png.
        length: Number of frames of a window.
        convert: Converts a decoded frame to RGB.

    Raises:
        ExportError: If there are fewer than two windows.
        FrameError: If the frames are too small.
        VideoError: If the clip cannot be read.
    """
    with open_source(path) as source:
        info = source.info
    check_frame(np.empty((info.height, info.width, 3), np.uint8), f"a frame of {path}")
    if info.duration is not None and (info.frames or info.duration * info.rate) > DECODED_WHOLE:
        read_positions = _in_video if path.is_file() else _in_folder
        windows = read_positions(path, info, length, convert)
        if len(windows) >= WINDOWS // 2:
            return windows
    return _in_all_frames(path, length, convert)


def _in_video(path: Path, info: SourceInfo, length: int, convert: _Convert) -> list[Window]:
    """One window for each position of a video that has one; none if seeking does not work."""
    assert info.duration is not None
    spacing = info.duration / WINDOWS
    windows: list[Window] = []
    for number in range(WINDOWS):
        try:
            with open_source(path, start=(number + Fraction(1, 2)) * spacing) as source:
                start, decoded_from = source.info.origin, source.decoded_from
                if decoded_from is None or decoded_from < start - spacing:
                    return []  # The frames of the previous position were decoded again.
                frames = _between(_frames(source), start, start + spacing)
                windows += _first_window(frames, info, length, convert)
        except VideoError:  # The video ends before this position, or is damaged there.
            continue
    return windows


def _in_folder(path: Path, info: SourceInfo, length: int, convert: _Convert) -> list[Window]:
    """One window for each position of a folder of images that has one; reads no other images."""
    files, _ = images_at(path)
    windows: list[Window] = []
    for number in range(WINDOWS):
        first = (2 * number + 1) * len(files) // (2 * WINDOWS)
        images = ImageReader(files[first : first + _SEARCHED], info.rate)
        windows += _first_window(_images(images), info, length, convert)
    return windows


def _in_all_frames(path: Path, length: int, convert: _Convert) -> list[Window]:
    """Up to `WINDOWS` windows of a clip; decodes all its frames."""
    selected: list[Window] = []
    stride = 1
    with open_source(path) as source:
        windows = _Windows(_frames(source), length)
        for number, window in enumerate(windows):
            if number % stride == 0:
                selected.append(tuple(convert(frame) for frame in window))
            if len(selected) == 2 * WINDOWS:  # Drops every other one, and those that follow.
                selected, stride = selected[::2], 2 * stride
    if len(selected) < _MINIMUM:
        raise ExportError(
            f"{path} has {windows.frames} frames and only {len(selected)} of the {_MINIMUM} runs "
            f"of {length} frames without a scene cut that are needed: give a longer clip"
        )
    indices = np.linspace(0, len(selected) - 1, min(len(selected), WINDOWS)).round().astype(int)
    return [selected[n] for n in indices]


class _Windows:
    """Iterates over windows of consecutive frames; no frame is in two windows.

    Attributes:
        frames: Number of frames so far.
    """

    def __init__(self, frames: Iterable[VideoFrame | None], length: int) -> None:
        """Sets the source.

        Args:
            frames: Frames in order, with None in place of those that cannot be decoded.
            length: Number of frames of a window.
        """
        self.frames = 0
        self._source = frames
        self._length = length

    def __iter__(self) -> Iterator[list[VideoFrame]]:
        detector = SceneDetector()
        window: list[VideoFrame] = []
        for frame in self._source:
            if frame is None:
                window = []
                continue
            self.frames += 1
            if detector.flags(frame).cut:
                window = []
            window.append(frame)
            if len(window) == self._length:
                yield window
                window = []


def _first_window(
    frames: Iterable[VideoFrame | None], info: SourceInfo, length: int, convert: _Convert
) -> Iterator[Window]:
    """The first window among the first frames, if there is one of the clip's frame size."""
    for window in islice(_Windows(islice(frames, _SEARCHED), length), 1):
        if all((frame.width, frame.height) == (info.width, info.height) for frame in window):
            yield tuple(convert(frame) for frame in window)


def _frames(source: Source) -> Iterator[VideoFrame | None]:
    """The frames of a source, and None where damage interrupts them."""
    damaged = 0
    for item in source:
        if isinstance(item, DecodedFrame):
            if source.damaged > damaged:
                damaged = source.damaged
                yield None
            yield item.frame


def _between(
    frames: Iterable[VideoFrame | None], start: Fraction, end: Fraction
) -> Iterator[VideoFrame | None]:
    """The frames with stamps from `start`, in seconds, to before `end`."""
    for frame in frames:
        if frame is None or frame.pts is None:
            yield None
            continue
        moment = frame.pts * Fraction(frame.time_base or 1)
        if moment >= end:
            return
        if moment >= start:
            yield frame


def _images(reader: ImageReader) -> Iterator[VideoFrame | None]:
    """The images, and None in place of those that cannot be read or decoded."""
    for packet in reader.packets():
        try:
            yield from reader.decode(packet)
        except (av.error.FFmpegError, OSError):
            yield None
