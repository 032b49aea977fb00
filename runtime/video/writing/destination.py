"""Where an output is written: its container, its partial file or folder, and what is refused.

An output is written as NAME.partial.EXT (a folder as NAME.partial), which one run at a time may
hold, and renamed when it is whole.
"""

from __future__ import annotations

from pathlib import Path

from runtime.errors import VideoError
from runtime.files import HAS_FLOCK, Lock, is_locked, lock_file, lock_folder
from runtime.video.reading.images import is_pattern

SUFFIXES = (".mp4", ".mkv", ".mov", ".m4v", ".webm")

_FORMATS = {".mkv": "matroska", ".m4v": "mp4"}


def container_of(path: Path) -> str:
    """FFmpeg's name of the container that a suffix means."""
    suffix = path.suffix.lower()
    return _FORMATS.get(suffix, suffix[1:])


def is_folder(path: str | Path) -> bool:
    """Whether pictures are written there: a folder, or a pattern of PNGs."""
    path = Path(path)
    return path.is_dir() or not path.suffix or (is_pattern(path) and path.suffix == ".png")


def folder_of(path: Path) -> Path:
    """The folder of the pictures, of a folder or of a pattern."""
    return path.parent if is_pattern(path) else path


def partial_path(path: str | Path) -> Path:
    """Under which name a file or a folder is written until it is whole."""
    path = Path(path)
    if is_folder(path):
        folder = folder_of(path)
        return folder.with_name(f"{folder.name}.partial")
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def check_destination(path: str | Path, source: str | Path) -> None:
    """Refuses what cannot be written, or would cost the source; touches nothing.

    Raises:
        VideoError: If it is no place for a video, holds the source, or another run writes to it.
    """
    path = Path(path)
    if is_folder(path):
        check_folder(path)
    elif path.suffix.lower() not in SUFFIXES:
        raise VideoError(
            f"{path.name} has no suffix of a video: use one of {', '.join(SUFFIXES)}, a folder, "
            "or %06d.png"
        )
    elif not path.parent.is_dir():
        raise VideoError(f"{path.parent} is no folder: create it first")
    beside, read = partial_path(path), Path(source).resolve()
    if path.resolve() == read or (path.exists() and read.exists() and path.samefile(read)):
        raise VideoError(f"{path} is the input itself: write to another file")
    if beside.exists() and beside.resolve() in (read, *read.parents):
        raise VideoError(
            f"{source} would be overwritten, as {beside.name} is where the output is written until "
            "it is whole: rename the input or the output"
        )
    if beside.is_symlink():
        raise VideoError(
            f"{beside.name} is a symbolic link, and the output is written there until it is whole: "
            "remove the link"
        )
    # The final name may be the partial name of another run.
    check_free(beside)
    check_free(path)


def check_folder(path: Path) -> None:
    """Refuses a folder, or that of a pattern, to which pictures cannot be written.

    Raises:
        VideoError: If it is none, not empty, or the working folder.
    """
    folder = folder_of(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise VideoError(f"{folder} is not empty: give a folder that is new or empty")
    if folder.resolve() == Path.cwd():  # It is renamed at the end.
        raise VideoError(f"{folder} is the working folder: give a folder of the pictures' own")


def check_free(path: Path) -> None:
    """Refuses a file or a folder that another run is writing; creates nothing.

    Raises:
        VideoError: If another run holds its lock.
    """
    if is_locked(path):
        raise _busy(path)


def claimed_file(path: Path) -> Lock:
    """Creates a file for this run alone, or takes over what a killed run left there.

    Raises:
        VideoError: If another run is writing it.
        OSError: If it cannot be created.
    """
    return _claimed(path, lock_file(path))


def claimed_folder(path: Path) -> Lock:
    """Creates a folder for this run alone, or takes over what a killed run left there.

    Raises:
        VideoError: If another run is writing it.
        OSError: If it cannot be created.
    """
    return _claimed(path, lock_folder(path))


def check_own(lock: Lock) -> None:
    """Refuses to rename what is not the file or folder of this run any more.

    Raises:
        VideoError: If it was removed or replaced.
    """
    if not lock.holds():
        raise VideoError(
            f"{lock.path.name} was removed or replaced while this run was writing it: run again, "
            "and keep other programs away from it"
        )


def _claimed(path: Path, lock: Lock | None) -> Lock:
    if lock is None:
        raise _busy(path)
    return lock


def _busy(path: Path) -> VideoError:
    if not HAS_FLOCK:
        return VideoError(
            f"{path.name} exists, as another run is writing it or a killed run left it: wait for "
            "that run, or remove it"
        )
    return VideoError(
        f"{path.name} is being written by another run: wait for it, or write to another "
        f"{'folder' if path.is_dir() else 'file'}"
    )
