"""Packs clips and photographs into parts of limited size, for a machine without a network."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demo_weights.clips import INDEX, Clip, check_length, decoded, is_larger, read_photo
from demo_weights.errors import TrainingError
from runtime.files import written_beside

FORMAT = 1
PART = "part-{:03d}"
QUALITY = "12"
"""crf of x264 for scaled clips; gives 42 dB to the scaled frames, measured on two clips."""

RATE = Fraction(30)
"""Frames a second of scaled clips; nothing depends on it."""

MIB = 1 << 20


@dataclass(frozen=True)
class Packed:
    """The result of `pack`: the folder, the numbers of parts, clips, frames and photographs, and
    the size of all parts in bytes.
    """

    folder: Path
    parts: int
    bytes: int
    clips: int
    frames: int
    photos: int


def pack(
    clips: Sequence[Clip],
    photos: Sequence[Path],
    folder: Path,
    *,
    short_side: int,
    part_bytes: int,
) -> Packed:
    """Writes clips and photographs into parts, and `index.json` with their hashes.

    The parts are those of one tar archive. Clips are copied; those with larger frames are scaled
    down and encoded again. All are decoded once, to find their cuts and to refuse damaged files.

    Args:
        clips: The clips.
        photos: The photographs, which are copied.
        folder: An empty folder, or one that does not exist.
        short_side: Limit of the shorter side of a frame, in pixels.
        part_bytes: Limit of the size of a part.

    Raises:
        TrainingError: If the folder is not empty, or a file cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise TrainingError(f"--pack {folder} is not empty: name a new folder")
    for photo in photos:
        read_photo(photo)
    entries = []
    splitter = _Splitter(folder, part_bytes)
    with closing(splitter), tarfile.open(fileobj=splitter, mode="w|") as archive:  # type: ignore[call-overload]
        for clip in clips:
            entry, content = _packed_clip(clip, short_side)
            entries.append(entry)
            _add(archive, f"clips/{entry['file']}", content)
            print(f"{entry['file']}: {entry['frames']} frames, cuts {entry['cuts']}", flush=True)
        _add(archive, f"clips/{INDEX}", json.dumps(entries, indent=1).encode())
        for photo in photos:
            _add(archive, f"photos/{photo.name}", photo.read_bytes())
    parts = splitter.parts()
    index = {"format": FORMAT, "parts": parts, "clips": entries}
    index["photos"] = [photo.name for photo in photos]
    with written_beside(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=1) + "\n")
    return Packed(
        folder,
        len(parts),
        sum(part["bytes"] for part in parts),
        len(clips),
        sum(entry["frames"] for entry in entries),
        len(photos),
    )


def unpack(folder: Path, target: Path) -> tuple[Path, Path]:
    """Checks the parts of a packed folder and extracts them.

    Args:
        folder: A folder that `pack` wrote.
        target: An existing folder.

    Returns:
        The folders of clips and of photographs.

    Raises:
        TrainingError: If a part is missing or damaged.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        parts = [(folder / part["name"], part["sha256"]) for part in index["parts"]]
        version = index["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"--packed {folder} is not what --pack wrote ({type(error).__name__}: {error}): copy "
            f"all its parts and its {INDEX}"
        ) from error
    if version != FORMAT:
        raise TrainingError(
            f"{folder} has format {version} and this tool reads {FORMAT}: pack the clips again"
        )
    for path, sha256 in parts:
        if not path.is_file() or _sha256(path) != sha256:
            raise TrainingError(f"{path} is missing or damaged: copy it again")
    joined = io.BufferedReader(_Joined([path for path, _ in parts]))
    with joined, tarfile.open(fileobj=joined, mode="r|") as archive:
        archive.extractall(target, filter="data")
    return target / "clips", target / "photos"


def _packed_clip(clip: Clip, short_side: int) -> tuple[dict[str, Any], bytes]:
    """The entry of a clip in the index, and the bytes of its file."""
    content = io.BytesIO()
    encoder: _Encoder | None = None
    scaled = is_larger(clip, short_side)
    count, cuts = 0, []
    for frame, cut in decoded(clip, short_side):
        if scaled and encoder is None:
            encoder = _Encoder(content, *frame.shape[:2])
        if cut:
            cuts.append(count)
        if encoder is not None:
            encoder.write(frame, count)
        count += 1
    check_length(clip, count)
    if encoder is None:
        file, data = clip.path.name, clip.path.read_bytes()
    else:
        encoder.close()
        file, data = f"{clip.path.stem}.mkv", content.getvalue()
    entry = {
        "name": clip.name,
        "file": file,
        "frames": count,
        "cuts": cuts,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return entry, data


class _Encoder:
    """Encodes frames as H.264 in Matroska, 4:2:0, in high quality."""

    def __init__(self, file: io.BytesIO, height: int, width: int) -> None:
        import av

        self.container: Any = av.open(file, "w", format="matroska")
        self.stream = self.container.add_stream("libx264", rate=RATE, options={"crf": QUALITY})
        self.stream.height, self.stream.width = height, width
        self.stream.pix_fmt = "yuv420p"

    def write(self, frame: NDArray[np.uint8], number: int) -> None:
        """Encodes one frame, uint8 RGB (H, W, 3)."""
        import av

        coded = av.VideoFrame.from_ndarray(frame, format="rgb24")
        # Not the stream's time base: that becomes the container's with the first packet.
        coded.pts, coded.time_base = number, 1 / RATE
        self.container.mux(self.stream.encode(coded))

    def close(self) -> None:
        """Writes what the encoder still holds."""
        self.container.mux(self.stream.encode(None))
        self.container.close()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


class _Splitter:
    """A file object that writes parts of limited size."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.names: list[str] = []
        self._file: Any = None
        self._room = 0

    def write(self, data: bytes) -> int:
        """Writes to the current part, and to further ones."""
        rest = memoryview(data)
        while rest:
            if self._room == 0:
                self._next()
            piece = rest[: self._room]
            self._file.write(piece)
            self._room -= len(piece)
            rest = rest[len(piece) :]
        return len(data)

    def _next(self) -> None:
        self.close()
        self.names.append(PART.format(len(self.names)))
        self._file = (self.folder / self.names[-1]).open("wb")
        self._room = self.limit

    def close(self) -> None:
        """Closes the current part."""
        if self._file is not None:
            self._file.close()

    def parts(self) -> list[dict[str, Any]]:
        """Names, sizes and hashes of the parts; call it after `close`."""
        paths = [self.folder / name for name in self.names]
        return [
            {"name": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in paths
        ]


class _Joined(io.RawIOBase):
    """A file object that reads parts as one file."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb") for path in paths]

    def readable(self) -> bool:
        """Always True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads from the first part that is not at its end."""
        for file in self._files:
            if count := file.readinto(buffer):
                return count
        return 0

    def close(self) -> None:
        """Closes all parts."""
        for file in self._files:
            file.close()
        super().close()


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()
