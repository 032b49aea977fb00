"""Checks of a run before the workers start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.errors import VideoError
from runtime.video.options import VideoOptions
from runtime.video.segments.folder import SegmentFolder, check_is_video
from runtime.video.writing.destination import check_destination, is_taken


def check_run(sources: Sequence[tuple[Path, Path]], options: VideoOptions, *, resume: bool) -> None:
    """Checks the options and the outputs of a run; changes nothing.

    Args:
        sources: Pairs of source and destination.
        options: How to read, cut and write.
        resume: Whether outputs that exist are results of an earlier run.

    Raises:
        VideoError: If the options select a part, a destination cannot be written, another run
            writes to it, two are the same, or one exists and is neither kept nor replaced.
    """
    if options.start is not None or options.end is not None:
        raise VideoError("a cluster takes whole videos: leave start and end out")
    if len({destination for _, destination in sources}) < len(sources):
        raise VideoError("two inputs have the same output: rename one of them")
    for source, destination in sources:
        check_destination(destination, source, overwrite=True)
        check_is_video(destination)
        SegmentFolder(destination).check_free()
    check_existing(sources, options, resume=resume)


def check_existing(
    sources: Sequence[tuple[Path, Path]], options: VideoOptions, *, resume: bool
) -> None:
    """Checks that outputs which exist are kept (`resume`) or may be replaced.

    Args:
        sources: Pairs of source and destination.
        options: Only `overwrite` is used.
        resume: Whether outputs that exist are results of an earlier run.

    Raises:
        VideoError: If one exists and is neither kept nor replaced.
    """
    existing = [destination for _, destination in sources if is_taken(destination)]
    if existing and not (resume or options.overwrite):
        more = f", as do {len(existing) - 1} more" if len(existing) > 1 else ""
        raise VideoError(
            f"{existing[0]} exists already{more}: keep results with --resume, replace them with "
            "--overwrite, or write to another folder"
        )
