"""Videos, Y4M streams, folders of images, masks, lists of cuts and segment files."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.frame import VideoFrame

from fuzz.mutate import TEXTS, mutated, mutated_json
from fuzz.outcomes import Target, WrongResultError
from runtime import Interpolator, VideoOptions, interpolate_video, interpolate_video_resumable
from runtime.errors import InterpolationError
from runtime.video.reading.source import open_source
from runtime.video.segments.file import SegmentFile

_SEGMENTS = Path(__file__).resolve().parents[2] / "tests" / "data" / "formats" / "out.mkv.segments"
_SIZE = 32, 48
_FRAMES = 8
_CONTAINERS = {
    ".mkv": "libx264", ".mp4": "libx264", ".webm": "libvpx-vp9", ".avi": "mpeg4", ".mov": "libx264",
    ".ts": "libx264", ".flv": "libx264", ".gif": "gif", ".nut": "ffv1", ".y4m": "rawvideo",
}  # fmt: skip
_FORMATS = {".gif": "rgb8", ".y4m": "yuv420p"}
_OPTIONS = VideoOptions(preset="ultrafast", overwrite=True)


def _pictures() -> list[Any]:
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (_SIZE[0], _SIZE[1] + _FRAMES, 3), np.uint8)
    return [np.ascontiguousarray(ground[:, k : k + _SIZE[1]]) for k in range(_FRAMES)]


def _clip(path: Path, codec: str) -> bytes:
    kind = "yuv4mpegpipe" if path.suffix == ".y4m" else None
    with av.open(str(path), "w", format=kind) as out:
        stream: Any = out.add_stream(codec, rate=25)
        stream.height, stream.width = _SIZE
        stream.pix_fmt = _FORMATS.get(path.suffix, "yuv420p")
        for picture in _pictures():
            frame = VideoFrame.from_ndarray(picture, format="rgb24")
            out.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        out.mux(stream.encode(None))
    return path.read_bytes()


class _Clips(NamedTuple):
    folder: Path
    contents: dict[str, bytes]
    model: Interpolator | None = None


def _prepare_clips(folder: Path) -> _Clips:
    contents = {
        suffix: _clip(folder / f"clip{suffix}", codec) for suffix, codec in _CONTAINERS.items()
    }
    return _Clips(folder, contents)


def _written(made: _Clips, rng: Random) -> Path:
    suffix = rng.choice(sorted(made.contents))
    path = made.folder / f"in{suffix}"
    path.write_bytes(mutated(rng, made.contents[suffix]))
    return path


def _read(made: _Clips, rng: Random) -> None:
    """A mutated video, all of whose frames and packets are read."""
    with open_source(_written(made, rng), strict=rng.random() < 0.2) as source:
        for _ in source:
            pass


def _prepare_with_model(folder: Path) -> _Clips:
    return _prepare_clips(folder)._replace(model=Interpolator.open("demo", cache="none", threads=1))


def _interpolate(made: _Clips, rng: Random) -> None:
    """A mutated video, which is interpolated; an error leaves nothing under the final name."""
    out = made.folder / rng.choice(("out.mkv", "out.mp4", "out.gif", "frames"))
    shutil.rmtree(out, ignore_errors=True)
    out.unlink(missing_ok=True)
    run = interpolate_video
    if out.suffix == ".mkv" and rng.random() < 0.3:
        run = interpolate_video_resumable
    assert made.model is not None
    try:
        run(_written(made, rng), out, model=made.model, options=_OPTIONS)
    except InterpolationError:
        if out.exists():
            raise WrongResultError("an error left an output under its final name") from None
        raise
    if not out.exists():
        raise WrongResultError("there is no output")


def _y4m(made: _Clips, rng: Random) -> None:
    """A Y4M stream with a hostile header, from a pipe."""
    content = made.contents[".y4m"]
    header, _, rest = content.partition(b"\n")
    words = header.split(b" ")
    for _ in range(rng.randint(1, 3)):
        value = rng.choice((*TEXTS, "1000000000:1", "0:0", "-25:1", "25:0", "1:1000000000", "p"))
        field = rng.choice((b"W", b"H", b"F", b"I", b"A", b"C", b"X"))
        at = rng.randint(1, len(words))
        words[at : at + rng.randrange(2)] = [field + value.encode("utf-8", "replace")]
    with open_source(io.BytesIO(b" ".join(words) + b"\n" + rest)) as source:
        for _ in source:
            pass


def _prepare_images(folder: Path) -> _Clips:
    contents = {}
    for suffix, form in ((".png", "rgb24"), (".jpg", "yuvj420p")):
        frame = VideoFrame.from_ndarray(_pictures()[0], format="rgb24").reformat(format=form)
        frame.save(str(folder / f"picture{suffix}"))
        contents[suffix] = (folder / f"picture{suffix}").read_bytes()
    return _Clips(folder, contents)


def _images(made: _Clips, rng: Random) -> None:
    folder = made.folder / "images"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number in range(4):
        suffix = rng.choice((".png", ".jpg"))
        name = rng.choice(
            (f"{number}", f"{number:04}", f"\u00b2{number}", f"f{number}\x1b", "9" * 90)
        )
        content = made.contents[suffix]
        if rng.random() < 0.5:
            content = mutated(rng, content)
        (folder / f"{name}{suffix}").write_bytes(content)
    with open_source(folder, strict=rng.random() < 0.2) as source:
        for _ in source:
            pass


def _mask(made: _Clips, rng: Random) -> None:
    suffix = rng.choice(sorted(made.contents))
    path = made.folder / f"mask{suffix}"
    path.write_bytes(mutated(rng, made.contents[suffix]))
    VideoOptions(mask=path)


_CUTS = "1.5\n0:02.25\n90\n"
_SCENES = (
    "Timecode List:,00:00:01.000\nScene Number,Start Frame,Start Timecode,Start Time (seconds)\n"
    "1,1,00:00:00.000,0.000\n2,26,00:00:01.000,1.000\n"
)


def _prepare_folder(folder: Path) -> Path:
    return folder


def _cut_list(folder: Path, rng: Random) -> None:
    content = rng.choice((_CUTS, _SCENES)).encode()
    if rng.random() < 0.5:
        lines = content.decode().split("\n")
        lines[rng.randrange(len(lines))] = rng.choice(TEXTS)
        content = "\n".join(lines).encode("utf-8", "replace")
    (folder / "cuts.csv").write_bytes(mutated(rng, content, most=2))
    VideoOptions(cut_list=folder / "cuts.csv")


class _Segment(NamedTuple):
    path: Path
    packets: bytes
    index: Any
    magic: bytes


def _prepare_segment(folder: Path) -> _Segment:
    """A segment of an earlier version: packets, their index as JSON, its length, a magic."""
    content = next(iter(sorted(_SEGMENTS.glob("*.segment")))).read_bytes()
    begin, end = content.rindex(b'{"encoder"'), content.rindex(b"}") + 1
    path = folder / "00000.segment"
    return _Segment(path, content[:begin], json.loads(content[begin:end]), content[end + 8 :])


def _segment_file(made: _Segment, rng: Random) -> None:
    index = mutated_json(rng, made.index)
    content = made.packets + index + len(index).to_bytes(8, "little") + made.magic
    made.path.write_bytes(mutated(rng, content) if rng.random() < 0.2 else content)
    SegmentFile(made.path)


TARGETS = (
    Target("video, read", _prepare_clips, _read, weight=5),
    Target("video, interpolated", _prepare_with_model, _interpolate, weight=0.5),
    Target("Y4M header", _prepare_clips, _y4m, weight=2),
    Target("folder of images", _prepare_images, _images, weight=3),
    Target("mask", _prepare_images, _mask),
    Target("list of cuts", _prepare_folder, _cut_list),
    Target("segment file", _prepare_segment, _segment_file),
)
