"""Writes the table of docs/video.md that says which properties of a video each output keeps.

Every cell is measured: small sources are interpolated to every output with a model that takes no
time, and PyAV reads source and output. A property that changes without a note is an error.

python tools/video_table.py
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from bench.harness.pipeline import PassThrough  # noqa: E402
from runtime import Interpolator, VideoError, VideoOptions, interpolate_video  # noqa: E402
from runtime.video.planes import has_alpha  # noqa: E402
from video_clips import pictures, write  # noqa: E402

PAGE = ROOT / "docs" / "video.md"
_BEGIN, _END = "<!-- kept -->\n", "<!-- /kept -->"

KEPT, SAID, REFUSED, LOST = "yes", "note", "refused", "lost"
"""Cells of the table: kept; changed or left out, which a note says; an error before the first
frame; changed without a note, which must not occur."""

_STAMPS = [0, 40, 80, 120, 130, 200, 240, 320]
_HDR = (
    "log-level=error:hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)"
    "WP(15635,16450)L(10000000,50):max-cll=1000,400"
)


@dataclass(frozen=True)
class Facts:
    """What PyAV reads of a file.

    Attributes:
        frame: The first frame.
        times: When the frames are shown, in seconds.
        aspect: Width over height of a pixel.
        alpha: Whether the frames have an alpha channel. FFmpeg's decoder of VP9 drops it, so that
            the tag counts.
        audio: Name of the codec of the audio track; None without.
        subtitles: Number of subtitle packets.
        chapters: Titles and start times of the chapters, in seconds.
        title: Title of the file.
        timecode: Timecode of the first frame, as a tag or a track.
    """

    frame: VideoFrame
    times: list[Fraction]
    aspect: Fraction = Fraction(1)
    alpha: bool = False
    audio: str | None = None
    subtitles: int = 0
    chapters: tuple[tuple[str, float], ...] = ()
    title: str | None = None
    timecode: str | None = None

    @property
    def hdr10(self) -> set[str]:
        """FFmpeg's names of the static HDR metadata of the first frame."""
        data: Any = self.frame.side_data
        names = {getattr(entry, "type", entry).name for entry in data}
        return names & {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"}


def read(path: Path) -> Facts:
    """Reads a video file, or the images of a folder, at 50 a second."""
    if path.is_dir():
        files = sorted(path.iterdir())
        first = read(files[0])
        return replace(first, times=[Fraction(k, 50) for k in range(len(files))])
    with av.open(str(path)) as clip:
        video = clip.streams.video[0]
        audio = next((track.codec_context.name for track in clip.streams.audio), None)
        chapters = tuple(
            (entry["metadata"].get("title", ""), float(entry["start"] * entry["time_base"]))
            for entry in clip.chapters()
        )
        tags = {name.lower(): value for name, value in clip.metadata.items()}
        own = {name.lower(): value for name, value in video.metadata.items()}
        frames: list[VideoFrame] = []
        subtitles = 0
        for packet in clip.demux():
            if packet.stream is video:
                frames += packet.decode()
            subtitles += packet.stream.type == "subtitle" and packet.size > 0
        aspect = video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio or 1
    times = [(frame.pts or 0) * Fraction(frame.time_base or 1) for frame in frames]
    return Facts(
        frames[0],
        [time - times[0] for time in times],
        Fraction(aspect),
        own.get("alpha_mode") == "1" or has_alpha(frames[0].format.name),
        audio,
        subtitles,
        chapters,
        tags.get("title"),
        own.get("timecode", tags.get("timecode")),
    )


def _marked(path: Path) -> Path:
    """Writes a video with a variable rate, tags, chapters, a pixel aspect ratio and a rotation."""
    return write(
        path,
        len(_STAMPS),
        stamps=_STAMPS,
        tags={"color_range": 1, "colorspace": 1, "color_primaries": 1, "color_trc": 1},
        sar=Fraction(4, 3),
        rotation=90,
        metadata={"title": "A title"},
        chapters=[(0, 160, "one"), (160, 320, "two")],
    )


def _with_timecode(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.metadata["timecode"] = "01:00:00:00"
        for number, frame in enumerate(pictures(4)):
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


SOURCES: dict[str, Callable[[Path], Path]] = {
    "marked.mkv": _marked,
    "hdr.mkv": lambda path: write(
        path,
        4,
        codec="libx265",
        fmt="yuv420p10le",
        options={"x265-params": _HDR},
        tags={"color_range": 1, "colorspace": 9, "color_primaries": 9, "color_trc": 16},
    ),
    "wide.mkv": lambda path: write(path, 4, fmt="yuv422p"),
    "alpha.mkv": lambda path: write(path, 4, codec="ffv1", fmt="yuva420p"),
    "sound.mkv": lambda path: write(path, 12, audio="aac"),
    "words.mkv": lambda path: write(path, 12, subtitles="srt"),
    "timecode.mov": _with_timecode,
}
"""Name of a source -> function that writes it."""


@dataclass(frozen=True)
class Property:
    """A column of the table.

    Attributes:
        source: Name of the source that has it.
        kept: Whether an output has it like the source.
        note: Pattern of the note where it has not.
    """

    source: str
    kept: Callable[[Facts, Facts], bool]
    note: str


def _colours(frame: VideoFrame, output: VideoFrame) -> tuple[int, ...]:
    """Primaries, transfer, and where the output is YUV matrix and range."""
    yuv = () if output.format.is_rgb else (int(frame.colorspace), int(frame.color_range))
    return int(frame.color_primaries), int(frame.color_trc), *yuv


def _chroma(frame: VideoFrame) -> tuple[int, int]:
    return frame.format.chroma_width(64), frame.format.chroma_height(64)


def _shown_at(source: Facts, output: Facts) -> bool:
    """Whether every frame of the source is shown at its time, up to a millisecond's rounding."""
    return all(min(abs(t - at) for at in output.times) <= Fraction(1, 500) for t in source.times)


PROPERTIES = {
    "variable rate": Property("marked.mkv", _shown_at, "frame rate of the source varies"),
    "colour tags": Property(
        "hdr.mkv",
        lambda a, b: _colours(a.frame, b.frame) == _colours(b.frame, b.frame),
        "primaries",
    ),
    "HDR10": Property("hdr.mkv", lambda a, b: a.hdr10 == b.hdr10, "HDR10"),
    "10 bits": Property(
        "hdr.mkv",
        lambda _, b: b.frame.format.components[0].bits >= 10,
        "pixel format|of the 10 bits",
    ),
    "4:2:2": Property(
        "wide.mkv",
        lambda a, b: b.frame.format.is_rgb or _chroma(b.frame) >= _chroma(a.frame),
        "pixel format",
    ),
    "alpha": Property("alpha.mkv", lambda a, b: a.alpha == b.alpha, "alpha"),
    # GIF stores the ratio in a byte.
    "pixel aspect": Property(
        "marked.mkv", lambda a, b: abs(a.aspect / b.aspect - 1) < 1 / 64, "aspect"
    ),
    "rotation": Property(
        "marked.mkv", lambda a, b: a.frame.rotation == b.frame.rotation, "rotated"
    ),
    "AAC": Property("sound.mkv", lambda a, b: a.audio == b.audio, "audio"),
    "SRT": Property("words.mkv", lambda a, b: a.subtitles == b.subtitles, "subtitle"),
    "chapters": Property("marked.mkv", lambda a, b: a.chapters == b.chapters, "chapters"),
    "title": Property("marked.mkv", lambda a, b: a.title == b.title, "tags"),
    "timecode": Property("timecode.mov", lambda a, b: a.timecode == b.timecode, "timecode"),
}
"""Head of a column -> its property."""

OUTPUTS: dict[str, tuple[str, str | None]] = {
    **{f"`.mp4` {codec}": ("out.mp4", codec) for codec in ("h264", "hevc", "vp9", "av1")},
    **{f"`.mov` {codec}": ("out.mov", codec) for codec in ("h264", "hevc", "prores")},
    **{
        f"`.mkv` {codec}": ("out.mkv", codec)
        for codec in ("h264", "hevc", "vp9", "av1", "ffv1", "prores")
    },
    **{f"`.webm` {codec}": ("out.webm", codec) for codec in ("vp9", "av1")},
    "`.gif`": ("out.gif", None),
    "`.apng`": ("out.apng", None),
    "a folder of PNG": ("frames/%06d.png", None),
    "Y4M": ("-", None),
}
"""Head of a row -> path and codec of the output."""


def converted(source: Path, folder: Path, path: str, codec: str | None) -> tuple[Facts, list[str]]:
    """Interpolates a source to an output; returns its facts and the notes.

    Raises:
        VideoError: If the output is refused.
    """
    out = folder / (path if path != "-" else "out.y4m")
    options = VideoOptions(codec=codec, cuts=None, longest_gap=None)
    with contextlib.ExitStack() as stack:
        vfi = stack.enter_context(Interpolator(PassThrough()))
        destination: str | Path = out
        if path == "-":
            stream = stack.enter_context(out.open("wb"))
            text = io.TextIOWrapper(stream, write_through=True)
            stack.enter_context(contextlib.redirect_stdout(text))
            destination = "-"
        report = interpolate_video(source, destination, model=vfi, options=options)
        if path == "-":
            text.detach()
    return read(out.parent if out.suffix == ".png" else out), report.notes


def measured() -> dict[str, dict[str, str]]:
    """The cells of the table: head of a row -> head of a column -> cell."""
    table: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        made = {source: make(Path(name) / source) for source, make in SOURCES.items()}
        facts = {source: read(path) for source, path in made.items()}
        for number, (row, (path, codec)) in enumerate(OUTPUTS.items()):
            table[row] = {}
            for source in SOURCES:
                folder = Path(name) / f"{number}_{source}"
                folder.mkdir()
                columns = {head: one for head, one in PROPERTIES.items() if one.source == source}
                try:
                    output, notes = converted(made[source], folder, path, codec)
                except VideoError:
                    table[row] |= dict.fromkeys(columns, REFUSED)
                    continue
                for head, one in columns.items():
                    if one.kept(facts[source], output):
                        table[row][head] = KEPT
                    else:
                        said = any(re.search(one.note, note) for note in notes)
                        table[row][head] = SAID if said else LOST
    return table


def markdown(table: dict[str, dict[str, str]]) -> str:
    """The table in Markdown."""
    lines = [
        ["output", *PROPERTIES],
        ["---"] * (1 + len(PROPERTIES)),
        *([row, *(cells[head] for head in PROPERTIES)] for row, cells in table.items()),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_table(page: str, table: str) -> str:
    """The text of a page with a new table between its marks."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"


if __name__ == "__main__":
    cells = measured()
    PAGE.write_text(with_table(PAGE.read_text(), markdown(cells)))
