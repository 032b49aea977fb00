"""Paths of outputs: container, partial file or folder, and checks.

An output is written as NAME.partial.EXT (a folder as NAME.partial), locked by one run, and renamed
when it is complete.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from runtime.errors import VideoError
from runtime.files import HAS_FLOCK, Lock, is_locked, lock_file, lock_folder
from runtime.video.reading.images import is_pattern, matcher_of

SUFFIXES = (".mp4", ".mkv", ".mov", ".m4v", ".webm")

Animation = Literal["GIF", "APNG", "WebP"]
"""Animated images: one file without sound."""

ANIMATIONS: dict[str, Animation] = {".gif": "GIF", ".apng": "APNG", ".webp": "WebP"}
"""Suffixes of animated images."""

_FILE_NAMES = "%06d.png"
"""Names of the images in an output folder that is given without a pattern."""

_FORMATS = {".mkv": "matroska", ".m4v": "mp4"}


def container_of(path: Path) -> str:
    """FFmpeg's name of the container for the suffix of a path."""
    suffix = path.suffix.lower()
    return _FORMATS.get(suffix, suffix[1:])


Images = Literal["PNG", "Y4M"]
"""Files of a folder, or a stream on stdout: outputs without a container."""


def is_folder(path: str | Path) -> bool:
    """Whether PNG files are written to a path: a folder, or a pattern as %06d.png."""
    path = Path(path)
    return path.is_dir() or not path.suffix or (is_pattern(path) and path.suffix == ".png")


def images_of(path: str | Path) -> Images | None:
    """The images that are written to a path; None for a video file."""
    if str(path) == "-":
        return "Y4M"
    return "PNG" if is_folder(path) else None


def animation_of(path: str | Path) -> Animation | None:
    """The animated image that is written to a path; None for other outputs."""
    return None if is_folder(path) else ANIMATIONS.get(Path(path).suffix.lower())


def folder_of(path: Path) -> Path:
    """The folder of the images: the path itself, or the parent of a pattern."""
    return path.parent if is_pattern(path) else path


def file_names(path: Path) -> str:
    """The pattern of the names of the images: that of the path, or %06d.png."""
    return path.name if is_pattern(path) else _FILE_NAMES


def partial_path(path: str | Path) -> Path:
    """The path at which a file or a folder is written until it is complete."""
    path = Path(path)
    if is_folder(path):
        folder = folder_of(path)
        return folder.with_name(f"{folder.name}.partial")
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def check_destination(path: str | Path, source: str | Path, *, overwrite: bool = False) -> None:
    """Checks that an output can be written without damage to other files; changes nothing.

    Args:
        path: The output.
        source: The input.
        overwrite: Whether an output that exists may be replaced.

    Raises:
        VideoError: If the path is not possible for an output, is or contains the source, another
            run is writing it, or it exists and `overwrite` is False.
    """
    path, here = Path(path), Path.cwd()
    # The output folder is replaced by a rename at the end.
    if is_folder(path) and folder_of(path).resolve() in (here, *here.parents):
        raise VideoError(
            f"{folder_of(path)} is or contains the current folder: give a folder that is only for "
            "the images"
        )
    if not is_folder(path) and path.suffix.lower() not in (*SUFFIXES, *ANIMATIONS):
        raise VideoError(
            f"{path.name} has no supported suffix: use one of "
            f"{', '.join((*SUFFIXES, *ANIMATIONS))}, a folder, or %06d.png"
        )
    if not is_folder(path) and not path.parent.is_dir():
        raise VideoError(f"{path.parent} is not a folder: create it first")
    temp, read = partial_path(path), Path(source).resolve()
    own, given = folder_of(path), folder_of(Path(source))
    if own.resolve() == given.resolve() or (
        own.exists() and given.exists() and own.samefile(given)
    ):
        raise VideoError(f"{path} is the input itself: write to another file")
    if temp.exists() and temp.resolve() in (read, *read.parents):
        raise VideoError(
            f"{source} would be overwritten, because the output is first written to {temp.name}: "
            "rename the input or the output"
        )
    if temp.is_symlink():
        raise VideoError(
            f"{temp.name} is a symbolic link, but the output is first written there: remove it"
        )
    # The final name may be the partial name of another run.
    check_free(temp)
    check_free(path)
    if is_folder(path):
        check_folder(path, overwrite=overwrite)
    elif is_taken(path) and not overwrite:
        raise VideoError(f"{path} exists: write to another file, or replace it with --overwrite")


def is_taken(path: str | Path) -> bool:
    """Whether a file exists at the path of an output, or its folder has files."""
    path = Path(path)
    if is_folder(path):
        folder = folder_of(path)
        return folder.is_dir() and any(folder.iterdir())
    return path.exists() or path.is_symlink()


def check_folder(path: Path, *, overwrite: bool = False) -> None:
    """Checks that images can be written to a folder, or to the folder of a pattern.

    Args:
        path: The folder or the pattern.
        overwrite: Whether a folder may be replaced that has images with the names of this output,
            and nothing else.

    Raises:
        VideoError: If it is a file, a symbolic link, or a folder that is not empty and may not be
            replaced.
    """
    folder, names = folder_of(path), matcher_of(file_names(path))
    if folder.exists() and not folder.is_dir():
        raise VideoError(f"{folder} is a file: give a folder that is new or empty")
    if folder.is_symlink():
        raise VideoError(f"{folder} is a symbolic link: give the folder that it leads to")
    entries = list(folder.iterdir()) if folder.exists() else []
    others = [
        entry.name
        for entry in entries
        if not names.fullmatch(entry.name) or entry.is_symlink() or not entry.is_file()
    ]
    if others and overwrite:
        raise VideoError(
            f"{folder} cannot be replaced, because it has {min(others)}, which is no image of this "
            "output: give a folder that is new or empty"
        )
    if entries and not overwrite:
        replace = "" if others else ", or replace its images with --overwrite"
        raise VideoError(f"{folder} is not empty: give a folder that is new or empty{replace}")


def check_free(path: Path) -> None:
    """Checks that no other run is writing a file or a folder; creates nothing.

    Raises:
        VideoError: If another run has locked it.
    """
    if is_locked(path):
        raise _busy(path)


def claimed_file(path: Path) -> Lock:
    """Creates and locks a file, or locks the one that a killed run left.

    Raises:
        VideoError: If another run is writing it.
        OSError: If it cannot be created.
    """
    return _claimed(path, lock_file(path))


def claimed_folder(path: Path) -> Lock:
    """Creates and locks a folder, or locks the one that a killed run left.

    Raises:
        VideoError: If another run is writing it.
        OSError: If it cannot be created.
    """
    return _claimed(path, lock_folder(path))


def check_own(lock: Lock) -> None:
    """Checks, before the rename, that a path still is the file or folder that was locked.

    Raises:
        VideoError: If it was removed or replaced.
    """
    if not lock.is_current():
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
