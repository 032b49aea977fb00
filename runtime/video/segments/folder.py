"""The folder for the segments of one video until they are joined, and which outputs have one."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from runtime.errors import VideoError
from runtime.files import HAS_FLOCK, Lock, empty_folder, is_locked, lock_file
from runtime.video.writing.destination import animation_of, images_of

_LOCK = "lock"


def check_is_video(destination: Path) -> None:
    """Checks that an output can be joined from segments.

    Raises:
        VideoError: If it is no video file, but images, animated ones too, or a stream.
    """
    if images_of(destination) is not None or animation_of(destination) is not None:
        raise VideoError(
            f"{destination} is not a video file, which a run with segments writes: give a name as "
            "out.mkv"
        )


class SegmentFolder:
    """The folder DESTINATION.segments, which a lock file inside it reserves for one run.

    Attributes:
        path: The folder.
    """

    def __init__(self, destination: Path) -> None:
        """Sets the path; `claim` creates the folder.

        Args:
            destination: The video file to which the segments will be joined.
        """
        self.path = destination.with_name(destination.name + ".segments")
        self._lock: Lock | None = None

    def file(self, number: int) -> Path:
        """Path of the segment with that number."""
        return self.path / f"{number:05}.segment"

    def check_free(self) -> None:
        """Checks that no other run has locked the folder; creates nothing.

        Raises:
            VideoError: If another run has locked it.
        """
        if is_locked(self.path / _LOCK):
            raise self._busy()

    def claim(self, *, keep: bool) -> list[str]:
        """Creates the folder if it is missing, and locks it until `remove` or `leave`.

        Args:
            keep: Whether to keep the segments of an earlier run.

        Returns:
            Notes for the user.

        Raises:
            VideoError: If another run has locked it.
            OSError: If the folder cannot be created.
        """
        self.path.mkdir(exist_ok=True)
        self._lock = lock_file(self.path / _LOCK)
        if self._lock is None:
            raise self._busy()
        if not keep:
            self.clear()
        return self._lock.notes

    def clear(self) -> None:
        """Removes all files in the folder except the lock.

        Raises:
            OSError: If a file cannot be removed.
        """
        empty_folder(self.path, keep=_LOCK)

    def remove(self) -> None:
        """Removes the folder with its content, if this run has locked it."""
        if self._lock is not None:
            with suppress(OSError):
                self.clear()
            self.leave()

    def leave(self) -> None:
        """Unlocks the folder and keeps its segments; an empty folder is removed."""
        if self._lock is None:
            return
        if self._lock.is_current():
            with suppress(OSError):
                self._lock.path.unlink()
        # NFS keeps a removed file in the folder until it is closed.
        self._lock.release()
        self._lock = None
        with suppress(OSError):
            self.path.rmdir()

    def _busy(self) -> VideoError:
        left = "" if HAS_FLOCK else f", or remove {self.path / _LOCK} that a killed run left"
        return VideoError(
            f"{self.path.name} is being written by another run: wait for it{left}, or write to "
            "another folder"
        )
